// Models with electrostatics: total charge, box, charges and potentials of atoms: docs/electrostatics.md.
//
// SPDX-License-Identifier: GPL-2.0-only

#include <atom.h>
#include <comm.h>
#include <domain.h>
#include <error.h>
#include <force.h>
#include <modify.h>
#include <utils.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "pair_mlp.h"

using namespace LAMMPS_NS;

// charge Q, charge molecules Q, charge molecules q; returns the number of words.
int PairMLP::read_charge(int narg, char** arg) {
  charges_.by_molecule = narg > 1 && std::strcmp(arg[1], "molecules") == 0;
  charges_.has_total = !charges_.by_molecule;
  if (charges_.by_molecule) {
    const std::string word = narg > 2 ? arg[2] : "nothing";
    charges_.by_sums = word == "q";
    if (charges_.by_sums) return 3;
    if (!utils::is_double(word))
      error->all(FLERR,
                 "pair_style mlp: 'charge molecules' takes a number, the charge of each molecule in e, or q, "
                 "the sum of the charges of its atoms, and found {}",
                 word);
    charges_.of_molecule = utils::numeric(FLERR, word, false, lmp);
    return 3;
  }
  if (narg < 2 || !utils::is_double(arg[1]))
    error->all(FLERR, "pair_style mlp: 'charge' takes a number, the total charge in e, and found {}",
               narg > 1 ? arg[1] : "nothing");
  charges_.total = utils::numeric(FLERR, arg[1], false, lmp);
  return 2;
}

// efield x y z; returns the number of words.
int PairMLP::read_field(int narg, char** arg) {
  for (int a = 0; a < 3; ++a) {
    const char* const word = a + 1 < narg ? arg[a + 1] : "nothing";
    if (!utils::is_double(word))
      error->all(
          FLERR,
          "pair_style mlp: 'efield' takes three numbers, the electric field in LAMMPS' units, and found {}",
          word);
    charges_.field[a] = utils::numeric(FLERR, word, false, lmp);
  }
  charges_.has_field = true;
  return 4;
}

bool PairMLP::has_charges() const {
  return model_ && ns_model_num_charges(model_.get()) > 0;
}

void PairMLP::init_charges() {
  if (!has_charges()) {
    const bool has_charge = charges_.has_total || charges_.by_molecule;
    if (has_charge || charges_.has_field)
      error->all(FLERR,
                 "pair_style mlp: '{}' is for models with electrostatics, and {} has none; leave it out",
                 has_charge ? "charge" : "efield", model_path_);
    return;
  }
  if (charges_.by_molecule && !atom->molecule_flag)
    error->all(
        FLERR,
        "pair_style mlp: 'charge molecules' needs atoms with molecule IDs, and atom_style {} has none; "
        "use atom_style molecular or full",
        atom->atom_style);
  if (charges_.by_sums && !atom->q_flag)
    error->all(
        FLERR,
        "pair_style mlp: 'charge molecules q' needs atoms with charges, and atom_style {} has none; use "
        "atom_style full, or give a number in place of q",
        atom->atom_style);
  if (force->kspace)
    error->all(FLERR,
               "pair_style mlp: {} has its own electrostatics, so that a kspace_style would count it twice; "
               "remove the kspace_style",
               model_path_);
  if (comm->me == 0) warn_of_double_counting();
  init_memory();
}

// What the core remembers of each atom travels with it, to other ranks and through restart files, in a fix
// property/atom of a name that the same script gives again.
void PairMLP::init_memory() {
  const int width = ns_model_memory(model_.get());
  if (width == 0) return forget();
  if (modify->get_fix_by_id(charges_.memory)) return;
  charges_.memory = "nearsight_memory";
  for (int number = 2; modify->get_fix_by_id(charges_.memory); ++number)
    charges_.memory = "nearsight_memory_" + std::to_string(number);
  modify->add_fix(
      fmt::format("{0} all property/atom d2_{0} {1} ghost no writedata no", charges_.memory, width));
}

void PairMLP::forget() {
  if (modify && modify->get_fix_by_id(charges_.memory)) modify->delete_fix(charges_.memory);
  charges_.memory.clear();
}

// [atoms][ns_model_memory], or null.
double* PairMLP::find_memory() {
  int is_double = 0, columns = 0;
  if (charges_.memory.empty() || atom->nlocal == 0) return nullptr;
  return atom->darray[atom->find_custom(charges_.memory.c_str(), is_double, columns)][0];
}

