// Twin of core's products of moments for training on a GPU: 32 centers in the lanes of a block, whose warps
// share the nodes, as for evaluation (cuda/models/ace/products.cu). Of a center with t terms 2 t
// multiply-adds for the values, 4 t more for their reverse, and 12 t for second derivatives.
#include "cuda/device.hpp"
#include "cuda/models/ace/products.hpp"
#include "cuda/training/descriptors.hpp"
#include "cuda/training/work.hpp"

namespace nearsight {
namespace cuda {
namespace training {

using ace::Product;
using ace::ProductTables;

namespace {

constexpr int kLanes = static_cast<int>(kWarp);
constexpr int kWarps = 8;  // of a block

/// Arrays of the nodes, [blocks of centers][nodes][kLanes], and of the centers.
struct Moments {
  ProductTables tables;
  int num_centers, num_moments;
  const double* moments;
  double *nodes, *adjoints, *tangents, *curvatures;
};

/// A block's part of the work.
struct Group {
  const Moments& m;
  int center, warp;

  __device__ explicit Group(const Moments& moments)
      : m(moments),
        center(static_cast<int>(blockIdx.x) * kLanes + static_cast<int>(lane_number())),
        warp(static_cast<int>(threadIdx.x / kWarp)) {}

  __device__ bool has_center() const { return center < m.num_centers; }
  /// This lane's numbers in an array of the nodes; that of node n is at [n * kLanes].
  __device__ double* column(double* array) const {
    return array + ace::node_place(center, 0, m.tables.num_nodes);
  }

  /// Node 0, which is `one`, and the moments.
  __device__ void load(const double* rows, double one, double* nodes) const {
    if (warp == 0) nodes[0] = has_center() ? one : 0.0;
    for (int k = warp; k < m.num_moments; k += kWarps)
      nodes[(1 + k) * kLanes] =
          has_center() ? rows[static_cast<std::size_t>(center) * m.num_moments + k] : 0.0;
    __syncthreads();
  }
  __device__ void store_moments(const double* nodes, double* rows) const {
    for (int k = warp; has_center() && k < m.num_moments; k += kWarps)
      rows[static_cast<std::size_t>(center) * m.num_moments + k] = nodes[(1 + k) * kLanes];
  }
  __device__ void store_features(const double* nodes, double* rows) const {
    for (int k = warp; has_center() && k < m.tables.num_features; k += kWarps)
      rows[static_cast<std::size_t>(center) * m.tables.num_features + k] =
          nodes[m.tables.features[k] * kLanes];
  }

  /// nodes[target] = Σ over its terms of of_term(term).
  template <class OfTerm>
  __device__ void upward(double* nodes, const OfTerm& of_term) const {
    const ProductTables& p = m.tables;
    for (int part = 0; part < p.num_parts; ++part) {
      for (int target = p.parts[part] + warp; target < p.parts[part + 1]; target += kWarps) {
        double sum = 0.0;
        for (int t = p.first[target]; t < p.first[target + 1]; ++t) sum += of_term(p.terms[t]);
        nodes[(p.first_target + target) * kLanes] = sum;
      }
      __syncthreads();
    }
  }
  /// adjoints[node] = direct(node) + Σ over its uses of of_use(use), after the targets that use it.
  template <class Direct, class OfUse>
  __device__ void downward(double* adjoints, const Direct& direct, const OfUse& of_use) const {
    const ProductTables& p = m.tables;
    const auto find = [&](int node) {
      double sum = direct(node);
      for (int u = p.first_use[node]; u < p.first_use[node + 1]; ++u) sum += of_use(p.uses[u]);
      adjoints[node * kLanes] = sum;
    };
    for (int part = p.num_parts - 1; part >= 0; --part) {
      for (int target = p.parts[part] + warp; target < p.parts[part + 1]; target += kWarps)
        find(p.first_target + target);
      __syncthreads();
    }
    for (int node = 1 + warp; node < p.first_target; node += kWarps) find(node);
    __syncthreads();
  }

