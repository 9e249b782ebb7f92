#pragma once
#include <vector>

#include "core/models/networks/networks.hpp"
#include "cuda/engine/graph.hpp"
#include "cuda/models/networks/activations.hpp"
#include "cuda/models/shared/tables.hpp"

namespace nearsight {
namespace cuda {
namespace networks {

/// Core's layer: panels of kPad columns, in one array of all layers' numbers.
struct LayerTable {
  int inputs, outputs;
  Activation activation;
  int derivatives;  // place of its derivatives among those of a member, -1 of linear layers, which keep none
  std::size_t forward, reverse, bias;  // places of the first member's; those of others follow
};

/// The networks of a species.
struct NetworkTable {
  int num_features, num_layers, num_derivatives;  // derivatives: numbers of a member
  bool is_shifted;
  int first_layer, first_feature;
};

template <class U>
struct NetworkTables {
  const NetworkTable* networks;  // [species]
  const LayerTable* layers;
  const U* numbers;                            // of all layers
  const double *shift, *scale, *output_scale;  // of features; [columns]
};

/// Sizes that all species have in common.
struct Sizes {
  int members, columns;
  int features, width, derivatives;  // of the largest network: inputs, widest layer, numbers of all members
  bool zero_means_absent;

  int chunks() const { return (features + kPad - 1) / kPad; }
  /// Numbers of a block of rows between forward and reverse: inputs, two layers, derivatives.
  __host__ __device__ std::size_t per_row() const { return features + 2 * width + derivatives; }
};

/// Rows of the same species.
struct RowRuns {
  static constexpr int kMost = 16;
  int count;
  int first_block[kMost + 1];                     // of kWarp rows
  int species[kMost], first[kMost], last[kMost];  // rows
};

/// Core's networks: a block has 32 rows of one species in its lanes, and its warps share the outputs of a
/// layer. U is the type of the networks, which may be double in mixed precision.
template <class U>
class Networks {
 public:
  /// zero_means_absent: see Descriptor.
  Networks(const Stream& stream, const nearsight::networks::Networks<U>& networks, int num_species,
           bool zero_means_absent);

  int num_features(int species) const { return num_features_[species]; }
  std::size_t bytes_per_row() const { return sizes_.per_row() * sizeof(U); }

  /// outputs[rows][members * columns] from features[rows][stride] of all rows with readouts of a graph.
  template <class T>
  void forward(const Stream& stream, const Graph<T>& graph, const double* features, int stride,
               double* outputs) {
    std::size_t blocks = 0;
    for (const auto& run : graph.runs) blocks += blocks_of(run.last - run.first);
    rows_.resize(blocks * kWarp * sizes_.per_row());
    active_.resize(blocks * sizes_.chunks());
    for_runs(graph, [&](const RowRuns& runs, std::size_t block) {
      forward(stream, runs, block, features, stride, outputs);
    });
  }
  /// dE/d(feature) from dE/d(output), after forward() of the same graph.
  template <class T>
  void reverse(const Stream& stream, const Graph<T>& graph, const double* output_cotangents,
               double* cotangents, int stride) {
    for_runs(graph, [&](const RowRuns& runs, std::size_t block) {
      reverse(stream, runs, block, output_cotangents, cotangents, stride);
    });
  }

 private:
  static int blocks_of(int rows) { return (rows + static_cast<int>(kWarp) - 1) / static_cast<int>(kWarp); }
  /// Calls body(runs, number of their first block) for a launch's runs at a time.
  template <class T, class Body>
  void for_runs(const Graph<T>& graph, const Body& body);
  void forward(const Stream& stream, const RowRuns& runs, std::size_t block, const double* features,
               int stride, double* outputs);
  void reverse(const Stream& stream, const RowRuns& runs, std::size_t block, const double* output_cotangents,
               double* cotangents, int stride);
  Grid grid(const RowRuns& runs) const;

  Tables tables_;
  std::vector<int> num_features_;
  Sizes sizes_{};
  NetworkTables<U> networks_{};
  Buffer<U> rows_;               // [blocks][Sizes::per_row()][kWarp]
  Buffer<std::int32_t> active_;  // [blocks][chunks of kPad features] whether any is not zero
};

template <class U>
template <class T, class Body>
void Networks<U>::for_runs(const Graph<T>& graph, const Body& body) {
  const int end = graph.edges.first_row + graph.num_rows;
  RowRuns runs{};
  std::size_t block = 0;
  for (const auto& run : graph.runs) {
    const int last = run.last < end ? run.last : end, k = runs.count;
    if (run.first >= last) continue;
    runs.species[k] = run.species;
    runs.first[k] = run.first - graph.edges.first_row;
    runs.last[k] = last - graph.edges.first_row;
    runs.first_block[k + 1] = runs.first_block[k] + blocks_of(last - run.first);
    if (++runs.count < RowRuns::kMost) continue;
    body(runs, block);
    block += runs.first_block[runs.count];
    runs = {};
  }
  if (runs.count) body(runs, block);
}

}  // namespace networks
}  // namespace cuda
}  // namespace nearsight
