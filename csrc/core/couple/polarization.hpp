#pragma once
#include "core/engine/span.hpp"
#include "core/neighbors/cell.hpp"

namespace nearsight {

/// What projects vectors on the directions that are not periodic: all, the normal of a slab, or none.
Mat3 open_directions(const Cell& cell);

/// How charges q_i move with the atoms: by what their readouts do, a_i in all A, and by a share s_i of -dA.
struct MovingCharges {
  Span<const int> owned;         // atoms that have charges, for all that follows
  Span<const double> positions;  // [3 * atoms] Å
  Span<const double> charges;    // [owned][channels] e; the first channel
  Span<const double> shares;     // [owned]
  Span<const double> flows;      // [9 * atoms] -Σ_j r_ji ⊗ da_j/dr_ji, in the order of centroid virials
  Span<const double> gradients;  // [3 * atoms] -dA/dr_i
};

/// Adds Born effective charges Z_i = dμ/dr_i, docs/electrostatics.md, to born_charges[9 * atoms], e; the
/// index of the dipole is the first one. Of one process.
void add_born_charges(const MovingCharges& moving, const Cell& cell, Span<double> born_charges);

}  // namespace nearsight
