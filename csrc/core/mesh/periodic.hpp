#pragma once
// What all lattice sums share: the box, the short-ranged part, and the terms without a sum.
#include "core/mesh/coulomb.hpp"
#include "core/neighbors/cell.hpp"

namespace nearsight {

/// The cell of a lattice sum, periodic in three directions. A slab, periodic in two, gets layers of vacuum of
/// our own choice along its normal, so wide that what other layers add beyond the Yeh-Berkowitz correction is
/// below the tolerance: the third lattice vector of the user has no influence, tilted or not.
struct Box {
  Mat3 vectors;
  Mat3 inverse;  // columns are reciprocal vectors without 2π
  double volume;
  bool slab = false;
  Vec3 normal{};      // of a slab
  double height = 0;  // of a slab with its vacuum, Å

  Cell cell() const { return {vectors, {true, true, true}}; }
};

/// Throws Error (unsupported) for a system periodic in one direction, (argument) in none, and what
/// check_charges, complete and check_positions throw.
Box make_box(const Charges& charges, const Cell& cell, double cutoff, double tolerance);

/// Adds Σ short_ranged over all pairs and images within the cutoff, e/Å. Throws Error (numeric) for atoms on
/// top of each other. The same bits for any number of threads.
void add_short_range(const Charges& charges, const Box& box, double alpha, double cutoff, ThreadPool& threads,
                     Coulomb& result);

/// Adds what needs no sum over pairs, e/Å: the interaction of each charge with its own screening charge, the
/// k = 0 term of the short-ranged part, and for slabs the correction of Yeh and Berkowitz, J. Chem. Phys.
/// 111, 3155 (1999), with a net charge in the form of Ballenegger, Arnold and Cerdà, J. Chem. Phys. 131,
/// 094107 (2009).
void add_corrections(const Charges& charges, const Box& box, double alpha, Coulomb& result);

}  // namespace nearsight
