// Models with dispersion, and those to which the host must add it: docs/dispersion.md.
//
// SPDX-License-Identifier: GPL-2.0-only

#include <atom.h>
#include <comm.h>
#include <error.h>
#include <force.h>
#include <utils.h>

#include "pair_mlp.h"

using namespace LAMMPS_NS;

bool PairMLP::has_dispersion() const {
  return model_ && ns_model_dispersion(model_.get()) == NS_DISPERSION_INSIDE;
}

// Whether another style beside this one under hybrid/overlay acts on pairs of types that the model sees.
bool PairMLP::overlaps(const Pair* other) const {
  for (int i = 1; i <= atom->ntypes && other->allocated; ++i)
    for (int j = i; j <= atom->ntypes; ++j)
      if (other->setflag[i][j] && species_of_type_[i] >= 0 && species_of_type_[j] >= 0) return true;
  return false;
}

void PairMLP::init_dispersion() {
  Pair* other = force->pair_match("dispersion/d3", 1);
  if (other && !overlaps(other)) other = nullptr;
  if (has_dispersion() && other)
    error->all(
        FLERR,
        "pair_style mlp: {} contains the D3(BJ) dispersion of {}, so that pair_style dispersion/d3 would "
        "count it twice; remove dispersion/d3",
        model_path_, ns_model_dispersion_functional(model_.get()));
}

// What the log says of it.
void PairMLP::announce_dispersion() {
  const ns_dispersion kind = ns_model_dispersion(model_.get());
  if (kind == NS_DISPERSION_NONE) return;
  const char* const functional = ns_model_dispersion_functional(model_.get());
  if (kind == NS_DISPERSION_INSIDE)
    utils::logmesg(lmp, "  D3(BJ) dispersion of {} is in the energy\n", functional);
  else if (force->pair_match("dispersion/d3", 1))
    utils::logmesg(lmp, "  D3(BJ) dispersion of {} is not in the model: dispersion/d3 adds it\n", functional);
  else
    utils::logmesg(lmp,
                   "  D3(BJ) dispersion of {0} is not in the model: add it, for instance by pair_style "
                   "hybrid/overlay mlp dispersion/d3 bj {0} 30.0 20.0\n",
                   functional);
}
