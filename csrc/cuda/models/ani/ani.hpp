#pragma once
#include "core/models/ani/ani.hpp"
#include "cuda/models/ani/terms.hpp"
#include "cuda/models/descriptor.hpp"
#include "cuda/models/shared/neighborhoods.hpp"

namespace nearsight {
namespace cuda {
namespace ani {

/// What the kernels read.
template <class T>
struct Problem {
  Edges<T> edges;
  Neighborhoods<T> neighborhoods;
  int num_rows;
  Terms<T> terms;
  int radial_shell, angular_shell;  // of the neighborhoods
  T inverse_radial_cutoff, inverse_angular_cutoff;
};

/// ANI's atomic environment vectors.
template <class T>
class Ani final : public Descriptor<T> {
 public:
  Ani(const Stream& stream, const nearsight::ani::Constants& constants);

  int num_features(int) const override { return num_features_; }
  void forward(const Stream& stream, const Graph<T>& graph, double* features, int stride) override;
  void reverse(const Stream& stream, const Graph<T>& graph, const double* cotangents, int stride,
               Vec4<T>* gradients) override;
  void tangent(const Stream& stream, const Graph<T>& graph, const Vec4<T>* directions, double* tangents,
               int stride) override;
  bool zero_means_absent() const override { return true; }
  std::size_t bytes_per_row(std::size_t neighbors) const override {
    return neighbors * NeighborSorter<T>::bytes_per_neighbor();
  }

 private:
  Problem<T> problem(const Graph<T>& graph) const;

  Tables tables_;
  int num_features_;
  Terms<T> terms_;
  T radial_cutoff_, angular_cutoff_;  // Å
  NeighborSorter<T> sorter_;
};

}  // namespace ani
}  // namespace cuda
}  // namespace nearsight
