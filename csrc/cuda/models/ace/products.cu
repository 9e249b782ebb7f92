#include <algorithm>

#include "cuda/models/ace/products.hpp"

namespace nearsight {
namespace cuda {
namespace ace {
namespace {

constexpr int kLanes = static_cast<int>(kWarp);
constexpr int kWarps = 16;  // of a block

__device__ inline int warp_of_block() {
  return static_cast<int>(threadIdx.x / kWarp);
}

/// The sum over all warps of a block, for each lane.
__device__ inline double sum_warps(double value) {
  __shared__ double parts[kWarps][kLanes];
  parts[warp_of_block()][lane_number()] = value;
  __syncthreads();
  double sum = 0.0;
  for (int warp = 0; warp < kWarps; ++warp) sum += parts[warp][lane_number()];
  __syncthreads();
  return sum;
}

/// 1 / |p| of features p, or 1.
__device__ inline double scale_of(const ProductTables& p, const double* nodes) {
  if (!p.normalize) return 1.0;
  double square = 0.0;
  for (int k = warp_of_block(); k < p.num_features; k += kWarps) {
    const double value = nodes[p.features[k] * kLanes];
    square += value * value;
  }
  square = sum_warps(square);
  return square > 0.0 ? 1.0 / std::sqrt(square) : 0.0;
}

/// Fills `sums` of the targets, part by part: addend(a, b) multiplies the factors of a term at these places,
/// which may be targets of earlier parts. Those of moments are there, of rows that exist.
template <class Addend>
__device__ inline void sum_terms(const ProductTables& p, bool has_row, double first_node, double* sums,
                                 const Addend& addend) {
  if (warp_of_block() == 0) sums[0] = first_node;
  for (int node = 1 + warp_of_block(); !has_row && node < p.first_target; node += kWarps)
    sums[node * kLanes] = 0.0;
  __syncthreads();
  for (int part = 0; part < p.num_parts; ++part) {
    for (int target = p.parts[part] + warp_of_block(); target < p.parts[part + 1]; target += kWarps) {
      double sum = 0.0;
      for (int t = p.first[target]; t < p.first[target + 1]; ++t) {
        const Product term = p.terms[t];
        sum += term.c * addend(term.a * kLanes, term.b * kLanes);
      }
      sums[(p.first_target + target) * kLanes] = sum;
    }
    __syncthreads();
  }
}

/// What p·v / |p|² is for features p and a vector v: p / |p| has the derivative (v - p (p·v) / |p|²) / |p|.
template <class Vector>
__device__ inline double share_of_features(const ProductTables& p, const double* nodes, double scale,
                                           const Vector& v) {
  if (!p.normalize) return 0.0;
  double sum = 0.0;
  for (int k = warp_of_block(); k < p.num_features; k += kWarps) sum += v(k) * nodes[p.features[k] * kLanes];
  return sum_warps(sum) * scale * scale;
}

__global__ void __launch_bounds__(kWarps* kLanes)
    forward_kernel(ProductTables p, int num_rows, double* all, double* features, int stride) {
  const int row = static_cast<int>(blockIdx.x) * kLanes + static_cast<int>(lane_number());
  double* const nodes = all + node_place(row, 0, p.num_nodes);
  sum_terms(p, row < num_rows, 1.0, nodes, [=](int a, int b) { return nodes[a] * nodes[b]; });
  const double scale = scale_of(p, nodes);
  if (row >= num_rows) return;
  double* const out = features + static_cast<std::size_t>(row) * stride;
  for (int k = warp_of_block(); k < p.num_features; k += kWarps)
    out[k] = scale * nodes[p.features[k] * kLanes];
}

/// Derivatives of the features from those of the moments.
__global__ void __launch_bounds__(kWarps* kLanes)
    tangent_kernel(ProductTables p, int num_rows, const double* all, double* all_tangents, double* features,
                   int stride) {
  const int row = static_cast<int>(blockIdx.x) * kLanes + static_cast<int>(lane_number());
  const double* const nodes = all + node_place(row, 0, p.num_nodes);
  double* const tangents = all_tangents + node_place(row, 0, p.num_nodes);
  sum_terms(p, row < num_rows, 0.0, tangents,
            [=](int a, int b) { return tangents[a] * nodes[b] + nodes[a] * tangents[b]; });
  const double scale = scale_of(p, nodes);
  const double along =
      share_of_features(p, nodes, scale, [&](int k) { return tangents[p.features[k] * kLanes]; });
  if (row >= num_rows) return;
  double* const out = features + static_cast<std::size_t>(row) * stride;
  for (int k = warp_of_block(); k < p.num_features; k += kWarps)
    out[k] = scale * (tangents[p.features[k] * kLanes] - along * nodes[p.features[k] * kLanes]);
}

/// dE/d(node) of one node, after those of the targets that it is a factor of; `direct` is that of the node as
/// a feature.
__device__ inline double adjoint_of(const ProductTables& p, int node, double direct, const double* nodes,
                                    const double* adjoints) {
  double sum = direct;
  for (int u = p.first_use[node]; u < p.first_use[node + 1]; ++u) {
    const Product use = p.uses[u];
    sum += use.c * adjoints[use.a * kLanes] * nodes[use.b * kLanes];
  }
  return sum;
}

__global__ void __launch_bounds__(kWarps* kLanes)
    reverse_kernel(ProductTables p, int num_rows, const double* all, double* all_adjoints,
                   const double* cotangents, int stride) {
  const int row = static_cast<int>(blockIdx.x) * kLanes + static_cast<int>(lane_number());
  const bool has_row = row < num_rows;
  const double* const nodes = all + node_place(row, 0, p.num_nodes);
  double* const adjoints = all_adjoints + node_place(row, 0, p.num_nodes);
  const double* const own = cotangents + static_cast<std::size_t>(row) * stride;
  const double scale = scale_of(p, nodes);
  const double along = share_of_features(p, nodes, scale, [&](int k) { return has_row ? own[k] : 0.0; });
  const auto find = [&](int node) {
    const int feature = p.feature_of[node];
    const double direct =
        feature >= 0 && has_row ? (own[feature] - along * nodes[node * kLanes]) * scale : 0.0;
    adjoints[node * kLanes] = adjoint_of(p, node, direct, nodes, adjoints);
  };
  for (int part = p.num_parts - 1; part >= 0; --part) {
    for (int target = p.parts[part] + warp_of_block(); target < p.parts[part + 1]; target += kWarps)
      find(p.first_target + target);
    __syncthreads();
  }
  for (int node = 1 + warp_of_block(); node < p.first_target; node += kWarps) find(node);
}

unsigned blocks_of(int num_rows) {
  return static_cast<unsigned>((num_rows + kLanes - 1) / kLanes);
}

}  // namespace

ProductUses::ProductUses(const nearsight::ace::Products& given, Span<const int> features)
    : parts{0}, first_use{0}, feature_of(given.num_nodes, -1) {
  // A part ends before the first target that needs one of its own.
  std::vector<std::vector<Product>> of_nodes(given.num_nodes);
  for (int target = 0; target < given.num_targets; ++target)
    for (int t = given.first[target]; t < given.first[target + 1]; ++t) {
      const Product& term = given.terms[t];
      if (std::max(term.a, term.b) >= given.first_target + parts.back() && parts.back() < target)
        parts.push_back(target);
      of_nodes[term.a].push_back({given.first_target + target, term.b, term.c});
      of_nodes[term.b].push_back({given.first_target + target, term.a, term.c});
    }
  parts.push_back(given.num_targets);
  for (const auto& of_node : of_nodes) {
    uses.insert(uses.end(), of_node.begin(), of_node.end());
    first_use.push_back(static_cast<int>(uses.size()));
  }
  for (std::size_t k = 0; k < features.size(); ++k) feature_of[features[k]] = static_cast<int>(k);
}

Products::Products(const Stream& stream, const nearsight::ace::Definition& d) {
  const nearsight::ace::Products given = d.products();
  const ProductUses more(given, d.features);
  tables_ = {given.first_target,
             given.num_nodes,
             static_cast<int>(more.parts.size()) - 1,
             static_cast<int>(d.features.size()),
             device_.keep(stream, more.parts),
             device_.keep(stream, d.first_term),
             device_.keep(stream, d.terms),
             device_.keep(stream, more.first_use),
             device_.keep(stream, more.uses),
             device_.keep(stream, d.features),
             device_.keep(stream, more.feature_of),
             d.normalize};
}

void Products::forward(const Stream& stream, int num_rows, double* features, int stride) {
  launch(stream, {dim3(blocks_of(num_rows)), dim3(kWarps * kLanes)}, forward_kernel, tables_, num_rows,
         nodes_.data(), features, stride);
}

void Products::tangent(const Stream& stream, int num_rows, double* features, int stride) {
  launch(stream, {dim3(blocks_of(num_rows)), dim3(kWarps * kLanes)}, tangent_kernel, tables_, num_rows,
         nodes_.data(), tangents_.data(), features, stride);
}

const double* Products::reverse(const Stream& stream, int num_rows, const double* cotangents, int stride) {
  double* const adjoints = adjoints_.resize(size(num_rows));
  launch(stream, {dim3(blocks_of(num_rows)), dim3(kWarps * kLanes)}, reverse_kernel, tables_, num_rows,
         nodes_.data(), adjoints, cotangents, stride);
  return adjoints;
}

}  // namespace ace
}  // namespace cuda
}  // namespace nearsight
