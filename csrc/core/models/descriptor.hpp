#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/engine/graph.hpp"
#include "core/io/tensors.hpp"
#include "core/models/shared/range.hpp"

namespace nearsight {

/// Work arrays for the neighborhoods of some centers at a time; one thread uses it. `centers` are numbers of
/// centers of the graph, in any order; row k of a matrix [centers][stride] belongs to centers[k], and holds
/// as many numbers as its species has features.
class DescriptorWorkspace {
 public:
  virtual ~DescriptorWorkspace() = default;

  /// Writes the features; may remember what reverse() of the same centers needs.
  virtual void forward(const Graph& graph, Span<const std::size_t> centers, double* features,
                       std::size_t stride) = 0;

  /// Remembers what reverse() of the same centers needs, as forward() does, for which `features` are room.
  virtual void prepare(const Graph& graph, Span<const std::size_t> centers, double* features,
                       std::size_t stride) {
    forward(graph, centers, features, stride);
  }

  /// What follows is about the n-th of several graphs, of which forward() may keep a little for restore().
  virtual void select(std::size_t /*graph*/) {}

  /// The same as prepare(), after forward() of the same graph and of others in between.
  virtual void restore(const Graph& graph, Span<const std::size_t> centers, double* features,
                       std::size_t stride) {
    prepare(graph, centers, features, stride);
  }

  /// Writes edge_gradients[3 * edges of the graph] = dE/dr_ij at the edges of the centers, for
  /// cotangents = dE/d(feature); after forward(), prepare() or restore() of the same centers,
  /// which it may follow several times.
  virtual void reverse(const Graph& graph, Span<const std::size_t> centers, const double* cotangents,
                       std::size_t stride, Span<double> edge_gradients) = 0;

  /// Writes tangents = sum over edges of d(feature)/dr_ij · directions[3 * edges of the graph].
  virtual void tangent(const Graph& graph, Span<const std::size_t> centers, Span<const double> directions,
                       double* tangents, std::size_t stride) = 0;

  /// Ascending ranges that hold every feature which was not zero, with zero derivatives, by the species alone
  /// at all centers of the last forward(). Features outside need not enter the networks, and reverse() does
  /// not read their cotangents. By default all features.
  virtual Span<const Range> active() const;

  /// Writes jacobian[3 * edges of the center][stride] = d(feature)/dr_ij of one center; here by one reverse()
  /// for every feature.
  virtual void jacobian(const Graph& graph, std::size_t center, double* jacobian, std::size_t stride);
};

/// Numbers that describe the neighborhood of a center, without trained parameters. Immutable.
class Descriptor {
 public:
  virtual ~Descriptor() = default;
  virtual int num_features(int species) const = 0;
  virtual std::unique_ptr<DescriptorWorkspace> make_workspace(bool double_precision) const = 0;
  /// Centers whose intermediate results fit into the cache between forward and reverse.
  virtual std::size_t tile() const { return 64; }
};

/// The descriptor of a record of docs/file_format.md, {"kind": …, …}, with its tensors "descriptor.…".
/// Throws Error (file) for one that cannot be right.
std::unique_ptr<Descriptor> make_descriptor(const std::string& record,
                                            const std::vector<std::string>& species, const Tensors& tensors);

}  // namespace nearsight
