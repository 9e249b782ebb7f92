#pragma once
#include <vector>

#include "core/models/ace/ace.hpp"
#include "cuda/device.hpp"
#include "cuda/models/shared/tables.hpp"

namespace nearsight {
namespace cuda {
namespace ace {

using nearsight::ace::Product;

/// Nodes of 32 rows side by side: [blocks of rows][nodes][kWarp].
__host__ __device__ inline std::size_t node_place(int row, int node, int num_nodes) {
  return (static_cast<std::size_t>(row / kWarp) * num_nodes + node) * kWarp + row % kWarp;
}

/// The tables of core's products for kernels: targets in parts that do not need each other, and for every
/// node the terms that it is a factor of.
struct ProductTables {
  int first_target, num_nodes, num_parts, num_features;
  const int* parts;       // [num_parts + 1] first target of each
  const int* first;       // [targets + 1] first term of each
  const Product* terms;   // of targets
  const int* first_use;   // [nodes + 1]
  const Product* uses;    // {target, other factor, coefficient}
  const int* features;    // [num_features] nodes
  const int* feature_of;  // [nodes] number of the feature, or -1
  bool normalize;
};

/// What ProductTables need beyond core's tables.
struct ProductUses {
  std::vector<int> parts, first_use, feature_of;
  std::vector<Product> uses;

  ProductUses(const nearsight::ace::Products& products, Span<const int> features);
};

/// Products of moments in double: 32 rows in the lanes of a block, whose warps share the targets.
class Products {
 public:
  Products(const Stream& stream, const nearsight::ace::Definition& definition);

  int num_nodes() const { return tables_.num_nodes; }
  std::size_t bytes_per_row() const { return 2 * tables_.num_nodes * sizeof(double); }
  /// Room for the nodes of so many rows: forward() wants the moments there, from node 1 on.
  double* nodes(int num_rows) { return nodes_.resize(size(num_rows)); }
  void forward(const Stream& stream, int num_rows, double* features, int stride);
  /// dE/d(node), of which that of moments are wanted.
  const double* reverse(const Stream& stream, int num_rows, const double* cotangents, int stride);

 private:
  std::size_t size(int num_rows) const {
    return (num_rows + kWarp - 1) / kWarp * kWarp * static_cast<std::size_t>(tables_.num_nodes);
  }
  Tables device_;
  ProductTables tables_{};
  Buffer<double> nodes_, adjoints_;
};

}  // namespace ace
}  // namespace cuda
}  // namespace nearsight
