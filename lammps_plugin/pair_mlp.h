// pair_style mlp: machine-learned potentials in LAMMPS, on the C API of nearsight.
//
// SPDX-License-Identifier: GPL-2.0-only
#pragma once
#include <nearsight.h>
#include <pair.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace LAMMPS_NS {

class PairMLP : public Pair {
 public:
  explicit PairMLP(LAMMPS* lmp);
  ~PairMLP() override;

  void settings(int narg, char** arg) override;
  void coeff(int narg, char** arg) override;
  void init_style() override;
  double init_one(int itype, int jtype) override;
  void compute(int eflag, int vflag) override;
  void finish() override;

  void write_restart(FILE* file) override;
  void read_restart(FILE* file) override;
  void write_restart_settings(FILE* file) override;
  void read_restart_settings(FILE* file) override;

  void* extract(const char* name, int& dim) override;
  void* extract_peratom(const char* name, int& columns) override;
  int pack_forward_comm(int count, int* atoms, double* buffer, int pbc_flag, int* pbc) override;
  void unpack_forward_comm(int count, int first, double* buffer) override;
  int pack_reverse_comm(int count, int first, double* buffer) override;
  void unpack_reverse_comm(int count, int* atoms, double* buffer) override;
  double memory_usage() override;

 private:
  struct Release {
    void operator()(ns_model* model) const { ns_model_free(model); }
    void operator()(ns_evaluator* evaluator) const { ns_evaluator_free(evaluator); }
  };

  // An array that the core adds to: LAMMPS' own one where the units agree, else a work array in eV and Å that
  // is converted and added afterwards. `unit` is LAMMPS' unit of the array.
  class Output {
   public:
    double* open(double* target, std::size_t count, double unit);
    void close();
    double memory_usage() const { return static_cast<double>(work_.capacity() * sizeof(double)); }

   private:
    double* target_ = nullptr;
    std::size_t count_ = 0;
    double unit_ = 1;
    std::vector<double> work_;
  };

  // What a committee is asked for.
  struct Deviation {
    bigint every = 0;     // steps between evaluations of the members, 0: only when fix pair asks
    int wanted = 0;       // set by fix pair
    std::string path;     // of the file, "" for none
    bool append = false;  // to it, after a restart
    std::unique_ptr<FILE, int (*)(FILE*)> file{nullptr, std::fclose};
    bigint last_row = -1;                           // step of its last line
    std::vector<double> energies, forces, virials;  // [members], [members][3 * atoms], [members][6]; eV, Å
    std::vector<double> of_atoms;                   // [owned] LAMMPS' units
    bool has_atoms = false;                         // whether the latest step made them
  };

  // Features outside of their ranges in the training set.
  struct Extrapolation {
    bigint warn_every = 0;   // steps between summaries, 0: none
    bigint stop_above = -1;  // so many of all ranks in a run, -1: no limit
    bool is_on() const { return warn_every > 0 || stop_above >= 0; }
    std::vector<ns_feature> features;
    // Of this rank since the last summary.
    std::vector<long long> counts;
    std::vector<double> lowest, highest;
    bigint sum = 0, first_step = -1;
    bigint of_run = 0;  // of all ranks since the start of the run
  };

  // Of models with electrostatics.
  struct ChargesOfAtoms {
    double total = 0;  // e
    bool has_total = false;
    // In place of a total: molecules, by their IDs, keep a charge each, the same one or the sum of their q.
    bool by_molecule = false, by_sums = false;
    double of_molecule = 0;                // e
    std::vector<int> molecules;            // [owned] molecule ID
    std::vector<double> molecule_charges;  // [largest molecule ID + 1] e
    double field[3];                       // LAMMPS' units
    bool has_field = false;
    int asked = 0;  // set by fix pair, and not looked at: they are there at every step
    std::vector<double> values, potentials;  // [owned][channels] e, LAMMPS' energy over e
    std::vector<double> column;              // of one of them, for fix pair
    double cell[9], core_field[3];           // Å, V/Å
    // Of this run: s of all, communication, transforms, pairs, spreading; steps of equilibration,
    // evaluations.
    double times[7] = {};
    std::string memory;  // id of the fix property/atom that keeps what the core remembers of atoms, or ""
  };

  // How a model with several interaction layers learns of atoms beyond one cutoff of another rank's: features
  // travel between the layers, or every rank has ghosts in as many cutoffs and evaluates theirs, too.
  enum Messages { EXCHANGE, HALO };

