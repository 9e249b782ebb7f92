#pragma once
#include <memory>

#include "core/engine/graph.hpp"

namespace nearsight {

/// Forward and reverse of one model with its work arrays; one thread uses it at a time.
class Worker {
 public:
  virtual ~Worker() = default;

  /// readouts[num_rows, columns], eV for energies; remembers what reverse() needs.
  virtual void forward(const Graph& graph, Span<double> readouts) = 0;

  /// edge_gradients[3 * edges] = dE/dr_ij for cotangents[num_rows, columns] = dE/d(readout); after
  /// forward(graph).
  virtual void reverse(const Graph& graph, Span<const double> cotangents, Span<double> edge_gradients) = 0;
};

/// The local part of a model: graph -> readouts. Immutable; every thread makes its own worker.
class Potential {
 public:
  virtual ~Potential() = default;
  virtual std::unique_ptr<Worker> make_worker(bool double_precision) const = 0;

  /// Centers that a worker likes to see at once; 0: all of them in one call.
  virtual std::size_t tile() const = 0;
};

}  // namespace nearsight
