// SPDX-License-Identifier: GPL-2.0-only

#include "pair_mlp.h"

#include <atom.h>
#include <comm.h>
#include <error.h>
#include <force.h>
#include <json.h>
#include <memory.h>
#include <neigh_list.h>
#include <neighbor.h>
#include <update.h>
#include <utils.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

using namespace LAMMPS_NS;

namespace {

// CODATA 2018, exact: eV per kcal/mol is 4184 J / (N_A e).
constexpr double kcal_per_mol_in_ev = 4184.0 / (6.02214076e23 * 1.602176634e-19);

// A keyword of pair_style; its words stand in the order of the C API's enumeration.
struct Keyword {
  const char* name;
  std::vector<std::string> words;
};
const std::array<Keyword, 3> keywords = {{{"precision", {"mixed", "double"}},
                                          {"backend", {"auto", "native", "torchscript"}},
                                          {"device", {"cpu", "cuda", "auto"}}}};

std::string join(const std::vector<std::string>& words, const char* separator) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : separator) + word;
  return text;
}

std::string syntax() {
  std::string text = "pair_style mlp";
  for (const Keyword& keyword : keywords)
    text += std::string(" [") + keyword.name + " " + join(keyword.words, "|") + "]";
  return text;
}

double* first_element(double** array, int rows) {
  return rows > 0 ? array[0] : nullptr;
}

void write_strings(FILE* file, const std::vector<std::string>& strings) {
  const int count = static_cast<int>(strings.size());
  fwrite(&count, sizeof(int), 1, file);
  for (const std::string& text : strings) {
    const int length = static_cast<int>(text.size());
    fwrite(&length, sizeof(int), 1, file);
    fwrite(text.data(), 1, text.size(), file);
  }
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
  no_virial_fdotr_compute = 1;  // the core gives the virial
  centroidstressflag = CENTROID_NOTAVAIL;
  ghostneigh = 1;
  if (ns_api_version() != NS_API_VERSION) {
    error->all(FLERR,
               "pair_style mlp: the plugin needs API version {} of libnearsight.so and found {}; reinstall "
               "nearsight",
               NS_API_VERSION, ns_api_version());
  }
}

