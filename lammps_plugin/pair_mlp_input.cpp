// The words of pair_style and pair_coeff, the summary in the log, restart files.
//
// SPDX-License-Identifier: GPL-2.0-only

#include <atom.h>
#include <comm.h>
#include <error.h>
#include <force.h>
#include <memory.h>
#include <utils.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "pair_mlp.h"

using namespace LAMMPS_NS;

namespace {

// A keyword of pair_style; its words stand in the order of the C API's enumeration.
struct Keyword {
  const char* name;
  std::vector<std::string> words;
};
const std::array<Keyword, 4> keywords = {{{"precision", {"mixed", "double"}},
                                          {"backend", {"auto", "native", "torchscript"}},
                                          {"device", {"cpu", "cuda", "auto"}},
                                          {"messages", {"exchange", "halo"}}}};

std::string join(const std::vector<std::string>& words, const char* separator) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : separator) + word;
  return text;
}

std::string syntax() {
  std::string text = "pair_style mlp";
  for (const Keyword& keyword : keywords)
    text += std::string(" [") + keyword.name + " " + join(keyword.words, "|") + "]";
  return text +
         " [deviation N [file NAME]] [extrapolation warn N] [extrapolation stop N] "
         "[charge Q|molecules Q|molecules q] [efield X Y Z]";
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

// ---- commands ----

void PairMLP::settings(int narg, char** arg) {
  std::array<int, 4> choice = {NS_PRECISION_MIXED, NS_BACKEND_AUTO, NS_DEVICE_AUTO, EXCHANGE};
  Deviation deviation;
  Extrapolation extrapolation;
  forget();
  charges_ = {};
  for (int k = 0; k < narg;) {
    if (std::strcmp(arg[k], "deviation") == 0) {
      k += read_deviation(narg - k, arg + k, deviation);
      continue;
    }
    if (std::strcmp(arg[k], "charge") == 0) {
      k += read_charge(narg - k, arg + k);
      continue;
    }
    if (std::strcmp(arg[k], "efield") == 0) {
      k += read_field(narg - k, arg + k);
      continue;
    }
    if (std::strcmp(arg[k], "extrapolation") == 0) {
      k += read_extrapolation(narg - k, arg + k, extrapolation);
      continue;
    }
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
    k += 2;
  }
  precision_ = static_cast<ns_precision>(choice[0]);
  backend_ = static_cast<ns_backend>(choice[1]);
  device_ = static_cast<ns_device>(choice[2]);
  messages_ = static_cast<Messages>(choice[3]);
  deviation_ = std::move(deviation);
  extrapolation_ = std::move(extrapolation);
  offer_extra_values();
  if (model_) require_model();
}

// A whole number that is at least `least`.
bigint PairMLP::read_count(const char* what, int narg, char** arg, int k, bigint least) {
  const bool is_number = k < narg && utils::is_integer(arg[k]);
  const bigint value = is_number ? utils::bnumeric(FLERR, arg[k], false, lmp) : least - 1;
  if (value < least) {
    error->all(FLERR, "pair_style mlp: '{}' takes a whole number from {}, and found {}", what, least,
               k < narg ? arg[k] : "nothing");
  }
  return value;
}

// deviation N [file NAME]; returns the number of words.
int PairMLP::read_deviation(int narg, char** arg, Deviation& deviation) {
  deviation.every = read_count("deviation", narg, arg, 1, 1);
  if (narg < 3 || std::strcmp(arg[2], "file") != 0) return 2;
  if (narg < 4) error->all(FLERR, "pair_style mlp: 'file' takes the name of a file, and found nothing");
  deviation.path = arg[3];
  return 4;
}

// extrapolation warn N, extrapolation stop N; returns the number of words.
int PairMLP::read_extrapolation(int narg, char** arg, Extrapolation& extrapolation) {
  const std::string word = narg > 1 ? arg[1] : "nothing";
  if (word == "warn")
    extrapolation.warn_every = read_count("extrapolation warn", narg, arg, 2, 1);
  else if (word == "stop")
    extrapolation.stop_above = read_count("extrapolation stop", narg, arg, 2, 0);
  else
    error->all(FLERR, "pair_style mlp: 'extrapolation' takes warn|stop, and found {}", word);
  return 3;
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
  offer_extra_values();
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

void PairMLP::announce() {
  const std::string backend = ns_model_backend(model_.get());
  const int layers = ns_model_num_interactions(model_.get());
  const double cutoff = ns_model_cutoff(model_.get());
  utils::logmesg(lmp, "pair_style mlp: model {}, architecture {}, elements {}\n", model_path_,
                 ns_model_architecture(model_.get()), join(model_species(), " "));
  utils::logmesg(lmp, "  nearsight {}, backend {}, precision {}, {} thread(s) per rank\n", ns_version(),
                 backend == "native" ? backend + " (" + ns_instruction_set() + ")" : backend,
                 keywords[0].words[precision_], threads_);
  utils::logmesg(lmp, "  cutoff {:g} A, {} interaction layer(s), ghost atoms needed to {:g} A{}\n", cutoff,
                 layers, ghost_cutoffs() * cutoff, exchanges() ? ", features are exchanged" : "");
  const int members = ns_model_num_members(model_.get());
  if (members > 1) utils::logmesg(lmp, "  committee of {} members: their mean drives\n", members);
  if (extrapolation_.is_on())
    utils::logmesg(lmp, "  {} features with training ranges\n", extrapolation_.features.size());
  announce_dispersion();
  for (int type = 1; type <= atom->ntypes; ++type) {
    const std::string mass = atom->mass ? fmt::format(" (mass {:g})", atom->mass[type]) : "";
    utils::logmesg(lmp, "  atom type {}{} -> {}\n", type, mass, element_of_type_[type - 1]);
  }
}

// ---- restart files: the words of the input script, so that they outlive a change of the settings ----

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
  std::vector<std::string> words = {
      keywords[0].name, keywords[0].words[precision_], keywords[1].name, keywords[1].words[backend_],
      keywords[2].name, keywords[2].words[device_],    keywords[3].name, keywords[3].words[messages_]};
  const auto add = [&](const std::vector<std::string>& more) {
    words.insert(words.end(), more.begin(), more.end());
  };
  if (deviation_.every > 0) add({"deviation", std::to_string(deviation_.every)});
  if (!deviation_.path.empty()) add({"file", deviation_.path});
  const Extrapolation& e = extrapolation_;
  if (e.warn_every > 0) add({"extrapolation", "warn", std::to_string(e.warn_every)});
  if (e.stop_above >= 0) add({"extrapolation", "stop", std::to_string(e.stop_above)});
  const auto number = [](double value) { return fmt::format("{:.17g}", value); };
  if (charges_.has_total) add({"charge", number(charges_.total)});
  if (charges_.by_molecule)
    add({"charge", "molecules", charges_.by_sums ? "q" : number(charges_.of_molecule)});
  const double* const field = charges_.field;
  if (charges_.has_field) add({"efield", number(field[0]), number(field[1]), number(field[2])});
  write_strings(file, words);
}

void PairMLP::read_restart_settings(FILE* file) {
  std::vector<std::string> words = read_strings(file);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  settings(static_cast<int>(arguments.size()), arguments.data());
  deviation_.append = true;
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