  // Extra values of the pair style, as compute pair numbers them less 1.
  enum { MAX_F, MIN_F, AVG_F, MAX_V, MIN_V, AVG_V, STD_E, EXTRAPOLATIONS, DISPERSION, NUM_EXTRA };

  // `width` numbers for each atom, on their way between ranks.
  struct Rows {
    char* data = nullptr;
    int width = 0;
    bool is_double = false;
    std::size_t bytes() const { return width * (is_double ? sizeof(double) : sizeof(float)); }
    int doubles() const;
    char* of(int atom) const { return data + atom * bytes(); }
  };

  void require_model();
  bool load_model();
  std::string first_problem(ns_status status);
  void map_types();
  std::vector<std::string> model_species() const;
  void allocate();
  void check_host();
  void check_masses();
  void check_bonded_neighbors();
  bool has_bonded_neighbors(int order) const;
  void create_evaluator();
  int choose_gpu();
  void announce();
  bool exchanges() const;
  int ghost_cutoffs() const;
  void announce_widths(Pair* outermost);
  void lend_exchange(ns_host& host);
  void add_ghosts(const Rows& rows);
  ns_domain make_domain();
  void update_centers();
  void check_centroid();
  void offer_extra_values();
  void init_uncertainty();
  void require_committee();
  bool wants_members() const;
  void open_members(ns_results& results, std::size_t num_atoms);
  void close_members(std::size_t num_atoms);
  void write_deviation();
  void begin_extrapolations();
  void open_extrapolations(ns_results& results);
  void close_extrapolations();
  std::string summarize_extrapolations();
  bool has_charges() const;
  int exchange_bytes(const void* send, const int64_t* send_bytes, void* receive,
                     const int64_t* receive_bytes);
  void init_charges();
  void warn_of_double_counting();
  void check_atom_virials();
  bool has_dispersion() const;
  bool overlaps(const Pair* other) const;
  void init_dispersion();
  void announce_dispersion();
  void add_box(ns_domain& core_domain);
  void add_molecules(ns_domain& core_domain);
  void open_charges(ns_results& results);
  void close_charges(ns_results& results);
  void add_images(ns_results& results);
  double* charges_column(const char* name);
  void init_memory();
  void forget();
  double* find_memory();
  int read_charge(int narg, char** arg);
  int read_field(int narg, char** arg);
  bigint read_count(const char* what, int narg, char** arg, int k, bigint least);
  int read_deviation(int narg, char** arg, Deviation& deviation);
  int read_extrapolation(int narg, char** arg, Extrapolation& extrapolation);
  void check_results(ns_status status, const ns_results& results);
  [[noreturn]] void stop(const std::string& sentence);
  std::vector<std::string> read_strings(FILE* file);

  ns_precision precision_ = NS_PRECISION_MIXED;
  ns_backend backend_ = NS_BACKEND_AUTO;
  ns_device device_ = NS_DEVICE_AUTO;
  Messages messages_ = EXCHANGE;

  std::string model_path_;
  std::vector<std::string> element_of_type_;  // [types], "NULL" where the model does not see the type
  std::vector<int> species_of_type_;          // [types + 1], -1 where the model does not see the type
  std::unique_ptr<ns_model, Release> model_;
  std::unique_ptr<ns_evaluator, Release> evaluator_;
  std::string problem_;  // why there is no model, after a restart file whose model is gone
  int threads_ = 0;      // of evaluator_
  bool announced_ = false;
  double energy_unit_ = 1, length_unit_ = 1, field_unit_ = 1;  // LAMMPS' units in eV, Å and V/Å

  std::vector<int> species_;       // [atoms]
  std::vector<double> positions_;  // [3 * atoms] Å, where LAMMPS' lengths are others
  std::vector<int>
      centers_;  // with several cutoffs of ghosts: owned atoms and the ghosts whose readouts matter
  std::vector<char> reached_;  // [atoms] work array of update_centers
  bigint centers_step_ = -1;   // the step of the neighbor list that centers_ was made from
  Output forces_, virials_, centroid_virials_;

  int want_energy_ = 0;  // set by fix pair for the steps at which it needs the energies of the atoms
  std::vector<double> atom_energies_;  // [owned] LAMMPS' units
  bool has_atom_energies_ = false;     // whether the latest step made them

  Deviation deviation_;
  Extrapolation extrapolation_;
  ChargesOfAtoms charges_;
  std::vector<double> extra_;  // values of compute pair; whole on rank 0, or shares of each
  Rows rows_;                  // what is on its way now
};

}  // namespace LAMMPS_NS
