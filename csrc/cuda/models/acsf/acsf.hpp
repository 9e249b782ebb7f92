#pragma once
#include "cuda/models/acsf/problem.hpp"
#include "cuda/models/descriptor.hpp"

namespace nearsight {
namespace cuda {
namespace acsf {

/// Symmetry functions.
template <class T>
class Acsf final : public Descriptor<T> {
 public:
  Acsf(const Stream& stream, const nearsight::acsf::Functions<T>& functions);

  int num_features(int species) const override { return tables_.num_features(species); }
  void forward(const Stream& stream, const Graph<T>& graph, double* features, int stride) override;
  void reverse(const Stream& stream, const Graph<T>& graph, const double* cotangents, int stride,
               Vec4<T>* gradients) override;
  void tangent(const Stream& stream, const Graph<T>& graph, const Vec4<T>* directions, double* tangents,
               int stride) override;
  std::size_t bytes_per_row(std::size_t neighbors) const override {
    return neighbors * (NeighborSorter<T>::bytes_per_neighbor() + 2 * tables_.num_rows() * sizeof(T));
  }

 private:
  Problem<T> problem(const Graph<T>& graph) const;
  Grid grid(int num_rows, Pass pass) const;

  FunctionSet<T> tables_;
  NeighborSorter<T> sorter_;
  Buffer<T> shapes_;  // [values, slopes][rows][places]
};

}  // namespace acsf
}  // namespace cuda
}  // namespace nearsight
