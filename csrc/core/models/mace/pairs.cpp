#include "core/models/mace/pairs.hpp"

namespace nearsight {
namespace mace {

PairEnergy pair_energy(const Definition& d, int a, int b, double r) {
  const ZblTerms terms{d.zbl.order, d.zbl.exponent,       d.zbl.prefactor,
                       d.zbl.scale, d.zbl.numbers.data(), d.zbl.radii.data()};
  const PairEnergy zbl = zbl_energy(terms, a, b, r);
  const PairEnergy wall =
      wall_energy({d.walls.slope, d.walls.repulsion, d.walls.num_species, d.walls.limits}, a, b, r);
  return {zbl.value + wall.value, zbl.slope + wall.slope};
}

}  // namespace mace
}  // namespace nearsight
