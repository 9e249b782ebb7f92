#pragma once
#include "core/models/mace/definition.hpp"

namespace nearsight {
namespace mace {

/// An energy of the distance and its slope, eV and eV/Å.
struct PairEnergy {
  double value = 0, slope = 0;
};

/// Half of ZBL's repulsion and of the walls of two species at distance r, which each of two directed edges
/// has.
PairEnergy pair_energy(const Definition& definition, int a, int b, double r);

/// Half of what keeps apart two atoms that are closer than radial functions are tabulated.
PairEnergy close_repulsion(double r, double shortest);

}  // namespace mace
}  // namespace nearsight
