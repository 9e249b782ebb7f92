// Models with electrostatics: total charge, box, charges and potentials of atoms: docs/electrostatics.md.
//
// SPDX-License-Identifier: GPL-2.0-only

#include <atom.h>
#include <comm.h>
#include <domain.h>
#include <error.h>
#include <force.h>
#include <utils.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "pair_mlp.h"

using namespace LAMMPS_NS;

// charge Q; returns the number of words.
int PairMLP::read_total_charge(int narg, char** arg) {
  if (narg < 2 || !utils::is_double(arg[1]))
    error->all(FLERR, "pair_style mlp: 'charge' takes a number, the total charge in e, and found {}",
               narg > 1 ? arg[1] : "nothing");
  charges_.total = utils::numeric(FLERR, arg[1], false, lmp);
  charges_.has_total = true;
  return 2;
}

bool PairMLP::has_charges() const {
  return model_ && ns_model_num_charges(model_.get()) > 0;
}

void PairMLP::init_charges() {
  if (!has_charges()) {
    if (charges_.has_total)
      error->all(FLERR,
                 "pair_style mlp: 'charge' is for models with electrostatics, and {} has none; leave it out",
                 model_path_);
    return;
  }
  if (force->kspace)
    error->all(FLERR,
               "pair_style mlp: {} has its own electrostatics, so that a kspace_style would count it twice; "
               "remove the kspace_style",
               model_path_);
}

void PairMLP::check_atom_virials() {
  if (ns_model_has_atom_virials(model_.get())) return;
  error->all(FLERR,
             "pair_style mlp: stress/atom and centroid/stress/atom are not defined for the electrostatics of "
             "{}, of which the mesh knows only the sum; use compute pressure",
             model_path_);
}

// The whole box, for the core's lattice sum.
void PairMLP::add_box(ns_domain& core_domain) {
  const double box[9] = {domain->xprd, 0,          0,           domain->xy, domain->yprd, 0,
                         domain->xz,   domain->yz, domain->zprd};
  std::transform(box, box + 9, charges_.cell, [&](double x) { return x * length_unit_; });
  core_domain.cell = charges_.cell;
  std::copy_n(domain->periodicity, 3, core_domain.pbc);
  if (charges_.has_total) core_domain.total_charge = &charges_.total;
}

void PairMLP::open_charges(ns_results& results) {
  const std::size_t size =
      static_cast<std::size_t>(std::max(1, atom->nlocal)) * ns_model_num_charges(model_.get());
  charges_.values.assign(size, 0.0);
  charges_.potentials.assign(size, 0.0);
  results.charges = charges_.values.data();
  results.potentials = charges_.potentials.data();
}

// Potentials are energies of e in LAMMPS' unit of energy.
void PairMLP::close_charges() {
  for (double& potential : charges_.potentials) potential /= energy_unit_;
}

// What fix pair knows as charge, charge2, …, potential, potential2, …: one channel each, since its columns
// are not filled in LAMMPS. Null for other names, and before the first step.
double* PairMLP::charges_column(const char* name) {
  const bool charge = std::strncmp(name, "charge", 6) == 0;
  if (!charge && std::strncmp(name, "potential", 9) != 0) return nullptr;
  const std::string number = name + (charge ? 6 : 9);
  const std::vector<double>& all = charge ? charges_.values : charges_.potentials;
  const std::size_t channels = has_charges() ? ns_model_num_charges(model_.get()) : 0;
  for (std::size_t c = 0; c < channels; ++c) {
    if (number != (c ? std::to_string(c + 1) : "") || all.empty()) continue;
    charges_.column.resize(all.size() / channels);
    for (std::size_t i = 0; i < charges_.column.size(); ++i) charges_.column[i] = all[i * channels + c];
    return charges_.column.data();
  }
  return nullptr;
}

// ns_host.all_to_all. MPI counts in int, so that what is longer is refused.
int PairMLP::exchange_bytes(const void* send, const int64_t* send_bytes, void* receive,
                            const int64_t* receive_bytes) {
  const int size = comm->nprocs;
  std::vector<int> counts[2], starts[2];
  const int64_t* const bytes[2] = {send_bytes, receive_bytes};
  for (int k = 0; k < 2; ++k) {
    int64_t total = 0;
    for (int rank = 0; rank < size; ++rank) {
      starts[k].push_back(static_cast<int>(total));
      counts[k].push_back(static_cast<int>(bytes[k][rank]));
      total += bytes[k][rank];
    }
    if (total > std::numeric_limits<int>::max()) return 1;
  }
  return MPI_Alltoallv(send, counts[0].data(), starts[0].data(), MPI_BYTE, receive, counts[1].data(),
                       starts[1].data(), MPI_BYTE, world) != MPI_SUCCESS;
}