PairMLP::~PairMLP() {
  if (!allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
  memory->destroy(cutghost);
}

// ---- input
// ----------------------------------------------------------------------------------------------------------

void PairMLP::settings(int narg, char** arg) {
  std::array<int, 3> choice = {NS_PRECISION_MIXED, NS_BACKEND_AUTO, NS_DEVICE_AUTO};
  for (int k = 0; k < narg; k += 2) {
    const auto keyword = std::find_if(keywords.begin(), keywords.end(), [&](const Keyword& candidate) {
      return std::strcmp(candidate.name, arg[k]) == 0;
    });
    if (keyword == keywords.end()) {
      error->all(
          FLERR,
          "pair_style mlp does not know the word '{}'; legal is: {} (the model file goes to pair_coeff)",
          arg[k], syntax());
    }
    const std::string word = k + 1 < narg ? arg[k + 1] : "nothing";
    const auto found = std::find(keyword->words.begin(), keyword->words.end(), word);
    if (found == keyword->words.end()) {
      error->all(FLERR, "pair_style mlp: '{}' takes {}, and found {}", keyword->name,
                 join(keyword->words, "|"), word);
    }
    choice[keyword - keywords.begin()] = static_cast<int>(found - keyword->words.begin());
  }
  precision_ = static_cast<ns_precision>(choice[0]);
  backend_ = static_cast<ns_backend>(choice[1]);
  device_ = static_cast<ns_device>(choice[2]);
  if (model_) require_model();
}

void PairMLP::coeff(int narg, char** arg) {
  if (narg < 4) {  // LAMMPS itself checks the two stars
    error->all(FLERR,
               "pair_style mlp takes one line 'pair_coeff * * model.pt' and then one element per atom type");
  }
  const std::vector<std::string> elements(arg + 3, arg + narg);
  if (static_cast<int>(elements.size()) != atom->ntypes) {
    error->all(
        FLERR,
        "pair_coeff gives {} elements ({}), and the system has {} atom types; give one element per type",
        elements.size(), join(elements, " "), atom->ntypes);
  }
  model_path_ = arg[2];
  element_of_type_ = elements;
  require_model();
}

// Loads the model of model_path_ and maps the types; stops with the reason if that fails.
void PairMLP::require_model() {
  evaluator_.reset();
  announced_ = false;
  if (!load_model()) error->all(FLERR, "pair_style mlp: {}", problem_);
  map_types();
}

bool PairMLP::load_model() {
  model_.reset();
  const std::string found = utils::get_potential_file_path(model_path_);  // also looks in LAMMPS_POTENTIALS
  ns_model* model = nullptr;
  const ns_status status =
      ns_model_load(found.empty() ? model_path_.c_str() : found.c_str(), backend_, &model);
  model_.reset(model);
  problem_ = first_problem(status);
  return problem_.empty();
}

// What the lowest rank with a failure has to say, on all ranks; empty if there is none.
std::string PairMLP::first_problem(ns_status status) {
  const int mine = status == NS_OK ? comm->nprocs : comm->me;
  int rank = comm->nprocs;
  MPI_Allreduce(&mine, &rank, 1, MPI_INT, MPI_MIN, world);
  if (rank == comm->nprocs) return "";
  std::string text = rank == comm->me ? ns_last_error() : "";
  int length = static_cast<int>(text.size());
  MPI_Bcast(&length, 1, MPI_INT, rank, world);
  text.resize(length);
  MPI_Bcast(text.data(), length, MPI_CHAR, rank, world);
  return text;
}

void PairMLP::map_types() {
  species_of_type_.assign(atom->ntypes + 1, -1);
  for (int type = 1; type <= atom->ntypes; ++type) {
    const std::string& element = element_of_type_[type - 1];
    if (element == "NULL") continue;
    species_of_type_[type] = ns_model_find_species(model_.get(), element.c_str());
    if (species_of_type_[type] < 0) {
      error->all(FLERR, "pair_coeff maps atom type {} to '{}', which the model {} does not know; it knows {}",
                 type, element, model_path_, join(model_species(), " "));
    }
  }
  allocate();
  for (int i = 1; i <= atom->ntypes; ++i) {
    for (int j = i; j <= atom->ntypes; ++j)
      setflag[i][j] = species_of_type_[i] >= 0 && species_of_type_[j] >= 0;
  }
  if (force->pair == this && std::count(element_of_type_.begin(), element_of_type_.end(), "NULL")) {
    error->all(FLERR,
               "pair_coeff maps a type to NULL, which needs another pair style for that type: use pair_style "
               "hybrid");
  }
}

std::vector<std::string> PairMLP::model_species() const {
  std::vector<std::string> symbols(ns_model_num_species(model_.get()));
  for (std::size_t k = 0; k < symbols.size(); ++k)
    symbols[k] = ns_model_species(model_.get(), static_cast<int>(k));
  return symbols;
}

void PairMLP::allocate() {
  if (allocated) return;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  memory->create(cutghost, n, n, "pair:cutghost");
  allocated = 1;
}

// ---- before a run
// -----------------------------------------------------------------------------------------------------

void PairMLP::init_style() {
  if (!model_) error->all(FLERR, "pair_style mlp has no model: {}", problem_);
  check_host();
  check_masses();
  check_bonded_neighbors();

  const int layers = ns_model_num_interactions(model_.get());
  neighbor->add_request(this,
                        layers > 1 ? NeighConst::REQ_FULL | NeighConst::REQ_GHOST : NeighConst::REQ_FULL);
  if (layers > 1) {
    comm->cutghostuser =
        std::max(comm->cutghostuser, layers * ns_model_cutoff(model_.get()) + neighbor->skin);
  }
  create_evaluator();
  if (!announced_ && comm->me == 0) announce();
  announced_ = true;
}

double PairMLP::init_one(int i, int j) {
  const double cutoff = ns_model_cutoff(model_.get());
  cutghost[i][j] = cutghost[j][i] = cutoff;
  return cutoff;
}

void PairMLP::check_host() {
  const std::string units = update->unit_style;
  if (units == "metal") {
    energy_unit_ = 1;
  } else if (units == "real") {
    energy_unit_ = 1 / kcal_per_mol_in_ev;
  } else {
    error->all(FLERR, "pair_style mlp works in units metal and real, and found units {}", units);
  }
  if (!force->newton_pair) {
    error->all(FLERR, "pair_style mlp needs 'newton on': forces on ghost atoms go back to their owners");
  }
  if (ns_model_num_interactions(model_.get()) > 1 && comm->mode != Comm::SINGLE) {
    error->all(FLERR, "pair_style mlp: a model with {} interaction layers needs 'comm_modify mode single'",
               ns_model_num_interactions(model_.get()));
  }
}

// Two types may stand for one element (isotopes, labelled atoms), but then their masses are those of one
// element. A factor of four leaves room for tritium and for repartitioned hydrogen masses.
void PairMLP::check_masses() {
  if (!atom->mass) return;
  for (int i = 1; i <= atom->ntypes; ++i) {
    for (int j = i + 1; j <= atom->ntypes; ++j) {
      if (species_of_type_[i] < 0 || species_of_type_[i] != species_of_type_[j]) continue;
      const double light = std::min(atom->mass[i], atom->mass[j]),
                   heavy = std::max(atom->mass[i], atom->mass[j]);
      if (heavy <= 4.05 * light) continue;
      error->all(FLERR,
                 "pair_coeff maps atom type {} (mass {:g}) and atom type {} (mass {:g}) both to {}; name the "
                 "elements in "
                 "the order of the atom types",
                 i, atom->mass[i], j, atom->mass[j], element_of_type_[i - 1]);
    }
  }
}

// LAMMPS leaves bonded neighbors out of its lists where special_bonds are zero; the model must see them.
void PairMLP::check_bonded_neighbors() {
  if (atom->molecular == Atom::ATOMIC) return;
  int missing = atom->molecular == Atom::TEMPLATE;
  for (int order = 1; order <= 3; ++order) {
    if (force->special_lj[order] != 0 || force->special_coul[order] != 0 || atom->molecular == Atom::TEMPLATE)
      continue;
    for (int i = 0; i < atom->nlocal && !missing; ++i) {
      const int* counts = atom->nspecial[i];
      const int before = order == 1 ? 0 : counts[order - 2];
      missing = species_of_type_[atom->type[i]] >= 0 && counts[order - 1] > before;
    }
  }
  int any = 0;
  MPI_Allreduce(&missing, &any, 1, MPI_INT, MPI_MAX, world);
  if (any) {
    error->all(FLERR,
               "pair_style mlp must see bonded neighbors, and special_bonds leaves them out: use "
               "'special_bonds lj/coul 1 1 "
               "1', or 1e-50 in place of 0 if another pair style must not see them");
  }
}

void PairMLP::create_evaluator() {
  if (evaluator_ && threads_ == comm->nthreads) return;
  threads_ = comm->nthreads;
  ns_options options{};
  options.struct_size = sizeof(options);
  options.precision = precision_;
  options.device = device_;
  options.num_threads = threads_;
  ns_host host{};
  host.struct_size = sizeof(host);
  host.context = this;
  host.all_sum = [](void* context, double* values, int count) {
    const MPI_Comm world = static_cast<PairMLP*>(context)->world;
    return static_cast<int>(MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_DOUBLE, MPI_SUM, world) !=
                            MPI_SUCCESS);
  };
  ns_evaluator* evaluator = nullptr;
  const ns_status status = ns_evaluator_create(model_.get(), &options, &host, &evaluator);
  evaluator_.reset(evaluator);
  const std::string problem = first_problem(status);
  if (!problem.empty()) error->all(FLERR, "pair_style mlp: {}", problem);
}