  __device__ const double* values() const {
    double* const nodes = column(m.nodes);
    load(m.moments, 1.0, nodes);
    upward(nodes, [&](const Product& t) { return t.c * nodes[t.a * kLanes] * nodes[t.b * kLanes]; });
    return nodes;
  }
  __device__ const double* reverse(const double* nodes, const double* cotangents) const {
    double* const adjoints = column(m.adjoints);
    const auto direct = [&](int node) {
      const int feature = m.tables.feature_of[node];
      return feature >= 0 && has_center()
                 ? cotangents[static_cast<std::size_t>(center) * m.tables.num_features + feature]
                 : 0.0;
    };
    downward(adjoints, direct,
             [&](const Product& use) { return use.c * adjoints[use.a * kLanes] * nodes[use.b * kLanes]; });
    return adjoints;
  }
};

__global__ void __launch_bounds__(kWarps* kLanes) forward_kernel(Moments moments, double* output) {
  const Group group(moments);
  group.store_features(group.values(), output);
}

__global__ void __launch_bounds__(kWarps* kLanes)
    reverse_kernel(Moments moments, const double* cotangents, double* output) {
  const Group group(moments);
  const double* const nodes = group.values();
  group.store_moments(group.reverse(nodes, cotangents), output);
}

__global__ void __launch_bounds__(kWarps* kLanes)
    second_kernel(Moments moments, const double* cotangents, const double* directions, double* of_cotangents,
                  double* of_moments) {
  const Group group(moments);
  const double* const nodes = group.values();
  double* const tangents = group.column(moments.tangents);
  group.load(directions, 0.0, tangents);
  group.upward(tangents, [&](const Product& t) {
    return t.c *
           (tangents[t.a * kLanes] * nodes[t.b * kLanes] + nodes[t.a * kLanes] * tangents[t.b * kLanes]);
  });
  group.store_features(tangents, of_cotangents);
  const double* const adjoints = group.reverse(nodes, cotangents);
  double* const curvatures = group.column(moments.curvatures);
  group.downward(
      curvatures, [](int) { return 0.0; },
      [&](const Product& use) {
        return use.c * (curvatures[use.a * kLanes] * nodes[use.b * kLanes] +
                        adjoints[use.a * kLanes] * tangents[use.b * kLanes]);
      });
  group.store_moments(curvatures, of_moments);
}

/// Tables and so many arrays of nodes in memory of the device.
Moments on_device(Work& work, const MomentProducts& given, int arrays) {
  const nearsight::ace::Products& products = given.products;
  const ace::ProductUses more(products, given.features);
  Moments m{};
  m.tables = {products.first_target,
              products.num_nodes,
              static_cast<int>(more.parts.size()) - 1,
              static_cast<int>(given.features.size()),
              work.copied(more.parts),
              work.copied(products.first, products.num_targets + 1),
              work.copied(products.terms, products.first[products.num_targets]),
              work.copied(more.first_use),
              work.copied(more.uses),
              work.copied(given.features.data(), given.features.size()),
              work.copied(more.feature_of),
              false};
  m.num_centers = static_cast<int>(given.num_centers);
  m.num_moments = static_cast<int>(given.num_moments);
  m.moments = given.moments;
  const std::size_t size =
      (given.num_centers + kLanes - 1) / kLanes * kLanes * static_cast<std::size_t>(products.num_nodes);
  double** const all[] = {&m.nodes, &m.adjoints, &m.tangents, &m.curvatures};
  for (int n = 0; n < arrays; ++n) *all[n] = work.take<double>(size);
  return m;
}

Grid grid_of(const MomentProducts& given) {
  return {dim3(static_cast<unsigned>((given.num_centers + kLanes - 1) / kLanes)), dim3(kWarps * kLanes)};
}

}  // namespace

void products_forward(DeviceScope& scope, const MomentProducts& given, double* output) {
  Work work(scope);
  launch(work.stream, grid_of(given), forward_kernel, on_device(work, given, 1), output);
}

void products_reverse(DeviceScope& scope, const MomentProducts& given, const double* cotangents,
                      double* output) {
  Work work(scope);
  launch(work.stream, grid_of(given), reverse_kernel, on_device(work, given, 2), cotangents, output);
}

void products_second(DeviceScope& scope, const MomentProducts& given, const double* cotangents,
                     const double* directions, double* of_cotangents, double* of_moments) {
  Work work(scope);
  launch(work.stream, grid_of(given), second_kernel, on_device(work, given, 4), cotangents, directions,
         of_cotangents, of_moments);
}

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
