#include "core/couple/molecules.hpp"

namespace nearsight {

Molecules::Molecules(const Coupled& system) : named_(system.outside.has_molecules()) {
  const Outside& outside = system.outside;
  if (named_) {
    numbers_.assign(outside.molecules.begin(), outside.molecules.end());
    charges_.assign(outside.molecule_charges.begin(), outside.molecule_charges.end());
  } else {
    numbers_.assign(system.species.size(), 0);
    charges_.assign(1, outside.total_charge.value_or(0.0));
  }
}

}  // namespace nearsight
