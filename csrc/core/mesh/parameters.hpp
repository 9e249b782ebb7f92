#pragma once
#include <array>

#include "core/mesh/errors.hpp"

namespace nearsight {

/// What a sum on a mesh is made of; frozen between set-ups, so that energies are smooth.
struct PmeParameters {
  double splitting = 0;       // α, 1/Å
  double cutoff = 0;          // of the short-ranged part, Å
  int order = 0;              // of the B-splines
  std::array<int, 3> mesh{};  // points along the lattice vectors
  double force_error = 0;     // estimated root mean square of |ΔF|, eV/Å
};

/// How much further than the cutoff lists of pairs reach, relative to it.
constexpr double kSkin = 0.1;

/// What the user may fix; 0: chosen.
struct PmeWishes {
  double cutoff = 0;
  int order = 0;
};

/// The cheapest parameters, for pairs and a mesh of floats or doubles, whose estimated error is below
/// `force_error`, eV/Å; of up to 4096 charges the part from pairs beyond the cutoff is measured as well.
/// Collective, the same on all ranks. Throws Error (argument) for an order outside 4..8, a bad cutoff, and a
/// cutoff too short for the widths of the charges; (unsupported) if the mesh would be absurdly large.
PmeParameters choose_parameters(const Charges& charges, const ChargeSize& size, const Box& box,
                                double force_error, const PmeWishes& wishes, bool single, ThreadPool& threads,
                                Ranks& ranks);

}  // namespace nearsight
