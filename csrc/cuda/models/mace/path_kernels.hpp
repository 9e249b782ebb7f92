#pragma once
// What the kernels of paths share: channels in the lanes, a warp for each path, some edges of a row at a time
// in shared memory.
#include "cuda/models/mace/paths.hpp"

namespace nearsight {
namespace cuda {
namespace mace {

constexpr int kMaxPathWarps = 10;  // of a block
template <class T>
constexpr int kPathBlocks =
    sizeof(T) == 4 ? 2 : 1;  // of a multiprocessor that must have room in its registers
constexpr int kMaxN1 = 5, kMaxN3 = 7;

template <int n>
struct Constant {
  static constexpr int value = n;
};

/// Channels of one lane.
template <class T, int vector>
struct alignas(sizeof(T) * vector) Pack {
  T at[vector];
};

template <class T, int vector>
__device__ __forceinline__ Pack<T, vector> load(const T* from) {
  return *reinterpret_cast<const Pack<T, vector>*>(from);
}
template <class T, int vector>
__device__ __forceinline__ void store(T* to, const Pack<T, vector>& pack) {
  *reinterpret_cast<Pack<T, vector>*>(to) = pack;
}
template <class T, int vector>
__device__ __forceinline__ Pack<T, vector> zeros() {
  Pack<T, vector> pack;
#pragma unroll
  for (int v = 0; v < vector; ++v) pack.at[v] = 0;
  return pack;
}

/// `chunk` edges of a row, in shared memory.
template <class T, int chunk>
struct StagedEdges {
  T *functions, *slopes;  // [functions][chunk]
  T* harmonics;           // [chunk][harmonics]
  T* phi;                 // [chunk][num_phi]
  int* neighbors;         // [chunk]

  static std::size_t size(const PathWork<T>& w, bool with_slopes) {
    return static_cast<std::size_t>(chunk) *
           ((with_slopes ? 2 : 1) * w.num_functions + padded_harmonics(w) + w.num_phi + 4);
  }
  static __host__ __device__ int padded_harmonics(const PathWork<T>& w) {
    return (w.num_harmonics + 3) / 4 * 4;
  }

  /// Takes memory from the front of `shared`.
  __device__ StagedEdges(const PathWork<T>& w, bool with_slopes, T*& shared) {
    const auto take = [&](int each) {
      T* const taken = shared;
      shared += each * chunk;
      return taken;
    };
    functions = take(w.num_functions);
    slopes = with_slopes ? take(w.num_functions) : nullptr;
    phi = take(w.num_phi);
    harmonics = take(padded_harmonics(w));
    neighbors = reinterpret_cast<int*>(take(4));
  }

