#pragma once
#include <array>

#include "core/mesh/region.hpp"

namespace nearsight {

/// What a sum on a mesh is made of; frozen between set-ups, so that energies are smooth.
struct PmeParameters {
  double splitting = 0;       // α, 1/Å
  double cutoff = 0;          // of the short-ranged part, Å
  int order = 0;              // of the B-splines
  std::array<int, 3> mesh{};  // points along the lattice vectors
  double force_error = 0;     // estimated root mean square of |ΔF|, eV/Å
};

/// What error estimates know of the charges of all ranks.
struct ChargeSize {
  std::size_t num_charges = 0;
  double squares = 0;  // Σ q², e²
  double fourths = 0;  // Σ q⁴, e⁴
  double width = 0;    // the largest, Å
};

/// Collective.
ChargeSize measure(const Charges& charges, Ranks& ranks);

/// Error of forces from pairs beyond the cutoff, eV/Å: Kolafa and Perram, Mol. Simul. 9, 351 (1992).
double short_range_error(const ChargeSize& size, const Box& box, double alpha, double cutoff);

/// Error of forces from the mesh, eV/Å: the root mean square over independent places of the charges, to
/// leading orders of aliasing; with the force of a charge on itself.
double mesh_error(const ChargeSize& size, const Box& box, double alpha, int order,
                  const std::array<int, 3>& mesh);

/// What the user may fix; 0: chosen.
struct PmeWishes {
  double cutoff = 0;
  int order = 0;
};

/// The cheapest parameters whose estimated error is below `force_error`, eV/Å; of up to 4096 charges the part
/// from pairs beyond the cutoff is measured as well. Collective, the same on all ranks. Throws Error
/// (argument) for an order outside 4..8, a bad cutoff, and a cutoff too short for the widths of the charges;
/// (unsupported) if the mesh would be absurdly large.
PmeParameters choose_parameters(const Charges& charges, const ChargeSize& size, const Box& box,
                                double force_error, const PmeWishes& wishes, ThreadPool& threads,
                                Ranks& ranks);

}  // namespace nearsight
