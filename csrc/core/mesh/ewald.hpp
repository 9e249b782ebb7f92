#pragma once
#include "core/mesh/coulomb.hpp"

namespace nearsight {

/// Ewald's sum in double to round-off, O(N²) at a fixed splitting: the oracle of the mesh. Systems periodic
/// in three or two directions; open ones by the direct sum. `splitting`, 1/Å, is the inverse length that
/// divides real from reciprocal space; 0: chosen for speed. The result does not depend on it. Throws what
/// make_box, add_short_range and direct_sum throw, and Error (argument) for a splitting that is negative or
/// not finite.
void ewald(const Charges& charges, const Cell& cell, double splitting, ThreadPool& threads, Coulomb& result);

}  // namespace nearsight
