// Sums over edges of the later layers, and what they give back to the sources.
#include "cuda/models/mace/path_kernels.hpp"

namespace nearsight {
namespace cuda {
namespace mace {
namespace {

constexpr int kChunk = 8;  // edges at a time

/// Blocks: rows, blocks of channels. A of its path stays in a warp's registers over the edges.
template <class T, int vector>
__global__ void __launch_bounds__(kWarp* kMaxPathWarps, kPathBlocks<T>) sum_paths(PathWork<T> w, T* sums) {
  T* shared = dynamic_shared<T>();
  StagedEdges<T, kChunk> staged(w, false, shared);
  const int row = blockIdx.x, atom = w.edges.first_row + row, count = w.edges.counts[atom];
  const std::int64_t begin = w.edges.begin(atom);
  const int warps = blockDim.x / kWarp, channel = (blockIdx.y * kWarp + lane_number()) * vector;
  for (int group = 0; group < w.num_paths; group += warps) {
    const int number = group + threadIdx.x / kWarp;
    const bool works = number < w.num_paths;
    const PathTable& path = w.paths[works ? number : 0];
    Pack<T, vector> found[kMaxN3];
#pragma unroll
    for (int m3 = 0; m3 < kMaxN3; ++m3) found[m3] = zeros<T, vector>();
    for (int first = 0; first < count; first += kChunk) {
      __syncthreads();
      staged.fill(w, w.phi, begin, count, first, 0x7fffffff);
      if (!works) continue;
      Pack<T, vector> radial[kChunk];
      radial_of<T, vector, kChunk>(w, staged, number, channel, radial);
      for_degrees(path.l1, path.l3, [&](auto n1, auto n3) {
        constexpr int size1 = decltype(n1)::value, size3 = decltype(n3)::value;
#pragma unroll
        for (int e = 0; e < kChunk; ++e) {
          const T* const u = w.sources + static_cast<std::int64_t>(staged.neighbors[e]) * w.source_width +
                             path.feature * w.channels + channel;
          const PathPhi<T, size1 * size3> phi(staged.phi + e * w.num_phi + path.phi);
#pragma unroll
          for (int m1 = 0; m1 < size1; ++m1) {
            Pack<T, vector> source = load<T, vector>(u + m1 * w.channels);
#pragma unroll
            for (int v = 0; v < vector; ++v) {
              source.at[v] *= radial[e].at[v];
#pragma unroll
              for (int m3 = 0; m3 < size3; ++m3) found[m3].at[v] += phi.at[m3 * size1 + m1] * source.at[v];
            }
          }
        }
      });
    }
    if (!works) continue;
    T* const to = sums + static_cast<std::int64_t>(row) * w.sums_width + path.sums * w.channels + channel;
#pragma unroll
    for (int m3 = 0; m3 < kMaxN3; ++m3)
      if (m3 <= 2 * path.l3) store(to + m3 * path.sums_step * w.channels, found[m3]);
  }
}

/// Blocks: rows of the sources, blocks of channels. Every path's part stays in its warp's registers over the
/// edges; those of the paths from the same irrep are added in shared memory.
template <class T, int vector>
__global__ void __launch_bounds__(kWarp* kMaxPathWarps, kPathBlocks<T>)
    gather_sources(PathWork<T> w, const T* of_sums, int num_receivers, T* of_sources) {
  constexpr int across = kWarp * vector;  // channels of the block
  T* shared = dynamic_shared<T>();
  StagedEdges<T, kChunk> staged(w, false, shared);
  const int atom = w.edges.first_row + blockIdx.x, count = w.edges.counts[atom];
  const std::int64_t begin = w.edges.begin(atom);
  const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp, components = w.source_width / w.channels;
  const int channel = blockIdx.y * across + lane_number() * vector;
  T* const parts = shared;                           // [warps][kMaxN1][across]
  T* const total = parts + warps * kMaxN1 * across;  // [components][across]
  for (int k = threadIdx.x; k < components * across; k += blockDim.x) total[k] = 0;
  for (int group = 0; group < w.num_paths; group += warps) {
    const int number = group + warp;
    const bool works = number < w.num_paths;
    const PathTable& path = w.paths[works ? number : 0];
    Pack<T, vector> found[kMaxN1];
#pragma unroll
    for (int m1 = 0; m1 < kMaxN1; ++m1) found[m1] = zeros<T, vector>();
    for (int first = 0; first < count; first += kChunk) {
      __syncthreads();
      staged.fill(w, w.phi_behind, begin, count, first, num_receivers);
      if (!works) continue;
      Pack<T, vector> radial[kChunk];
      radial_of<T, vector, kChunk>(w, staged, number, channel, radial);
      for_degrees(path.l1, path.l3, [&](auto n1, auto n3) {
        constexpr int size1 = decltype(n1)::value, size3 = decltype(n3)::value;
#pragma unroll
        for (int e = 0; e < kChunk; ++e) {
          const T* const from = of_sums + static_cast<std::int64_t>(staged.neighbors[e]) * w.sums_width +
                                path.sums * w.channels + channel;
          const PathPhi<T, size1 * size3> phi(staged.phi + e * w.num_phi + path.phi);
#pragma unroll
          for (int m3 = 0; m3 < size3; ++m3) {
            Pack<T, vector> given = load<T, vector>(from + m3 * path.sums_step * w.channels);
#pragma unroll
            for (int v = 0; v < vector; ++v) {
              given.at[v] *= radial[e].at[v];
#pragma unroll
              for (int m1 = 0; m1 < size1; ++m1) found[m1].at[v] += phi.at[m3 * size1 + m1] * given.at[v];
            }
          }
        }
      });
    }
#pragma unroll
    for (int m1 = 0; m1 < kMaxN1; ++m1)
      if (works && m1 <= 2 * path.l1)
        store(parts + (warp * kMaxN1 + m1) * across + lane_number() * vector, found[m1]);
    __syncthreads();
    for (int k = threadIdx.x; k < components * across; k += blockDim.x) {
      const int component = k / across, place = k % across;
      for (int other = 0; other < warps && group + other < w.num_paths; ++other) {
        const PathTable one = w.paths[group + other];
        const int m1 = component - one.feature;
        if (m1 >= 0 && m1 <= 2 * one.l1) total[k] += parts[(other * kMaxN1 + m1) * across + place];
      }
    }
    __syncthreads();
  }
  for (int k = threadIdx.x; k < components * across; k += blockDim.x)
    of_sources[static_cast<std::int64_t>(atom) * w.source_width + k / across * w.channels +
               blockIdx.y * across + k % across] = total[k];
}

template <class T, int vector>
Grid grid_of(const PathWork<T>& w) {
  const int warps = w.num_paths < kMaxPathWarps ? w.num_paths : kMaxPathWarps;
  return {dim3(w.rows, w.channels / (kWarp * vector)), dim3(kWarp * warps),
          StagedEdges<T, kChunk>::size(w, false) * sizeof(T)};
}

}  // namespace

template <class T>
void path_sums(const Stream& stream, const PathWork<T>& w, T* sums) {
  for_vectors(w, [&](auto vector) {
    constexpr int size = decltype(vector)::value;
    launch(stream, grid_of<T, size>(w), sum_paths<T, size>, w, sums);
  });
}

template <class T>
void path_sources_reverse(const Stream& stream, const PathWork<T>& w, const T* of_sums, int num_receivers,
                          T* of_sources) {
  for_vectors(w, [&](auto vector) {
    constexpr int size = decltype(vector)::value;
    Grid grid = grid_of<T, size>(w);
    grid.shared_bytes += (grid.threads.x * kMaxN1 + kWarp * (w.source_width / w.channels)) * size * sizeof(T);
    launch(stream, grid, gather_sources<T, size>, w, of_sums, num_receivers, of_sources);
  });
}

#define NEARSIGHT_PATHS(T)                                        \
  template void path_sums(const Stream&, const PathWork<T>&, T*); \
  template void path_sources_reverse(const Stream&, const PathWork<T>&, const T*, int, T*);
NEARSIGHT_PATHS(float)
NEARSIGHT_PATHS(double)
#undef NEARSIGHT_PATHS

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
