#pragma once
#include "core/models/mace/definition.hpp"
#include "core/models/mace/pair_terms.hpp"

namespace nearsight {
namespace mace {

/// Half of ZBL's repulsion and of the walls of two species at distance r, which each of two directed edges
/// has.
PairEnergy pair_energy(const Definition& definition, int a, int b, double r);

}  // namespace mace
}  // namespace nearsight
