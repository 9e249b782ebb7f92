#pragma once
#include <memory>
#include <string>

#include "core/io/model_file.hpp"
#include "core/models/bpnn/bpnn.hpp"
#include "cuda/engine/graph.hpp"

namespace nearsight {
namespace cuda {

/// Numbers that describe the neighborhoods of the rows of a graph, the twin of core's descriptors. Row k of a
/// matrix [rows][stride] is the k-th row of the graph, and holds as many numbers as its species has features.
template <class T>
class Descriptor {
 public:
  virtual ~Descriptor() = default;
  virtual int num_features(int species) const = 0;

  /// Writes the features of graph.num_rows rows; remembers what reverse() needs. Networks see small
  /// differences of features, so these are in double also in mixed precision.
  virtual void forward(const Stream& stream, const Graph<T>& graph, double* features, int stride) = 0;

  /// Writes dE/dr_ij at the edges of the same rows for cotangents = dE/d(feature); may follow forward()
  /// several times.
  virtual void reverse(const Stream& stream, const Graph<T>& graph, const double* cotangents, int stride,
                       Vec4<T>* gradients) = 0;

  /// Writes Σ over edges of d(feature)/dr_ij · direction of the same rows, after forward() of the same graph;
  /// directions are those of the edges. For training.
  virtual void tangent(const Stream& stream, const Graph<T>& graph, const Vec4<T>* directions,
                       double* tangents, int stride) = 0;

  /// Whether a feature that is 0 has no derivative either, as a sum of positive terms with no terms.
  virtual bool zero_means_absent() const { return false; }

  /// Bytes of its work arrays for a row with so many neighbors, about.
  virtual std::size_t bytes_per_row(std::size_t neighbors) const = 0;
};

/// Null for a kind that has no kernels, with the reason.
template <class T>
std::unique_ptr<Descriptor<T>> make_descriptor(const ModelFile& file, const BpnnRecord& record,
                                               const Stream& stream, std::string& reason);

}  // namespace cuda
}  // namespace nearsight
