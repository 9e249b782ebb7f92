// Forces and virials from the gradients of the edges, and the transpose, on a GPU. A warp for every atom sums
// over the edges from it and to it, a block for every frame over its atoms; both read 24 bytes of an edge
// twice and its vector once.
#include "cuda/device.hpp"
#include "cuda/reduce.hpp"
#include "cuda/training/edges.hpp"
#include "cuda/training/groups.hpp"

namespace nearsight {
namespace cuda {
namespace training {

using equivariant::FrameEdges;

namespace {

constexpr unsigned kFrameThreads = 256;
constexpr int kUnique = 6;  // elements of a symmetric matrix: xx, xy, xz, yy, yz, zz

/// forces [atoms][3], and Σ (r g' + g r') / 2 over the edges from each atom, [atoms][kUnique].
__global__ void sum_edges(FrameEdges edges, Groups outgoing, Groups incoming, const double* gradients,
                          double* forces, double* moments) {
  const auto atom = static_cast<std::int64_t>(warp_number());
  if (atom >= edges.num_atoms) return;
  double f[3] = {}, w[kUnique] = {};
  for (std::int64_t n = outgoing.offsets[atom] + lane_number(); n < outgoing.offsets[atom + 1]; n += kWarp) {
    const std::int64_t e = outgoing.members[n];
    const double *const g = gradients + 3 * e, *const r = edges.vectors + 3 * e;
    int place = 0;
    NEARSIGHT_UNROLL for (int a = 0; a < 3; ++a) {
      f[a] += g[a];
      NEARSIGHT_UNROLL for (int b = a; b < 3; ++b) w[place++] += 0.5 * (r[a] * g[b] + g[a] * r[b]);
    }
  }
  for (std::int64_t n = incoming.offsets[atom] + lane_number(); n < incoming.offsets[atom + 1]; n += kWarp) {
    const double* const g = gradients + 3 * static_cast<std::int64_t>(incoming.members[n]);
    NEARSIGHT_UNROLL for (int a = 0; a < 3; ++a) f[a] -= g[a];
  }
  NEARSIGHT_UNROLL for (int a = 0; a < 3; ++a) {
    f[a] = warp_sum(f[a]);
    if (lane_number() == 0) forces[3 * atom + a] = f[a];
  }
  NEARSIGHT_UNROLL for (int n = 0; n < kUnique; ++n) {
    w[n] = warp_sum(w[n]);
    if (lane_number() == 0) moments[kUnique * atom + n] = w[n];
  }
}

/// The first atom whose frame is not before this one.
__device__ inline std::int64_t begin_of(const FrameEdges& edges, std::int64_t frame) {
  std::int64_t low = 0, high = edges.num_atoms;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (edges.frames[middle] < frame)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

__global__ void sum_atoms(FrameEdges edges, const double* moments, double* virials) {
  __shared__ double of_warps[kUnique][kFrameThreads / kWarp];
  const std::int64_t frame = blockIdx.x, end = begin_of(edges, frame + 1);
  double w[kUnique] = {};
  for (std::int64_t atom = begin_of(edges, frame) + threadIdx.x; atom < end; atom += kFrameThreads)
    NEARSIGHT_UNROLL for (int n = 0; n < kUnique; ++n) w[n] += moments[kUnique * atom + n];
  NEARSIGHT_UNROLL for (int n = 0; n < kUnique; ++n) {
    w[n] = warp_sum(w[n]);
    if (lane_number() == 0) of_warps[n][threadIdx.x / kWarp] = w[n];
  }
  __syncthreads();
  if (threadIdx.x >= 9) return;
  const int row = static_cast<int>(threadIdx.x) / 3, column = static_cast<int>(threadIdx.x) % 3;
  const int a = row < column ? row : column, b = row < column ? column : row;
  double sum = 0.0;
  for (unsigned k = 0; k < kFrameThreads / kWarp; ++k) sum += of_warps[a * (5 - a) / 2 + b][k];
  virials[9 * frame + threadIdx.x] = -sum;
}

/// A thread for every edge.
__global__ void differences(FrameEdges edges, const double* forces, const double* virials,
                            double* gradients) {
  const auto e = static_cast<std::int64_t>(thread_number());
  if (e >= edges.num_edges) return;
  const std::int64_t center = edges.centers[e];
  const double* const r = edges.vectors + 3 * e;
  const double* const w = virials + 9 * edges.frames[center];
  NEARSIGHT_UNROLL for (int a = 0; a < 3; ++a) {
    double g = forces[3 * center + a] - forces[3 * edges.neighbors[e] + a];
    NEARSIGHT_UNROLL for (int b = 0; b < 3; ++b) g -= 0.5 * (w[3 * a + b] + w[3 * b + a]) * r[b];
    gradients[3 * e + a] = g;
  }
}

}  // namespace

void edge_sums(DeviceScope& scope, const FrameEdges& edges, const double* gradients, double* forces,
               double* virials) {
  Work work(scope);
  const Groups outgoing = group(work, edges.centers, edges.num_edges, edges.num_atoms);
  const Groups incoming = group(work, edges.neighbors, edges.num_edges, edges.num_atoms);
  auto* const moments = work.take<double>(kUnique * edges.num_atoms);
  launch(work.stream, warp_each(edges.num_atoms), sum_edges, edges, outgoing, incoming, gradients, forces,
         moments);
  const Grid grid{dim3(static_cast<unsigned>(edges.num_frames)), dim3(kFrameThreads)};
  launch(work.stream, grid, sum_atoms, edges, moments, virials);
}

void edge_differences(DeviceScope& scope, const FrameEdges& edges, const double* forces,
                      const double* virials, double* gradients) {
  const Work work(scope);
  launch(work.stream, one_each(edges.num_edges), differences, edges, forces, virials, gradients);
}

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
