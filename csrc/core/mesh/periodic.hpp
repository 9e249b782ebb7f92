#pragma once
// What all lattice sums share: the box, the short-ranged part, and the terms without a sum.
#include "core/engine/ranks.hpp"
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
  double occupied;  // volume without the vacuum of a slab
  bool slab = false;
  Vec3 normal{};      // of a slab
  double height = 0;  // of a slab with its vacuum, Å
  double bottom = 0;  // of a slab: its lowest charge along the normal, Å

  Cell cell() const { return {vectors, {true, true, true}}; }
};

/// `height`, Å, is that of a slab with its vacuum; 0: the least. Collective. Throws Error (unsupported) for a
/// system periodic in one direction, (argument) in none, (numeric) for a slab that needs more than `height`,
/// and what check_charges, complete and check_positions throw.
Box make_box(const Charges& charges, const Cell& cell, double cutoff, double tolerance, double height,
             Ranks& ranks);

/// Adds to all charges what the reciprocal sum of erf(α r) / r leaves of the potential, over all
/// pairs and images within the cutoff, e/Å, shifted to zero at the cutoff: energies are continuous, and what
/// the pairs beyond would add is replaced by its mean (with the charge's own part and the background in
/// add_corrections, as Wolf et al., J. Chem. Phys. 110, 8254 (1999)). Pair by pair, an oracle: ShortRange is
/// the same for many evaluations. Throws Error (numeric) for atoms on top of each other. The same bits for
/// any number of threads.
void add_short_range(const Charges& charges, const Box& box, double alpha, double cutoff, ThreadPool& threads,
                     Coulomb& result);

/// Adds what needs no sum over pairs, e/Å: the interaction of each charge with its own screening charge, the
/// k = 0 term of the shifted short-ranged part, and for slabs the correction of Yeh and Berkowitz, J. Chem.
/// Phys. 111, 3155 (1999), with a net charge in the form of Ballenegger, Arnold and Cerdà, J. Chem. Phys.
/// 131, 094107 (2009). Collective.
void add_corrections(const Charges& charges, const Box& box, double alpha, double cutoff, Ranks& ranks,
                     Coulomb& result);

}  // namespace nearsight