void PairMLP::announce() {
  const std::string backend = ns_model_backend(model_.get());
  const int layers = ns_model_num_interactions(model_.get());
  const double cutoff = ns_model_cutoff(model_.get());
  const auto metadata = json::parse(ns_model_metadata(model_.get()));
  utils::logmesg(lmp, "pair_style mlp: model {}, architecture {}, elements {}\n", model_path_,
                 metadata.value("architecture", "unknown"), join(model_species(), " "));
  utils::logmesg(lmp, "  nearsight {}, backend {}, precision {}, {} thread(s) per rank\n", ns_version(),
                 backend == "native" ? backend + " (" + ns_instruction_set() + ")" : backend,
                 keywords[0].words[precision_], threads_);
  utils::logmesg(lmp, "  cutoff {:g} A, {} interaction layer(s), ghost atoms needed to {:g} A\n", cutoff,
                 layers, layers * cutoff);
  for (int type = 1; type <= atom->ntypes; ++type) {
    const std::string mass = atom->mass ? fmt::format(" (mass {:g})", atom->mass[type]) : "";
    utils::logmesg(lmp, "  atom type {}{} -> {}\n", type, mass, element_of_type_[type - 1]);
  }
}

// ---- at every step
// ----------------------------------------------------------------------------------------------------