// Coulomb styles beside this one under hybrid/overlay, on pairs of types that the model has charges for.
void PairMLP::warn_of_double_counting() {
  Pair* const first = force->pair_match("coul", 0, 1);
  for (int number = 1; Pair* const other = force->pair_match("coul", 0, number); ++number) {
    if (number > 1 && other == first) break;  // LAMMPS gives a single one for any number
    if (!overlaps(other)) continue;
    error->warning(FLERR,
                   "pair_style mlp: {} has its own electrostatics, and pair_style {} beside it counts the "
                   "Coulomb interaction of the same atoms a second time, unless their charges are 0",
                   model_path_, force->pair_match_ptr(other));
  }
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
  core_domain.memory = find_memory();
  if (charges_.has_total) core_domain.total_charge = &charges_.total;
  if (charges_.by_molecule && has_charges()) add_molecules(core_domain);
  if (!charges_.has_field) return;
  std::transform(charges_.field, charges_.field + 3, charges_.core_field,
                 [&](double x) { return x * field_unit_; });
  core_domain.efield = charges_.core_field;
}

// Molecules have the numbers of their IDs; IDs that no atom has are molecules without atoms. Found anew at
// every step: atoms come and go.
void PairMLP::add_molecules(ns_domain& core_domain) {
  const int nlocal = atom->nlocal;
  charges_.molecules.assign(std::max(1, nlocal), 0);
  tagint largest = 0;
  for (int i = 0; i < nlocal; ++i) {
    if (species_[i] < 0) continue;
    const tagint molecule = atom->molecule[i];
    if (molecule < 1 || molecule >= std::numeric_limits<int>::max())
      stop(
          fmt::format("atom {} has molecule ID {}, but with 'charge molecules' every atom that the model "
                      "sees needs a molecule, from 1: give it one with the command set",
                      atom->tag[i], molecule));
    charges_.molecules[i] = static_cast<int>(molecule);
    largest = std::max(largest, molecule);
  }
  MPI_Allreduce(MPI_IN_PLACE, &largest, 1, MPI_LMP_TAGINT, MPI_MAX, world);
  charges_.molecule_charges.assign(static_cast<std::size_t>(largest) + 1,
                                   charges_.by_sums ? 0.0 : charges_.of_molecule);
  if (charges_.by_sums) {
    for (int i = 0; i < nlocal; ++i) {
      if (species_[i] >= 0) charges_.molecule_charges[charges_.molecules[i]] += atom->q[i];
    }
    MPI_Allreduce(MPI_IN_PLACE, charges_.molecule_charges.data(), static_cast<int>(largest) + 1, MPI_DOUBLE,
                  MPI_SUM, world);
  }
  core_domain.molecules = charges_.molecules.data();
  core_domain.num_molecules = static_cast<int>(charges_.molecule_charges.size());
  core_domain.molecule_charges = charges_.molecule_charges.data();
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
void PairMLP::close_charges(ns_results& results) {
  if (charges_.has_field) add_images(results);
  for (double& potential : charges_.potentials) potential /= energy_unit_;
  const double more[7] = {results.electrostatic_seconds,
                          results.communication_seconds,
                          results.transform_seconds,
                          results.pair_seconds,
                          results.spreading_seconds,
                          static_cast<double>(results.equilibration_steps),
                          1.0};
  for (int k = 0; k < 7; ++k) charges_.times[k] += more[k];
}

// After a run, before LAMMPS' table of the neighbor lists.
void PairMLP::finish() {
  if (!has_charges()) return;
  double means[7];
  MPI_Allreduce(charges_.times, means, 7, MPI_DOUBLE, MPI_SUM, world);
  std::fill(charges_.times, charges_.times + 7, 0.0);
  if (comm->me > 0) return;
  for (double& mean : means) mean /= comm->nprocs;
  utils::logmesg(
      lmp,
      "\npair_style mlp: electrostatics {:.4g} s, of these communication with waiting {:.4g} s, "
      "Fourier transforms {:.4g} s, pairs {:.4g} s, charges to the mesh and back {:.4g} s (mean over "
      "{} ranks)\n",
      means[0], means[1], means[2], means[3], means[4], comm->nprocs);
  if (!charges_.memory.empty())
    utils::logmesg(lmp, "  {:.4g} steps of charge equilibration per evaluation\n", means[5] / means[6]);
}

// The energy of fixed charges in a field along periodic directions: as far as the atoms have gone, like that
// of fix efield. It has no part in the forces. For other charges the core refuses such fields.
void PairMLP::add_images(ns_results& results) {
  const int channels = ns_model_num_charges(model_.get());
  for (int i = 0; i < atom->nlocal; ++i) {
    double unwrapped[3], moved = 0;
    domain->unmap(atom->x[i], atom->image[i], unwrapped);
    for (int a = 0; a < 3; ++a)
      moved += charges_.core_field[a] * (unwrapped[a] - atom->x[i][a]) * length_unit_;
    const double energy = -charges_.values[static_cast<std::size_t>(i) * channels] * moved;
    results.energy += energy;
    results.electrostatic += energy;
    if (has_atom_energies_) atom_energies_[i] += energy;
  }
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
