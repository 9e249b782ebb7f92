#pragma once
#include "core/models/ace/ace.hpp"
#include "cuda/models/ace/products.hpp"
#include "cuda/models/descriptor.hpp"
#include "cuda/models/shared/neighborhoods.hpp"

namespace nearsight {
namespace cuda {
namespace ace {

/// What the kernels of moments read.
template <class T>
struct MomentTables {
  int num_species, channels, l_max, num_moments;  // moments of a channel
  int num_knots, num_functions;
  T steps_per_angstrom;
  int counts[kMaxL + 1];                // radial functions of each l
  int first_function[kMaxL + 1];        // number of the first of each l
  int first_moment[kMaxL + 1];          // moment (l, m, n) is first_moment[l] + (l + m) counts[l] + n
  const HarmonicFactors<T>* harmonics;  // one
  const int* table_of;                  // [species of center][species of neighbor]
  const T* radial;       // [tables][knots][3][functions], slope and curvature per step and step²
  const double* mixing;  // [channels][species], null: channels are species
  const double* center;  // [species][counts[0]] moments of the center itself
  const int* places;     // [num_moments] (l² + l + m) << 16 | radial function
};

/// What is of this call.
template <class T>
struct Problem {
  Edges<T> edges;
  Neighborhoods<T> neighborhoods;
  MomentTables<T> tables;
  int num_rows, num_nodes;
};

/// Moment descriptors: SOAP and ACE. Moments are summed in T, their products are in double.
template <class T>
class Ace final : public Descriptor<T> {
 public:
  Ace(const Stream& stream, const nearsight::ace::Definition& definition);

  int num_features(int) const override { return num_features_; }
  void forward(const Stream& stream, const Graph<T>& graph, double* features, int stride) override;
  void reverse(const Stream& stream, const Graph<T>& graph, const double* cotangents, int stride,
               Vec4<T>* gradients) override;
  void tangent(const Stream& stream, const Graph<T>& graph, const Vec4<T>* directions, double* tangents,
               int stride) override;
  std::size_t bytes_per_row(std::size_t neighbors) const override {
    return neighbors * NeighborSorter<T>::bytes_per_neighbor() + products_.bytes_per_row();
  }

 private:
  Problem<T> problem(const Graph<T>& graph) const {
    return {graph.edges, sorter_.view(), tables_, graph.num_rows, products_.num_nodes()};
  }
  void keep_radial(const Stream& stream, const nearsight::ace::Definition& definition);

  Tables device_;
  MomentTables<T> tables_{};
  int num_features_;
  NeighborSorter<T> sorter_;
  Products products_;
};

}  // namespace ace
}  // namespace cuda
}  // namespace nearsight