void PairMLP::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  const int nlocal = atom->nlocal, nall = atom->nlocal + atom->nghost;
  const bool per_atom_energy = eflag_atom || want_energy_;

  ns_results results{};
  results.struct_size = sizeof(results);
  results.forces = forces_.open(first_element(atom->f, nall), 3 * nall, energy_unit_);
  if (per_atom_energy) {
    atom_energies_.assign(std::max(1, nlocal), 0.0);
    results.energies = atom_energies_.data();
  }
  if (vflag_atom) results.virials = virials_.open(first_element(vatom, nall), 6 * nall, energy_unit_);

  const ns_domain domain = make_domain();
  check_results(ns_evaluate_domain(evaluator_.get(), &domain, &results), results);

  forces_.close(energy_unit_);
  if (per_atom_energy) {
    for (double& energy : atom_energies_) energy *= energy_unit_;
  }
  if (eflag_atom) {
    for (int i = 0; i < nlocal; ++i) eatom[i] += atom_energies_[i];
  }
  if (vflag_atom) virials_.close(energy_unit_);
  if (eflag_global) eng_vdwl += results.energy * energy_unit_;
  if (vflag_global) {
    for (int k = 0; k < 6; ++k) virial[k] += results.virial[k] * energy_unit_;
  }
}

ns_domain PairMLP::make_domain() {
  const int nlocal = atom->nlocal, nall = atom->nlocal + atom->nghost;
  species_.resize(nall);
  for (int i = 0; i < nall; ++i) species_[i] = species_of_type_[atom->type[i]];

  ns_domain domain{};
  domain.struct_size = sizeof(domain);
  domain.num_owned = nlocal;
  domain.num_atoms = nall;
  domain.positions = first_element(atom->x, nall);
  domain.species = species_.data();
  domain.num_centers = list->inum;
  domain.centers = list->ilist;
  if (ns_model_num_interactions(model_.get()) > 1) {
    update_centers();
    domain.num_centers = static_cast<int>(centers_.size());
    domain.centers = centers_.data();
  }
  domain.num_neighbors = list->numneigh;
  domain.neighbors = list->firstneigh;
  domain.neighbor_mask = NEIGHMASK;
  return domain;
}

// The owned atoms and the ghosts that a message can come from: those reached in (layers - 1) steps along the
// neighbor lists, whatever the decomposition. Lists hold the skin, so this stays right until they are made
// anew.
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

