// SPDX-License-Identifier: GPL-2.0-only

#include "pair_mlp.h"

#include <atom.h>
#include <comm.h>
#include <error.h>
#include <exceptions.h>
#include <force.h>
#include <memory.h>
#include <neigh_list.h>
#include <neighbor.h>
#include <update.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>

using namespace LAMMPS_NS;

namespace {

// What LAMMPS' units of energy, length and electric field are in eV, Å and V/Å: CODATA 2018, not the
// constants of LAMMPS.
struct Units {
  const char* name;
  double energy, length, field;
};
constexpr double joule = 1 / 1.602176634e-19, bohr = 0.529177210903, hartree = 27.211386245988;
constexpr Units accepted_units[] = {{"metal", 1, 1, 1},
                                    {"real", 4184 / 6.02214076e23 * joule, 1, 1},
                                    {"si", joule, 1e10, 1e-10},
                                    {"electron", hartree, bohr, 1e-8}};
constexpr double max_skin = 10;  // in cutoffs; more is the default of units si, 1 mm

double* first_element(double** array, std::size_t rows) {
  return rows > 0 ? array[0] : nullptr;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void* nearsight_create_pair(void* lammps) {
  return static_cast<Pair*>(new PairMLP(static_cast<LAMMPS*>(lammps)));
}

PairMLP::PairMLP(LAMMPS* lmp) : Pair(lmp) {
  single_enable = 0;
  restartinfo = 1;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;          // the core gives the virial
  centroidstressflag = CENTROID_AVAIL;  // compute refuses it for models that have none
  ghostneigh = 1;
  if (ns_api_version() != NS_API_VERSION) {
    error->all(FLERR,
               "pair_style mlp: the plugin needs API version {} of libnearsight.so and found {}; reinstall "
               "nearsight",
               NS_API_VERSION, ns_api_version());
  }
}

PairMLP::~PairMLP() {
  forget();
  if (!allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
  memory->destroy(cutghost);
}

// ---- before a run ----

void PairMLP::init_style() {
  if (!model_) error->all(FLERR, "pair_style mlp has no model: {}", problem_);
  check_host();
  check_masses();
  check_bonded_neighbors();

  const int reach = ghost_cutoffs();
  const double cutoff = ns_model_cutoff(model_.get()) / length_unit_;
  if (neighbor->skin > max_skin * cutoff) {
    error->all(
        FLERR,
        "pair_style mlp: the neighbor skin is {:g}, and the cutoff of the model {:g}, in units {}; set "
        "a skin of some tenths of the cutoff with the command neighbor",
        neighbor->skin, cutoff, update->unit_style);
  }
  neighbor->add_request(this,
                        reach > 1 ? NeighConst::REQ_FULL | NeighConst::REQ_GHOST : NeighConst::REQ_FULL);
  if (reach > 1) comm->cutghostuser = std::max(comm->cutghostuser, reach * cutoff + neighbor->skin);
  announce_widths(force->pair);
  create_evaluator();
  init_uncertainty();
  init_charges();
  init_dispersion();
  if (!announced_ && comm->me == 0) announce();
  announced_ = true;
}

double PairMLP::init_one(int i, int j) {
  const double cutoff = ns_model_cutoff(model_.get()) / length_unit_;
  cutghost[i][j] = cutghost[j][i] = cutoff;
  return cutoff;
}

void PairMLP::check_host() {
  const auto units = std::find_if(std::begin(accepted_units), std::end(accepted_units), [&](const Units& u) {
    return std::strcmp(u.name, update->unit_style) == 0;
  });
  if (units == std::end(accepted_units)) {
    error->all(FLERR,
               "pair_style mlp works in units metal, real, si and electron, and found units {}: models have "
               "physical units",
               update->unit_style);
  }
  energy_unit_ = units->energy;
  length_unit_ = units->length;
  field_unit_ = units->field;
  if (!force->newton_pair) {
    error->all(FLERR, "pair_style mlp needs 'newton on': forces on ghost atoms go back to their owners");
  }
  if (ghost_cutoffs() > 1 && comm->mode != Comm::SINGLE) {
    error->all(FLERR, "pair_style mlp: ghosts within {} cutoffs of the model need 'comm_modify mode single'",
               ghost_cutoffs());
  }
}

// Two types may stand for one element (isotopes, labelled atoms), but then their masses are those of one
// element. A factor of four leaves room for tritium and for repartitioned hydrogen masses.
void PairMLP::check_masses() {
  if (!atom->mass) return;
  for (int i = 1; i <= atom->ntypes; ++i) {
    for (int j = i + 1; j <= atom->ntypes; ++j) {
      if (species_of_type_[i] < 0 || species_of_type_[i] != species_of_type_[j]) continue;
      const auto [light, heavy] = std::minmax(atom->mass[i], atom->mass[j]);
      if (light == 0 || heavy <= 4.05 * light) continue;  // LAMMPS itself refuses a missing mass
      error->all(FLERR,
                 "pair_coeff maps atom type {} (mass {:g}) and atom type {} (mass {:g}) both to {}; name the "
                 "elements in the order of the atom types",
                 i, atom->mass[i], j, atom->mass[j], element_of_type_[i - 1]);
    }
  }
}

// LAMMPS leaves bonded neighbors out of its lists where special_bonds are zero; the model must see them.
void PairMLP::check_bonded_neighbors() {
  int missing = 0;
  for (int order = 1; order <= 3; ++order) {
    const bool excluded = force->special_lj[order] == 0 && force->special_coul[order] == 0;
    if (excluded && has_bonded_neighbors(order)) missing = 1;
  }
  int any = 0;
  MPI_Allreduce(&missing, &any, 1, MPI_INT, MPI_MAX, world);
  if (any) {
    error->all(
        FLERR,
        "pair_style mlp must see bonded neighbors, and special_bonds leaves them out: use 'special_bonds "
        "lj/coul 1 1 1', or 1e-50 in place of 0 if another pair style must not see them");
  }
}

// Whether an atom of this rank that the model sees has neighbors `order` bonds away.
bool PairMLP::has_bonded_neighbors(int order) const {
  if (atom->molecular != Atom::MOLECULAR)
    return atom->molecular == Atom::TEMPLATE;  // templates hide their bonds
  for (int i = 0; i < atom->nlocal; ++i) {
    const int* counts = atom->nspecial[i];  // cumulative
    const int before = order == 1 ? 0 : counts[order - 2];
    if (species_of_type_[atom->type[i]] >= 0 && counts[order - 1] > before) return true;
  }
  return false;
}

// The GPU of this rank: those of one node share its GPUs in turn.
int PairMLP::choose_gpu() {
  if (device_ != NS_DEVICE_CUDA) return -1;
  int count = 0, rank = 0;
  const std::string problem = first_problem(ns_num_cuda_devices(&count));
  if (!problem.empty()) error->all(FLERR, "pair_style mlp: {}", problem);
#ifndef MPI_STUBS
  MPI_Comm node;
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_rank(node, &rank);
  MPI_Comm_free(&node);
#endif
  return rank % count;
}

void PairMLP::create_evaluator() {
  if (evaluator_ && threads_ == comm->nthreads) return;
  threads_ = comm->nthreads;
  ns_options options{};
  options.struct_size = sizeof(options);
  options.precision = precision_;
  options.device = device_;
  options.num_threads = threads_;
  options.skin = neighbor->skin;
  options.device_index = choose_gpu();
  ns_host host{};
  host.struct_size = sizeof(host);
  host.context = this;
  lend_exchange(host);
  host.all_sum = [](void* context, double* values, int count) {
    const MPI_Comm world = static_cast<PairMLP*>(context)->world;
    return static_cast<int>(MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_DOUBLE, MPI_SUM, world) !=
                            MPI_SUCCESS);
  };
  host.rank = comm->me;
  host.num_ranks = comm->nprocs;
  host.all_to_all = [](void* context, const void* send, const int64_t* send_bytes, void* receive,
                       const int64_t* receive_bytes) {
    return static_cast<PairMLP*>(context)->exchange_bytes(send, send_bytes, receive, receive_bytes);
  };
  ns_evaluator* evaluator = nullptr;
  const ns_status status = ns_evaluator_create(model_.get(), &options, &host, &evaluator);
  evaluator_.reset(evaluator);
  const std::string problem = first_problem(status);
  if (!problem.empty()) error->all(FLERR, "pair_style mlp: {}", problem);
}

// ---- at every step ----

void PairMLP::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  const int nlocal = atom->nlocal;
  const std::size_t nall = atom->nlocal + atom->nghost;
  has_atom_energies_ = eflag_atom || want_energy_;

  ns_results results{};
  results.struct_size = sizeof(results);
  results.forces = forces_.open(first_element(atom->f, nall), 3 * nall, energy_unit_ / length_unit_);
  if (has_atom_energies_) {
    atom_energies_.assign(std::max(1, nlocal), 0.0);
    results.energies = atom_energies_.data();
  }
  if (vflag_atom || cvflag_atom) check_atom_virials();
  if (vflag_atom) results.virials = virials_.open(first_element(vatom, nall), 6 * nall, energy_unit_);
  if (cvflag_atom) {
    check_centroid();
    results.centroid_virials = centroid_virials_.open(first_element(cvatom, nall), 9 * nall, energy_unit_);
  }

  deviation_.has_atoms = wants_members();
  if (deviation_.has_atoms) open_members(results, nall);
  if (extrapolation_.is_on()) open_extrapolations(results);

  if (has_charges()) open_charges(results);

  const ns_domain domain = make_domain();
  check_results(ns_evaluate_domain(evaluator_.get(), &domain, &results), results);

  if (deviation_.has_atoms) close_members(nall);
  if (extrapolation_.is_on()) close_extrapolations();
  if (has_charges()) close_charges(results);
  extra_[DISPERSION] = results.dispersion / energy_unit_;
  forces_.close();
  if (has_atom_energies_) {
    for (double& energy : atom_energies_) energy /= energy_unit_;
  }
  if (eflag_atom) {
    for (int i = 0; i < nlocal; ++i) eatom[i] += atom_energies_[i];
  }
  if (vflag_atom) virials_.close();
  if (cvflag_atom) centroid_virials_.close();
  if (eflag_global) {
    eng_vdwl += (results.energy - results.electrostatic) / energy_unit_;
    eng_coul += results.electrostatic / energy_unit_;
  }
  if (vflag_global) {
    for (int k = 0; k < 6; ++k) virial[k] += results.virial[k] / energy_unit_;
  }
}

ns_domain PairMLP::make_domain() {
  const int nall = atom->nlocal + atom->nghost;
  species_.resize(nall);
  for (int i = 0; i < nall; ++i) species_[i] = species_of_type_[atom->type[i]];

  ns_domain domain{};
  domain.struct_size = sizeof(domain);
  domain.num_owned = atom->nlocal;
  domain.num_atoms = nall;
  domain.positions = first_element(atom->x, nall);
  if (length_unit_ != 1) {
    positions_.resize(3 * static_cast<std::size_t>(nall));
    for (std::size_t k = 0; k < positions_.size(); ++k) positions_[k] = domain.positions[k] * length_unit_;
    domain.positions = positions_.data();
  }
  domain.species = species_.data();
  domain.num_centers = list->inum;
  domain.centers = list->ilist;
  if (ghost_cutoffs() > 1) {
    update_centers();
    domain.num_centers = static_cast<int>(centers_.size());
    domain.centers = centers_.data();
  }
  domain.num_neighbors = list->numneigh;
  domain.neighbors = list->firstneigh;
  domain.neighbor_mask = NEIGHMASK;
  if (has_charges() || has_dispersion()) add_box(domain);
  return domain;
}

// The owned atoms and the ghosts that a message can come from: those reached in (layers - 1) steps along the
// neighbor lists, whatever the decomposition. Lists hold the skin: this stays right until they are made anew.
void PairMLP::update_centers() {
  if (neighbor->ago != 0 && neighbor->lastcall == centers_step_) return;
  centers_step_ = neighbor->lastcall;
  centers_.assign(list->ilist, list->ilist + list->inum);
  reached_.assign(atom->nlocal + atom->nghost, 0);
  std::size_t first = 0;
  for (int layer = 1; layer < ns_model_num_interactions(model_.get()); ++layer) {
    const std::size_t last = centers_.size();
    for (; first < last; ++first) {
      const int i = centers_[first];
      for (int k = 0; k < list->numneigh[i]; ++k) {
        const int j = list->firstneigh[i][k] & NEIGHMASK;
        if (j < atom->nlocal || reached_[j]) continue;
        reached_[j] = 1;
        centers_.push_back(j);
      }
    }
  }
}

void PairMLP::check_centroid() {
  if (ns_model_has_centroid_virials(model_.get())) return;
  error->all(FLERR,
             "pair_style mlp: compute centroid/stress/atom needs a model with one interaction layer whose "
             "energy is a sum over atoms without dispersion, and {} is none; use compute stress/atom",
             model_path_);
}

void PairMLP::check_results(ns_status status, const ns_results& results) {
  if (status != NS_OK) stop(ns_last_error());
  // Every edge enters the virial, so a force that is not finite shows there.
  bool finite = std::isfinite(results.energy);
  for (const double value : results.virial) finite = finite && std::isfinite(value);
  if (!finite) {
    stop(fmt::format(
        "energy or forces are not finite at step {}: atoms lie on top of each other or far outside of what "
        "the model has learned; check the start structure and the time step",
        update->ntimestep));
  }
}

// Ends the run from one rank alone. LAMMPS prints the sentence and then aborts all ranks, which would cut off
// what is still on its way from this rank to the terminal: hence the pause in between.
void PairMLP::stop(const std::string& sentence) {
  try {
    error->one(FLERR, "pair_style mlp: {}", sentence);
  } catch (const LAMMPSException&) {
    if (comm->nprocs > 1) std::this_thread::sleep_for(std::chrono::milliseconds(500));
    throw;
  }
}

double* PairMLP::Output::open(double* target, std::size_t count, double unit) {
  target_ = target;
  count_ = count;
  unit_ = unit;
  if (unit == 1) return target;
  work_.assign(count, 0.0);
  return work_.data();
}

void PairMLP::Output::close() {
  if (unit_ == 1) return;
  for (std::size_t k = 0; k < count_; ++k) target_[k] += work_[k] / unit_;
}

// ---- what other commands can ask for ----

void* PairMLP::extract(const char* name, int& dim) {
  dim = 0;
  if (std::strcmp(name, "energy_flag") == 0) return &want_energy_;
  if (std::strncmp(name, "charge", 6) == 0 || std::strncmp(name, "potential", 9) == 0) return &charges_.asked;
  return std::strcmp(name, "deviation_flag") == 0 ? &deviation_.wanted : nullptr;
}

void* PairMLP::extract_peratom(const char* name, int& columns) {
  columns = 0;
  if (double* const column = charges_column(name)) return column;
  if (std::strcmp(name, "energy") == 0 && has_atom_energies_) return atom_energies_.data();
  return std::strcmp(name, "deviation") == 0 && deviation_.has_atoms ? deviation_.of_atoms.data() : nullptr;
}

double PairMLP::memory_usage() {
  const auto bytes = [](const auto& array) {
    return static_cast<double>(array.capacity() * sizeof(array[0]));
  };
  return Pair::memory_usage() + forces_.memory_usage() + virials_.memory_usage() +
         centroid_virials_.memory_usage() + bytes(species_) + bytes(positions_) + bytes(centers_) +
         bytes(reached_) + bytes(charges_.values) + bytes(charges_.potentials) + bytes(charges_.column) +
         bytes(atom_energies_) + bytes(deviation_.forces) + bytes(deviation_.of_atoms);
}
