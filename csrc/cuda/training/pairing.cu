// Twin of core/models/equivariant/pairing.cpp on a GPU: a warp for every center.
#include "cuda/device.hpp"
#include "cuda/training/edges.hpp"
#include "cuda/training/groups.hpp"

namespace nearsight {
namespace cuda {
namespace training {
namespace {

constexpr double kSame = 1e-6;  // Å; images of an atom are much further apart

struct EdgeList {
  std::int64_t num_atoms;
  const std::int64_t *offsets, *neighbors;
  const double* vectors;
};

/// The edge that leads back along each edge, or -1.
__global__ void find_opposites(EdgeList edges, std::int32_t* opposites) {
  const auto center = static_cast<std::int64_t>(warp_number());
  if (center >= edges.num_atoms) return;
  for (std::int64_t e = edges.offsets[center] + lane_number(); e < edges.offsets[center + 1]; e += kWarp) {
    const double* const v = edges.vectors + 3 * e;
    const std::int64_t neighbor = edges.neighbors[e];
    std::int64_t found = -1;
    for (std::int64_t k = edges.offsets[neighbor]; found < 0 && k < edges.offsets[neighbor + 1]; ++k) {
      const double* const w = edges.vectors + 3 * k;
      if (edges.neighbors[k] == center && k != e &&
          std::fabs(v[0] + w[0]) + std::fabs(v[1] + w[1]) + std::fabs(v[2] + w[2]) < kSame)
        found = k;
    }
    opposites[e] = static_cast<std::int32_t>(found);
  }
}

/// Whether an edge is the first of its pair, which may be the only one.
__device__ inline bool is_first(const std::int32_t* opposites, std::int64_t edge) {
  const std::int32_t other = opposites[edge];
  return other < 0 || edge < other || opposites[other] != edge;
}

__global__ void count_firsts(EdgeList edges, const std::int32_t* opposites, std::int32_t* counts) {
  const auto center = static_cast<std::int64_t>(warp_number());
  if (center >= edges.num_atoms) return;
  int count = 0;
  for (std::int64_t base = edges.offsets[center]; base < edges.offsets[center + 1]; base += kWarp) {
    const std::int64_t e = base + lane_number();
    count += __popc(__ballot_sync(kAllLanes, e < edges.offsets[center + 1] && is_first(opposites, e)));
  }
  if (lane_number() == 0) counts[center] = count;
}

/// New places of the edges of each center; numbers of the pairs, by their first edge.
__global__ void place_edges(EdgeList edges, const std::int32_t* opposites, const std::int64_t* first_pairs,
                            std::int64_t* order, std::int64_t* middles, std::int64_t* firsts,
                            std::int32_t* numbers) {
  const auto center = static_cast<std::int64_t>(warp_number());
  if (center >= edges.num_atoms) return;
  const std::int64_t begin = edges.offsets[center], end = edges.offsets[center + 1];
  const std::int64_t first_pair = first_pairs[center];
  const std::int64_t middle = begin + first_pairs[center + 1] - first_pair;
  const unsigned below = (1u << lane_number()) - 1;
  int num_firsts = 0, num_seconds = 0;
  for (std::int64_t base = begin; base < end; base += kWarp) {
    const std::int64_t e = base + lane_number();
    const bool first = e < end && is_first(opposites, e);
    const unsigned who = __ballot_sync(kAllLanes, first),
                   others = __ballot_sync(kAllLanes, e < end && !first);
    if (first) {
      const int rank = num_firsts + __popc(who & below);
      order[begin + rank] = e;
      firsts[first_pair + rank] = begin + rank;
      numbers[e] = static_cast<std::int32_t>(first_pair + rank);
    } else if (e < end) {
      order[middle + num_seconds + __popc(others & below)] = e;
    }
    num_firsts += __popc(who), num_seconds += __popc(others);
  }
  if (lane_number() == 0) middles[center] = middle;
}

__global__ void number_edges(std::int64_t num_edges, const std::int64_t* order, const std::int32_t* opposites,
                             const std::int32_t* numbers, std::int32_t* pairs) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n >= num_edges) return;
  const std::int64_t e = order[n];
  pairs[n] = numbers[is_first(opposites, e) ? e : opposites[e]];
}

}  // namespace

void pair_edges(DeviceScope& scope, std::int64_t num_atoms, std::int64_t num_edges,
                const std::int64_t* offsets, const std::int64_t* neighbors, const double* vectors,
                std::int64_t* order, std::int64_t* middles, std::int32_t* pairs, std::int64_t* firsts,
                std::int64_t* count) {
  Work work(scope);
  const EdgeList edges{num_atoms, offsets, neighbors, vectors};
  auto* const opposites = work.take<std::int32_t>(num_edges);
  auto* const numbers = work.take<std::int32_t>(num_edges);
  auto* const counts = work.take<std::int32_t>(num_atoms);
  auto* const first_pairs = work.take<std::int64_t>(num_atoms + 1);
  launch(work.stream, warp_each(num_atoms), find_opposites, edges, opposites);
  launch(work.stream, warp_each(num_atoms), count_firsts, edges, opposites, counts);
  add_up(work.stream, counts, num_atoms, first_pairs);
  launch(work.stream, warp_each(num_atoms), place_edges, edges, opposites, first_pairs, order, middles,
         firsts, numbers);
  launch(work.stream, one_each(num_edges), number_edges, num_edges, order, opposites, numbers, pairs);
  copy_on_device(work.stream, count, first_pairs + num_atoms, sizeof(*count));
}

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