void PairMLP::check_results(ns_status status, const ns_results& results) {
  if (status != NS_OK) error->one(FLERR, "pair_style mlp: {}", ns_last_error());
  // Every edge enters the virial, so a force that is not finite shows there.
  bool finite = std::isfinite(results.energy);
  for (const double value : results.virial) finite = finite && std::isfinite(value);
  if (!finite) {
    error->one(FLERR,
               "pair_style mlp: energy or forces are not finite at step {}: atoms lie on top of each other "
               "or far outside "
               "of what the model has learned; check the start structure and the time step",
               update->ntimestep);
  }
}

double* PairMLP::Output::open(double* target, std::size_t count, double unit) {
  target_ = target;
  count_ = count;
  if (unit == 1) return target;
  work_.assign(count, 0.0);
  return work_.data();
}

void PairMLP::Output::close(double unit) {
  if (unit == 1) return;
  for (std::size_t k = 0; k < count_; ++k) target_[k] += work_[k] * unit;
}

// ---- restart files
// ------------------------------------------------------------------------------------------------------

// Restart files hold the words of the input script, so that they outlive a change of the settings. Rank 0
// writes and reads them.

void PairMLP::write_restart(FILE* file) {
  write_restart_settings(file);
  std::vector<std::string> words = {model_path_};
  words.insert(words.end(), element_of_type_.begin(), element_of_type_.end());
  write_strings(file, words);
}

void PairMLP::read_restart(FILE* file) {
  read_restart_settings(file);
  const std::vector<std::string> words = read_strings(file);
  model_path_ = words.front();
  element_of_type_.assign(words.begin() + 1, words.end());
  if (load_model()) {
    map_types();
    return;
  }
  // The user may still name another file; init_style stops if not.
  problem_ += "; the restart file names it: put it there, or repeat pair_coeff with the right path";
  if (comm->me == 0) error->warning(FLERR, "pair_style mlp: {}", problem_);
  allocate();
  for (int i = 1; i <= atom->ntypes; ++i) {
    for (int j = i; j <= atom->ntypes; ++j) setflag[i][j] = 1;
  }
}

void PairMLP::write_restart_settings(FILE* file) {
  write_strings(file, {keywords[0].name, keywords[0].words[precision_], keywords[1].name,
                       keywords[1].words[backend_], keywords[2].name, keywords[2].words[device_]});
}

void PairMLP::read_restart_settings(FILE* file) {
  std::vector<std::string> words = read_strings(file);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  settings(static_cast<int>(arguments.size()), arguments.data());
}

std::vector<std::string> PairMLP::read_strings(FILE* file) {
  const auto read_int = [&] {
    int value = 0;
    if (comm->me == 0) utils::sfread(FLERR, &value, sizeof(int), 1, file, nullptr, error);
    MPI_Bcast(&value, 1, MPI_INT, 0, world);
    return value;
  };
  std::vector<std::string> strings(read_int());
  for (std::string& text : strings) {
    text.resize(read_int());
    if (comm->me == 0) utils::sfread(FLERR, text.data(), 1, text.size(), file, nullptr, error);
    MPI_Bcast(text.data(), static_cast<int>(text.size()), MPI_CHAR, 0, world);
  }
  return strings;
}

// ---- what other commands can ask for
// --------------------------------------------------------------------------------------

void* PairMLP::extract(const char* name, int& dim) {
  dim = 0;
  return std::strcmp(name, "energy_flag") == 0 ? &want_energy_ : nullptr;
}

void* PairMLP::extract_peratom(const char* name, int& columns) {
  columns = 0;
  return std::strcmp(name, "energy") == 0 ? atom_energies_.data() : nullptr;
}

double PairMLP::memory_usage() {
  const auto bytes = [](const auto& array) {
    return static_cast<double>(array.capacity() * sizeof(array[0]));
  };
  return Pair::memory_usage() + forces_.memory_usage() + virials_.memory_usage() + bytes(species_) +
         bytes(centers_) + bytes(reached_) + bytes(atom_energies_);
}