  /// All threads of the block bring edges first ... of `count` that begin at `begin`. Edges behind the last
  /// one, and those to neighbors from `end` on, get functions that are 0. Begins without and ends with a
  /// barrier.
  __device__ void fill(const PathWork<T>& w, const Couplings<T>& couplings, std::int64_t begin, int count,
                       int first, int end) {
    const int here = count - first < chunk ? count - first : chunk;
    const std::int64_t place = begin + first;
    const auto neighbor = [&](int e) { return e < here ? w.edges.neighbors[place + e] : end; };
    for (int e = threadIdx.x; e < chunk; e += blockDim.x) neighbors[e] = neighbor(e) < end ? neighbor(e) : 0;
    for (int n = threadIdx.x; n < chunk * w.num_functions; n += blockDim.x) {
      const int e = n % chunk;
      const std::int64_t from = (place + e) * w.num_functions + n / chunk;
      // Read whoever the neighbor is, so that one reading need not wait for the other.
      const T value = e < here ? w.arrays.functions[from] : T(0);
      const T slope = slopes && e < here ? w.arrays.slopes[from] : T(0);
      const bool counts = neighbor(e) < end;
      functions[n] = counts ? value : T(0);
      if (slopes) slopes[n] = counts ? slope : T(0);
    }
    for (int n = threadIdx.x; n < chunk * w.num_harmonics; n += blockDim.x)
      harmonics[n] = n < here * w.num_harmonics ? w.arrays.harmonics[place * w.num_harmonics + n] : T(0);
    __syncthreads();
    for (int k = threadIdx.x; k < w.num_phi; k += blockDim.x) {
      T sums[chunk];
#pragma unroll
      for (int e = 0; e < chunk; ++e) sums[e] = 0;
      for (int n = couplings.first[k]; n < couplings.first[k + 1]; ++n) {
        const CouplingTerm<T> term = couplings.terms[n];
#pragma unroll
        for (int e = 0; e < chunk; ++e)
          sums[e] += term.coefficient * harmonics[e * w.num_harmonics + term.from];
      }
#pragma unroll
      for (int e = 0; e < chunk; ++e) phi[e * w.num_phi + k] = sums[e];
    }
    __syncthreads();
  }
};

/// Adds the functions of a chunk's edges, times weights of some channels, to sums.
template <class T, int vector, int chunk>
__device__ __forceinline__ void add_functions(const T* functions, const Pack<T, vector>& weight,
                                              Pack<T, vector>* sums) {
#pragma unroll
  for (int e = 0; e < chunk; e += 4) {
    const Vec4<T> f = *reinterpret_cast<const Vec4<T>*>(functions + e);
#pragma unroll
    for (int v = 0; v < vector; ++v) {
      sums[e].at[v] += f.x * weight.at[v];
      sums[e + 1].at[v] += f.y * weight.at[v];
      sums[e + 2].at[v] += f.z * weight.at[v];
      sums[e + 3].at[v] += f.w * weight.at[v];
    }
  }
}

/// The radial function of a path for all edges of a chunk, and its slope where that is wanted: sums of few
/// functions times the weights of path and channel.
template <class T, int vector, int chunk>
__device__ __forceinline__ void radial_of(const PathWork<T>& w, const StagedEdges<T, chunk>& staged, int path,
                                          int channel, Pack<T, vector>* radial,
                                          Pack<T, vector>* change = nullptr) {
#pragma unroll
  for (int e = 0; e < chunk; ++e) {
    radial[e] = zeros<T, vector>();
    if (change) change[e] = zeros<T, vector>();
  }
  const T* weights = w.weights + path * w.channels + channel;
  const int step = w.num_paths * w.channels;
#pragma unroll 4
  for (int b = 0; b < w.num_functions; ++b, weights += step) {
    const Pack<T, vector> weight = load<T, vector>(weights);
    add_functions<T, vector, chunk>(staged.functions + b * chunk, weight, radial);
    if (change) add_functions<T, vector, chunk>(staged.slopes + b * chunk, weight, change);
  }
}

/// Φ of one path and edge, in registers.
template <class T, int count>
struct PathPhi {
  static constexpr int padded = (count + 3) / 4 * 4;
  T at[padded];

  __device__ __forceinline__ explicit PathPhi(const T* from) {
#pragma unroll
    for (int k = 0; k < padded; k += 4) {
      const Vec4<T> four = *reinterpret_cast<const Vec4<T>*>(from + k);
      at[k] = four.x;
      at[k + 1] = four.y;
      at[k + 2] = four.z;
      at[k + 3] = four.w;
    }
  }
};

/// Calls run(constant of the channels of a lane): two in single precision, where they are even.
template <class T, class Run>
void for_vectors(const PathWork<T>& w, const Run& run) {
  if constexpr (sizeof(T) == 4)
    if (w.channels % (2 * kWarp) == 0) return run(Constant<2>{});
  run(Constant<1>{});
}

/// Calls run(constant of n1, constant of n3) for the degrees of a path.
template <int n1, class Run>
__device__ __forceinline__ void for_l3(int l3, const Run& run) {
  if (l3 == 0) return run(Constant<n1>{}, Constant<1>{});
  if (l3 == 1) return run(Constant<n1>{}, Constant<3>{});
  if (l3 == 2) return run(Constant<n1>{}, Constant<5>{});
  run(Constant<n1>{}, Constant<7>{});
}
template <class Run>
__device__ __forceinline__ void for_degrees(int l1, int l3, const Run& run) {
  if (l1 == 0) return for_l3<1>(l3, run);
  if (l1 == 1) return for_l3<3>(l3, run);
  for_l3<5>(l3, run);
}

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
