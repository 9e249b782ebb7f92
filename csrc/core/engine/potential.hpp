#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/engine/exchange.hpp"
#include "core/engine/graph.hpp"

namespace nearsight {

/// A number that describes the neighborhood of a center of one species, and its range in the training set.
struct Feature {
  int species;
  std::string label;
  double minimum, maximum;
};

/// Which features left their ranges, in the order of Potential::features(). The arrays are the host's.
struct Extrapolations {
  Span<long long> counts;        // added to: how often
  Span<double> lowest, highest;  // widened: values that were met; they start as the ranges
};

/// Forward and reverse of one model with its work arrays; one thread uses it at a time.
class Worker {
 public:
  virtual ~Worker() = default;

  /// readouts[num_rows, columns], eV for energies; remembers what reverse() needs.
  virtual void forward(const Graph& graph, Span<double> readouts) = 0;

  /// Takes in the features of the last forward(); not after its reverse().
  virtual void find_extrapolations(const Extrapolations&) const {}

  /// edge_gradients[3 * edges] = dE/dr_ij for cotangents[num_rows, columns] = dE/d(readout); after
  /// forward(graph), which it may follow several times.
  virtual void reverse(const Graph& graph, Span<const double> cotangents, Span<double> edge_gradients) = 0;

  /// A worker for another graph of the same thread, which remembers as little as it can between forward() and
  /// reverse(): the rest is in common with this one, and reverse() makes it again if it is another graph's.
  /// Null if nothing can be in common.
  virtual std::unique_ptr<Worker> sibling() const { return nullptr; }
};

struct WorkerOptions {
  bool double_precision = false;
  int num_threads = 1;                 // of its own, for a worker that sees the whole graph at once
  const Exchange* exchange = nullptr;  // outlives the worker; null: every neighbor is a center of the graph
};

/// The local part of a model: graph -> readouts. Immutable; every thread makes its own worker.
class Potential {
 public:
  virtual ~Potential() = default;
  virtual std::unique_ptr<Worker> make_worker(const WorkerOptions& options) const = 0;

  /// Features whose ranges in the training set are known, by species.
  virtual const std::vector<Feature>& features() const {
    static const std::vector<Feature> none;
    return none;
  }

  /// Numbers per atom of the widest rows that a worker gives to WorkerOptions::exchange; 0: it knows no
  /// exchange, and several interactions need ghost centers.
  virtual int exchange_width() const { return 0; }

  /// Centers that a worker likes to see at once; 0: all of them in one call.
  virtual std::size_t tile() const = 0;
};

}  // namespace nearsight
