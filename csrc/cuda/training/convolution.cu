// Twin of core/models/equivariant/convolution_kernels.hpp for training on a GPU.
#include "cuda/training/convolution.hpp"
#include "cuda/training/convolution_kernels.hpp"
#include "cuda/training/groups.hpp"

namespace nearsight {
namespace cuda {
namespace training {
namespace {

constexpr int kMostRows = 7;  // of a piece

/// A warp for every center: its number for each of its edges, and these as the first or second of a pair.
__global__ void list_edges(equivariant::Neighborhoods graph, std::int32_t* centers, std::int32_t* of_pairs) {
  const auto center = static_cast<std::int64_t>(warp_number());
  if (center >= graph.num_atoms) return;
  for (std::int64_t e = graph.offsets[center] + lane_number(); e < graph.offsets[center + 1]; e += kWarp) {
    centers[e] = static_cast<std::int32_t>(center);
    of_pairs[2 * graph.pairs[e] + (e < graph.middles[center] ? 0 : 1)] = static_cast<std::int32_t>(e);
  }
}

/// distances[pair] from those of its edges.
__global__ void add_pairs(std::int64_t num_pairs, const std::int32_t* of_pairs, const double* of_edges,
                          double* distances) {
  const auto pair = static_cast<std::int64_t>(thread_number());
  if (pair >= num_pairs) return;
  const std::int32_t first = of_pairs[2 * pair], second = of_pairs[2 * pair + 1];
  distances[pair] = (first < 0 ? 0.0 : of_edges[first]) + (second < 0 ? 0.0 : of_edges[second]);
}

/// A convolution at work.
template <class T>
class Sums {
 public:
  Sums(DeviceScope& scope, const Convolution<T>& c) : work_(scope) {
    problem_.c = c;
    problem_.paths = work_.copied(c.paths, c.num_paths);
    std::vector<Piece> rows, sources;
    std::vector<char> seen(c.components, 0);
    for (int n = 0; n < c.num_paths; ++n) {
      const Path& path = c.paths[n];
      for_pieces(path.s3, n, rows);
      if (!seen[path.component]) for_pieces(path.s1, path.component, sources);
      seen[path.component] = 1;
    }
    problem_.num_pieces = static_cast<int>(rows.size());
    problem_.num_source_pieces = static_cast<int>(sources.size());
    problem_.pieces = work_.copied(rows);
    problem_.source_pieces = work_.copied(sources);
    problem_.phi = phi_of(c.harmonics);
    if (c.harmonic_tangents) problem_.phi_tangents = phi_of(c.harmonic_tangents);
  }

  template <bool kTangent>
  void to_centers() {
    launch(work_.stream, each(problem_.c.graph.num_atoms * problem_.num_pieces), sum_to_centers<T, kTangent>,
           problem_);
  }
  template <bool kTangent>
  void to_sources(T* adjoints) {
    const equivariant::Neighborhoods& graph = problem_.c.graph;
    const Groups incoming = group(work_, graph.neighbors, graph.num_edges, graph.num_atoms);
    problem_.incoming_offsets = incoming.offsets;
    problem_.incoming = incoming.members;
    launch(work_.stream, each(graph.num_atoms * problem_.num_source_pieces), sum_to_sources<T, kTangent>,
           problem_, adjoints);
  }
  template <bool kTangent>
  void to_pairs() {
    launch(work_.stream, each(problem_.c.graph.num_pairs * problem_.c.num_paths), sum_to_pairs<T, kTangent>,
           problem_);
  }
  void to_geometry() {
    const Convolution<T>& c = problem_.c;
    T* const phi = work_.take<T>(c.graph.num_edges * c.num_phi);
    double* const by_edges = work_.take<double>(c.graph.num_edges);
    launch(work_.stream, warp_each(c.graph.num_edges), of_edges<T>, problem_, phi, by_edges);
    launch(work_.stream, one_each(c.graph.num_edges * c.num_harmonics), sum_phi<T>, c.graph.num_edges,
           c.num_phi, c.num_harmonics, phi, c.dense, c.harmonic_adjoints);
    launch(work_.stream, one_each(c.graph.num_pairs), add_pairs, c.graph.num_pairs, problem_.edges_of_pairs,
           by_edges, c.distance_adjoints);
  }

  /// Which all but convolve() need.
  void list() {
    const equivariant::Neighborhoods& graph = problem_.c.graph;
    auto* const centers = work_.take<std::int32_t>(graph.num_edges);
    auto* const of_pairs = work_.take_filled<std::int32_t>(2 * graph.num_pairs, 0xff);
    launch(work_.stream, warp_each(graph.num_atoms), list_edges, graph, centers, of_pairs);
    problem_.centers = centers;
    problem_.edges_of_pairs = of_pairs;
  }

 private:
  Grid each(std::int64_t units) const { return one_each(units * problem_.lanes(), 128); }

  static void for_pieces(int size, int path, std::vector<Piece>& pieces) {
    for (int first = 0; first < size;) {
      int count = size - first < kMostRows ? size - first : kMostRows;
      count -= count % 2 == 0;  // an odd number, as the kernels are compiled for
      pieces.push_back({path, first, count});
      first += count;
    }
  }

  const T* phi_of(const T* harmonics) {
    const Convolution<T>& c = problem_.c;
    T* const phi = work_.take<T>(c.graph.num_edges * c.num_phi);
    launch(work_.stream, one_each(c.graph.num_edges * c.num_phi), make_phi<T>, c.graph.num_edges, c.num_phi,
           c.num_harmonics, harmonics, c.dense, phi);
    return phi;
  }

  Work work_;
  Problem<T> problem_{};
};

}  // namespace

template <class T>
void convolve(DeviceScope& scope, const Convolution<T>& c) {
  Sums<T>(scope, c).template to_centers<false>();
}

template <class T>
void by_geometry(DeviceScope& scope, const Convolution<T>& c, T* source_adjoints) {
  Sums<T> sums(scope, c);
  sums.list();
  sums.to_geometry();
  if (source_adjoints) sums.template to_sources<false>(source_adjoints);
}

template <class T>
void by_parameters(DeviceScope& scope, const Convolution<T>& c, T* source_adjoints) {
  Sums<T> sums(scope, c);
  sums.list();
  sums.template to_pairs<false>();
  sums.template to_sources<false>(source_adjoints);
}

template <class T>
void of_tangent(DeviceScope& scope, const Convolution<T>& c, T* source_adjoints) {
  Sums<T> sums(scope, c);
  sums.list();
  sums.template to_centers<true>();
  sums.template to_pairs<true>();
  sums.template to_sources<true>(source_adjoints);
}

#define NEARSIGHT_CONVOLUTION(T)                                        \
  template void convolve(DeviceScope&, const Convolution<T>&);          \
  template void by_geometry(DeviceScope&, const Convolution<T>&, T*);   \
  template void by_parameters(DeviceScope&, const Convolution<T>&, T*); \
  template void of_tangent(DeviceScope&, const Convolution<T>&, T*);
NEARSIGHT_CONVOLUTION(float)
NEARSIGHT_CONVOLUTION(double)

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
