// Adjoints of the edges of the later layers.
#include "cuda/models/mace/path_kernels.hpp"

namespace nearsight {
namespace cuda {
namespace mace {
namespace {

constexpr int kChunk = 4;  // edges at a time

/// Sums v[0 ... n - 1] over the lanes of a warp; every lane keeps the sums of a few of them. Lanes that are
/// `lanes` apart share the numbers out, then those that are half as far.
template <int n, int lanes, class T>
__device__ __forceinline__ void fold(T* v, unsigned lane) {
  if constexpr (lanes > 0) {
    constexpr int half = (n + 1) / 2;
    const bool upper = lane & lanes;
#pragma unroll
    for (int k = 0; k < half; ++k) {
      const T low = v[k], high = k + half < n ? v[k + half < n ? k + half : 0] : T(0);
      v[k] = (upper ? high : low) + __shfl_xor_sync(kAllLanes, upper ? low : high, lanes);
    }
    fold<half, lanes / 2>(v, lane);
  }
}
/// Which of the sums v[k] is after fold(), or -1.
template <int n, int lanes>
__device__ __forceinline__ int folded(unsigned lane, int k) {
  if constexpr (lanes > 0) {
    constexpr int half = (n + 1) / 2;
    const int inner = folded<half, lanes / 2>(lane, k);
    const int number = inner + (lane & lanes ? half : 0);
    return inner >= 0 && number < n ? number : -1;
  } else {
    return k < n ? k : -1;
  }
}
template <int n>
constexpr int kFolded = (n + static_cast<int>(kWarp) - 1) / static_cast<int>(kWarp);  // of one lane

/// Where the warps of a block leave what they find of the edges of a chunk: an item is a path and some
/// channels.
template <class T>
struct Found {
  T* phi;     // [blocks of channels][chunk][num_phi]
  T* slopes;  // [items][chunk]
};

/// One path and edge: from the channels of a lane to sums over all lanes.
template <class T, int vector, int n1, int n3>
__device__ __forceinline__ void reverse_edge(const T* u, int channels, const Pack<T, vector>* given,
                                             const Pack<T, vector>& radial, const Pack<T, vector>& change,
                                             const T* phi_from, T* of_phi, T* slope) {
  constexpr int count = n1 * n3 + 1;
  const PathPhi<T, n1 * n3> phi(phi_from);
  T found[count];
#pragma unroll
  for (int k = 0; k < count; ++k) found[k] = 0;
#pragma unroll
  for (int m1 = 0; m1 < n1; ++m1) {
    const Pack<T, vector> source = load<T, vector>(u + m1 * channels);
#pragma unroll
    for (int v = 0; v < vector; ++v) {
      const T product = radial.at[v] * source.at[v];
      T back = 0;
#pragma unroll
      for (int m3 = 0; m3 < n3; ++m3) {
        back += phi.at[m3 * n1 + m1] * given[m3].at[v];
        found[m3 * n1 + m1] += product * given[m3].at[v];
      }
      found[count - 1] += change.at[v] * source.at[v] * back;
    }
  }
  const unsigned lane = lane_number();
  fold<count, kWarp / 2>(found, lane);
#pragma unroll
  for (int k = 0; k < kFolded<count>; ++k) {
    const int number = folded<count, kWarp / 2>(lane, k);
    if (number == count - 1)
      *slope = found[k];
    else if (number >= 0)
      of_phi[number] = found[k];
  }
}

/// One item and all edges of the chunk.
template <class T, int vector>
__device__ __forceinline__ void reverse_item(const PathWork<T>& w, const StagedEdges<T, kChunk>& staged,
                                             int item, const T* of_sums, const Found<T>& found) {
  const int block = item / w.num_paths, number = item % w.num_paths;
  const int channel = (block * kWarp + lane_number()) * vector;
  const PathTable path = w.paths[number];
  Pack<T, vector> radial[kChunk], change[kChunk];
  radial_of<T, vector, kChunk>(w, staged, number, channel, radial, change);
  for_degrees(path.l1, path.l3, [&](auto n1, auto n3) {
    constexpr int size1 = decltype(n1)::value, size3 = decltype(n3)::value;
    Pack<T, vector> given[size3];
#pragma unroll
    for (int m3 = 0; m3 < size3; ++m3)
      given[m3] = load<T, vector>(of_sums + (path.sums + m3 * path.sums_step) * w.channels + channel);
#pragma unroll
    for (int e = 0; e < kChunk; ++e) {
      const T* const u = w.sources + static_cast<std::int64_t>(staged.neighbors[e]) * w.source_width +
                         path.feature * w.channels + channel;
      reverse_edge<T, vector, size1, size3>(
          u, w.channels, given, radial[e], change[e], staged.phi + e * w.num_phi + path.phi,
          found.phi + (block * kChunk + e) * w.num_phi + path.phi, found.slopes + item * kChunk + e);
    }
  });
}

/// Blocks: rows. Warps take paths and blocks of channels in turn, then threads add up what they have found.
template <class T, int vector>
__global__ void __launch_bounds__(kWarp* kMaxPathWarps, kPathBlocks<T>)
    reverse_edges(PathWork<T> w, const T* of_sums, EdgeAdjoints<T> target) {
  T* shared = dynamic_shared<T>();
  StagedEdges<T, kChunk> staged(w, true, shared);
  const int blocks = w.channels / (kWarp * vector), items = w.num_paths * blocks;
  const Found<T> found{shared, shared + blocks * kChunk * w.num_phi};
  const int row = blockIdx.x, atom = w.edges.first_row + row, count = w.edges.counts[atom];
  const std::int64_t begin = w.edges.begin(atom);
  const T* const of_row = of_sums + static_cast<std::int64_t>(row) * w.sums_width;
  for (int first = 0; first < count; first += kChunk) {
    staged.fill(w, w.phi, begin, count, first, 0x7fffffff);
    for (int item = threadIdx.x / kWarp; item < items; item += blockDim.x / kWarp)
      reverse_item<T, vector>(w, staged, item, of_row, found);
    __syncthreads();
    const int here = count - first < kChunk ? count - first : kChunk;
    for (int n = threadIdx.x; n < here * w.num_harmonics; n += blockDim.x) {
      const int e = n / w.num_harmonics, lm = n % w.num_harmonics;
      T sum = 0;
      for (int k = w.harmonics.first[lm]; k < w.harmonics.first[lm + 1]; ++k) {
        const CouplingTerm<T> term = w.harmonics.terms[k];
        for (int block = 0; block < blocks; ++block)
          sum += term.coefficient * found.phi[(block * kChunk + e) * w.num_phi + term.from];
      }
      target.harmonics[(begin + first) * w.num_harmonics + n] += sum;
    }
    for (int e = threadIdx.x; e < here; e += blockDim.x) {
      T sum = 0;
      for (int item = 0; item < items; ++item) sum += found.slopes[item * kChunk + e];
      target.slopes[begin + first + e] += sum;
    }
  }
}

}  // namespace

template <class T>
void path_edges_reverse(const Stream& stream, const PathWork<T>& w, const T* of_sums,
                        const EdgeAdjoints<T>& found) {
  for_vectors(w, [&](auto vector) {
    constexpr int size = decltype(vector)::value;
    const int blocks = w.channels / (static_cast<int>(kWarp) * size), items = w.num_paths * blocks;
    const int rounds = (items + kMaxPathWarps - 1) / kMaxPathWarps, warps = (items + rounds - 1) / rounds;
    const std::size_t numbers = StagedEdges<T, kChunk>::size(w, true) +
                                static_cast<std::size_t>(kChunk) * (blocks * w.num_phi + items);
    launch(stream, Grid{dim3(w.rows), dim3(kWarp * warps), numbers * sizeof(T)}, reverse_edges<T, size>, w,
           of_sums, found);
  });
}

template void path_edges_reverse(const Stream&, const PathWork<float>&, const float*,
                                 const EdgeAdjoints<float>&);
template void path_edges_reverse(const Stream&, const PathWork<double>&, const double*,
                                 const EdgeAdjoints<double>&);

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
