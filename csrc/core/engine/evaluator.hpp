#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "core/engine/batch.hpp"
#include "core/engine/cpu_rows.hpp"
#include "core/engine/device.hpp"
#include "core/engine/edges.hpp"
#include "core/engine/model.hpp"
#include "core/engine/threads.hpp"
#include "core/mesh/coulomb.hpp"

namespace nearsight {

/// Results of one evaluation; the arrays are the host's and are added to. Signs and orders as in nearsight.h.
struct Results {
  double energy = 0.0;            // eV, with reference energies
  double electrostatic = 0.0;     // eV, part of the energy
  int steps = 0;                  // of equilibration, Couple
  PmeTimes times;                 // of the electrostatics on this rank, without their set-up
  double dispersion = 0.0;        // eV, part of the energy
  double virial[6] = {};          // eV
  Span<double> forces;            // [3 * atoms]
  Span<double> energies;          // [owned]
  Span<double> virials;           // [6 * atoms]
  Span<double> centroid_virials;  // [9 * atoms]
  // Of each member of a committee; eV and eV/Å.
  Span<double> member_energies;      // [members] with reference energies
  Span<double> member_forces;        // [members][3 * atoms]
  Span<double> member_virials;       // [members][6]
  Span<double> member_atom_virials;  // [members][6 * atoms]
  // Of models with charges, in the order of their channels.
  Span<double> charges;       // [owned][channels] e
  Span<double> potentials;    // [owned][channels] V
  Span<double> born_charges;  // [9 * atoms] e
  Extrapolations extrapolations;
};

/// What a host with domain decomposition lends the core; empty in one process.
struct Host {
  Communicator ranks;
  Exchange exchange;
};

struct EvaluatorOptions {
  bool double_precision = false;
  int num_threads = 1;
  double skin = 0.0;  // Å, of evaluate(system), and of the device's list also of a domain
  Device device = Device::cpu;
  int device_index = -1;  // of the GPU; -1: the first one; or kCurrentDevice
};

/// forward - couple - reverse for one host. One thread calls it at a time.
class Evaluator {
 public:
  Evaluator(std::shared_ptr<const Model> model, const EvaluatorOptions& options, Host host = {});

  /// One process: the neighbor list is made here.
  void evaluate(Span<const double> positions, Span<const int> species, Cell cell, const Outside& outside,
                Results& results);

  /// The same of a system in the memory of the GPU that the evaluator was made for. Results::forces is empty;
  /// forces are there when it returns, and after an error they are undefined.
  void evaluate(const DeviceArrays& arrays, Span<const int> species, const Cell& cell, const Outside& outside,
                Results& results);

  /// Domain decomposition: ghosts and the list come from the host.
  void evaluate(const Domain& domain, const HostList& list, Results& results);

  /// Many systems at once, for models whose has_batches() says so: threads share them, and a GPU is full.
  /// Throws Error for the batch if a system has one; which it is tells an evaluation of each.
  void evaluate(const Batch& batch, const BatchResults& results);

  const Model& model() const { return *model_; }
  /// Neighbor lists that were made here.
  long num_list_builds() const { return device_ ? device_->num_list_builds() : verlet_.num_builds(); }

 private:
  /// Rows of open directions may hold anything; they must not reach an edge as 0 · NaN.
  static void clear_open_rows(Cell& cell);
  void check(const Domain& domain) const;
  void check(const Results& wanted) const;
  void check(const Outside& outside, const Results& wanted) const;
  void evaluate_system(Span<const double> positions, const DeviceArrays* arrays, Span<const int> species,
                       Cell cell, const Outside& outside, Results& results);
  void run(const Domain& domain, Span<const int> owned, Results& results,
           const std::function<RowEngine&()>& load);
  RowEngine& load(const Domain& domain, const Batch& batch, const Extrapolations& found);
  void find_lists(const Batch& batch);
  EdgeSums member_sums(const Results& results, std::size_t member);
  EdgeSums charge_flows(const Domain& domain);
  void join(const Domain& domain, Span<const int> owned, Results& results);
  void join_charges(const Domain& domain, Span<const int> owned, Results& results);
  void add_born_charges(const Domain& domain, Span<const int> owned, Results& results);
  void add_energies(const Domain& domain, Span<const int> owned, Results& results) const;
  void gather_owned(const Domain& domain, Span<const int> owned);
  void add_dispersion(const Domain& domain, Span<const int> owned, Results& results);

  std::shared_ptr<const Model> model_;
  std::unique_ptr<Couple> couple_;
  std::unique_ptr<Dispersion> dispersion_;  // null where the model adds none
  Host host_;
  bool exchanges_ = false;  // features travel between the layers, so ghosts are no centers
  ThreadPool threads_;
  VerletList verlet_;
  // One of the two evaluates rows.
  std::unique_ptr<CpuRows> cpu_;
  std::unique_ptr<DeviceWorker> device_;
  std::vector<int> owned_, ghosts_;
  std::vector<double> readouts_, cotangents_, energies_;
  std::vector<double> constants_;  // rows of cotangents that are known before the readouts
  double unwanted_[6] = {};
  std::vector<double> positions_, direct_, charges_, potentials_;  // of owned rows
  std::vector<double> virials_;                                    // likewise, of dispersion
  std::vector<int> species_, molecules_;                           // likewise
  std::vector<double> memory_;                                     // of owned rows
  std::vector<double> host_positions_, host_forces_;               // of a system in a device's memory
  // Of one process: the atoms of the last evaluation and what they remember.
  std::vector<int> last_species_;
  std::vector<double> last_memory_;
  std::vector<double> charge_flows_, charge_cotangents_, shares_;  // for Born effective charges
  // Of batches.
  std::vector<Cell> cells_;          // [systems]
  std::vector<NeighborList> lists_;  // at least so many
  std::vector<int> systems_;         // [atoms]
  std::vector<double> member_atom_virials_;

 public:
  ~Evaluator();
};

}  // namespace nearsight
