#pragma once
// Sums over edges; part of convolution.cu. A thread has 16 bytes of channels of whatever owns a result, so
// all loads of features are coalesced and nothing is added to by two threads. Results of a path whose size
// is above seven are made in pieces.
//
// Of E edges, paths of sizes s1 and s3 and K channels E K Σ s1 s3 multiply-adds for the sums of centers, of
// sources and of pairs, twice as many for those of tangents, three times for a pair's, and twice for what
// depends on positions. Features (s1 or s3) and R of every edge and path are read, from L2 for the most part.
#include "core/models/equivariant/kernels.hpp"
#include "cuda/device.hpp"
#include "cuda/reduce.hpp"

namespace nearsight {
namespace cuda {
namespace training {

using equivariant::Convolution;
using equivariant::Path;

/// 16 bytes of channels.
template <class T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(T);
  T x[kSize];

  __device__ static Pack zero() {
    Pack pack;
    NEARSIGHT_UNROLL for (int v = 0; v < kSize; ++v) pack.x[v] = T(0);
    return pack;
  }
  __device__ static Pack load(const T* place) { return *reinterpret_cast<const Pack*>(place); }
  __device__ void store(T* place) const { *reinterpret_cast<Pack*>(place) = *this; }
  /// += factor b, a b
  __device__ void add(T factor, const Pack& b) {
    NEARSIGHT_UNROLL for (int v = 0; v < kSize; ++v) x[v] += factor * b.x[v];
  }
  __device__ void add(const Pack& a, const Pack& b) {
    NEARSIGHT_UNROLL for (int v = 0; v < kSize; ++v) x[v] += a.x[v] * b.x[v];
  }
  __device__ Pack operator*(const Pack& b) const {
    Pack pack;
    NEARSIGHT_UNROLL for (int v = 0; v < kSize; ++v) pack.x[v] = x[v] * b.x[v];
    return pack;
  }
  __device__ Pack operator*(T factor) const {
    Pack pack;
    NEARSIGHT_UNROLL for (int v = 0; v < kSize; ++v) pack.x[v] = factor * x[v];
    return pack;
  }
};

/// Components [first, first + count) of the results of a path, or of the irrep of sources that begins at
/// component `path`.
struct Piece {
  int path, first, count;
};

/// Calls body.run<N>(first) for parts of 7, 5, 3 or 1 components, `size` of them in all.
template <class Body>
__device__ inline void for_parts(int size, const Body& body) {
  int first = 0;
  while (first < size) {
    const int rest = size - first;
    if (rest >= 7) {
      body.template run<7>(first), first += 7;
    } else if (rest >= 5) {
      body.template run<5>(first), first += 5;
    } else if (rest >= 3) {
      body.template run<3>(first), first += 3;
    } else {
      body.template run<1>(first), first += 1;
    }
  }
}

/// What all kernels of a convolution read, in memory of the device.
template <class T>
struct Problem {
  Convolution<T> c;
  const Path* paths;
  const Piece *pieces, *source_pieces;
  int num_pieces, num_source_pieces;
  const std::int32_t* centers;           // [edges]
  const std::int32_t* edges_of_pairs;    // [pairs][2], -1 where there is no second
  const std::int64_t* incoming_offsets;  // [atoms + 1], edges by their neighbor
  const std::int32_t* incoming;          // [edges]
  const T *phi, *phi_tangents;           // Φ [edges][num_phi]

  /// Threads that share the channels of a row.
  __host__ __device__ int lanes() const { return c.channels / Pack<T>::kSize; }
  __device__ std::int64_t radial(std::int64_t pair, int path, int k) const {
    return (pair * c.num_paths + path) * c.channels + k;
  }
  __device__ std::int64_t source(const Path& p, std::int64_t edge, int k) const {
    return p.source + c.graph.places[c.graph.neighbors[edge]] * p.source_atom + k;
  }
  __device__ std::int64_t sum(const Path& p, std::int64_t center, int k) const {
    return p.sum + c.graph.places[center] * p.sum_atom + k;
  }
};

/// R and its tangent, of 16 bytes of channels.
template <class T, bool kTangent>
struct Radial {
  Pack<T> value, tangent;

  __device__ Radial(const Problem<T>& problem, std::int64_t pair, int path, int k)
      : value(Pack<T>::load(problem.c.values + problem.radial(pair, path, k))) {
    if (kTangent)
      tangent = Pack<T>::load(problem.c.slopes + problem.radial(pair, path, k)) *
                static_cast<T>(problem.c.distance_tangents[pair]);
  }
};

/// A thread for every edge and element of Φ.
template <class T>
__global__ void make_phi(std::int64_t num_edges, int num_phi, int num_harmonics, const T* harmonics,
                         const T* couplings, T* phi) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n >= num_edges * num_phi) return;
  const std::int64_t e = n / num_phi, k = n % num_phi;
  T sum = T(0);
  for (int h = 0; h < num_harmonics; ++h)
    sum += harmonics[e * num_harmonics + h] * couplings[h * num_phi + k];
  phi[n] = sum;
}

/// The transpose.
template <class T>
__global__ void sum_phi(std::int64_t num_edges, int num_phi, int num_harmonics, const T* phi_adjoints,
                        const T* couplings, T* harmonic_adjoints) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n >= num_edges * num_harmonics) return;
  const std::int64_t e = n / num_harmonics, h = n % num_harmonics;
  T sum = T(0);
  for (int k = 0; k < num_phi; ++k) sum += phi_adjoints[e * num_phi + k] * couplings[h * num_phi + k];
  harmonic_adjoints[n] = sum;
}

/// A piece of the sums of one center.
template <class T, bool kTangent>
struct SumRows {
  const Problem<T>& problem;
  const Piece piece;
  const std::int64_t center;
  const int k;

  template <int N>
  __device__ void run(int) const {
    const Convolution<T>& c = problem.c;
    const Path p = problem.paths[piece.path];
    Pack<T> sums[N];
    NEARSIGHT_UNROLL for (int n = 0; n < N; ++n) sums[n] = Pack<T>::zero();
    for (std::int64_t e = c.graph.offsets[center]; e < c.graph.offsets[center + 1]; ++e) {
      const std::int64_t element = e * c.num_phi + p.phi + piece.first * p.s1, u = problem.source(p, e, k);
      const Radial<T, kTangent> r(problem, c.graph.pairs[e], piece.path, k);
      for (int m = 0; m < p.s1; ++m) {
        const Pack<T> source = Pack<T>::load(c.sources + u + m * c.channels);
        const Pack<T> scaled = r.value * source;
        if (kTangent) {
          Pack<T> tangent = r.tangent * source;
          if (c.source_tangents) tangent.add(r.value, Pack<T>::load(c.source_tangents + u + m * c.channels));
          NEARSIGHT_UNROLL for (int n = 0; n < N; ++n) {
            sums[n].add(problem.phi[element + n * p.s1 + m], tangent);
            sums[n].add(problem.phi_tangents[element + n * p.s1 + m], scaled);
          }
        } else {
          NEARSIGHT_UNROLL for (int n = 0; n < N; ++n) sums[n].add(problem.phi[element + n * p.s1 + m],
                                                                   scaled);
        }
      }
    }
    T* const out = c.sums + problem.sum(p, center, k) + piece.first * p.sum_row;
    NEARSIGHT_UNROLL for (int n = 0; n < N; ++n) sums[n].store(out + n * p.sum_row);
  }
};

template <class T, bool kTangent>
__global__ void sum_to_centers(Problem<T> problem) {
  const auto thread = static_cast<std::int64_t>(thread_number());
  const std::int64_t unit = thread / problem.lanes();
  const int k = static_cast<int>(thread % problem.lanes()) * Pack<T>::kSize;
  const std::int64_t center = unit / problem.num_pieces;
  if (center >= problem.c.graph.num_atoms) return;
  const Piece piece = problem.pieces[unit % problem.num_pieces];
  for_parts(piece.count, SumRows<T, kTangent>{problem, piece, center, k});
}

/// A piece of the adjoints of one atom's features, the sum over the edges that lead to it.
template <class T, bool kTangent>
struct SumSources {
  const Problem<T>& problem;
  const Piece piece;
  const std::int64_t atom;
  const int k;
  T* const adjoints;

  template <int N>
  __device__ void run(int) const {
    const Convolution<T>& c = problem.c;
    Pack<T> sums[N];
    NEARSIGHT_UNROLL for (int m = 0; m < N; ++m) sums[m] = Pack<T>::zero();
    std::int64_t out = 0;
    for (int path = 0; path < c.num_paths; ++path) {
      const Path p = problem.paths[path];
      if (p.component != piece.path) continue;
      out = p.source + c.graph.places[atom] * p.source_atom + piece.first * c.channels + k;
      for (std::int64_t x = problem.incoming_offsets[atom]; x < problem.incoming_offsets[atom + 1]; ++x) {
        const std::int64_t e = problem.incoming[x];
        const std::int64_t element = e * c.num_phi + p.phi + piece.first;
        const T* const d = c.adjoints + problem.sum(p, problem.centers[e], k);
        const Radial<T, kTangent> r(problem, c.graph.pairs[e], path, k);
        for (int n = 0; n < p.s3; ++n) {
          const Pack<T> adjoint = Pack<T>::load(d + n * p.sum_row), scaled = r.value * adjoint;
          if (kTangent) {
            const Pack<T> tangent = r.tangent * adjoint;
            NEARSIGHT_UNROLL for (int m = 0; m < N; ++m) {
              sums[m].add(problem.phi[element + n * p.s1 + m], tangent);
              sums[m].add(problem.phi_tangents[element + n * p.s1 + m], scaled);
            }
          } else {
            NEARSIGHT_UNROLL for (int m = 0; m < N; ++m) sums[m].add(problem.phi[element + n * p.s1 + m],
                                                                     scaled);
          }
        }
      }
    }
    NEARSIGHT_UNROLL for (int m = 0; m < N; ++m) sums[m].store(adjoints + out + m * c.channels);
  }
};

template <class T, bool kTangent>
__global__ void sum_to_sources(Problem<T> problem, T* adjoints) {
  const auto thread = static_cast<std::int64_t>(thread_number());
  const std::int64_t unit = thread / problem.lanes();
  const int k = static_cast<int>(thread % problem.lanes()) * Pack<T>::kSize;
  const std::int64_t atom = unit / problem.num_source_pieces;
  if (atom >= problem.c.graph.num_atoms) return;
  const Piece piece = problem.source_pieces[unit % problem.num_source_pieces];
  for_parts(piece.count, SumSources<T, kTangent>{problem, piece, atom, k, adjoints});
}

/// What an edge adds to the adjoints of R, or of its value and slope.
template <class T, bool kTangent>
struct OfRadial {
  const Problem<T>& problem;
  const Path& p;
  const std::int64_t edge;
  const int k;
  Pack<T>&by_value, &by_slope;

  template <int N>
  __device__ void run(int first) const {
    const Convolution<T>& c = problem.c;
    const std::int64_t u = problem.source(p, edge, k) + first * c.channels;
    const bool tangents = kTangent && c.source_tangents;
    Pack<T> sources[N], along[N];
    NEARSIGHT_UNROLL for (int m = 0; m < N; ++m) {
      sources[m] = Pack<T>::load(c.sources + u + m * c.channels);
      if (kTangent)
        along[m] = tangents ? Pack<T>::load(c.source_tangents + u + m * c.channels) : Pack<T>::zero();
    }
    const std::int64_t element = edge * c.num_phi + p.phi + first;
    const T* const d = c.adjoints + problem.sum(p, problem.centers[edge], k);
    for (int n = 0; n < p.s3; ++n) {
      const Pack<T> adjoint = Pack<T>::load(d + n * p.sum_row);
      Pack<T> product = Pack<T>::zero(), tangent = Pack<T>::zero();
      NEARSIGHT_UNROLL for (int m = 0; m < N; ++m) {
        const T phi = problem.phi[element + n * p.s1 + m];
        product.add(phi, sources[m]);
        if (kTangent) {
          tangent.add(phi, along[m]);
          tangent.add(problem.phi_tangents[element + n * p.s1 + m], sources[m]);
        }
      }
      by_value.add(kTangent ? tangent : product, adjoint);
      if (kTangent) by_slope.add(product, adjoint);
    }
  }
};

template <class T, bool kTangent>
__global__ void sum_to_pairs(Problem<T> problem) {
  const Convolution<T>& c = problem.c;
  const auto thread = static_cast<std::int64_t>(thread_number());
  const std::int64_t unit = thread / problem.lanes();
  const int k = static_cast<int>(thread % problem.lanes()) * Pack<T>::kSize;
  const std::int64_t pair = unit / c.num_paths;
  if (pair >= c.graph.num_pairs) return;
  const int path = static_cast<int>(unit % c.num_paths);
  const Path p = problem.paths[path];
  Pack<T> by_value = Pack<T>::zero(), by_slope = Pack<T>::zero();
  for (int side = 0; side < 2; ++side) {
    const std::int32_t edge = problem.edges_of_pairs[2 * pair + side];
    if (edge >= 0) for_parts(p.s1, OfRadial<T, kTangent>{problem, p, edge, k, by_value, by_slope});
  }
  by_value.store(c.value_adjoints + problem.radial(pair, path, k));
  if (kTangent)
    (by_slope * static_cast<T>(c.distance_tangents[pair]))
        .store(c.slope_adjoints + problem.radial(pair, path, k));
}

/// Sums over the lanes of N numbers, a power of two: lane l has that of number l / (32 / N) in the end.
template <int N, class T>
__device__ inline T sum_each(T (&x)[N]) {
  unsigned mask = kWarp / 2;
  NEARSIGHT_UNROLL for (int half = N / 2; half > 0; half /= 2) {
    const bool upper = (lane_number() & mask) != 0;
    NEARSIGHT_UNROLL for (int n = 0; n < half; ++n) {
      const T sent = upper ? x[n] : x[n + half], kept = upper ? x[n + half] : x[n];
      x[n] = kept + __shfl_xor_sync(kAllLanes, sent, mask);
    }
    mask /= 2;
  }
  T sum = x[0];
  for (; mask > 0; mask /= 2) sum += __shfl_xor_sync(kAllLanes, sum, mask);
  return sum;
}

/// Adjoints of a path's Φ and of the distance from the channels of one edge; a warp's lanes share channels.
template <class T>
struct OfGeometry {
  const Problem<T>& problem;
  const Path& p;
  const std::int64_t edge;
  const int path, k;  // k < 0 in lanes without channels
  const bool adds;    // to what other channels gave
  T *phi_adjoints, &distance;

  template <int N>
  __device__ void run(int first) const {
    constexpr int kPadded = N > 4 ? 8 : N > 1 ? 4 : 1;
    const Convolution<T>& c = problem.c;
    const bool live = k >= 0;
    const int channel = live ? k : 0;
    const std::int64_t u = problem.source(p, edge, channel) + first * c.channels;
    const std::int64_t r = problem.radial(c.graph.pairs[edge], path, channel);
    Pack<T> sources[N];
    NEARSIGHT_UNROLL for (int m = 0; m < N; ++m) sources[m] =
        live ? Pack<T>::load(c.sources + u + m * c.channels) : Pack<T>::zero();
    const Pack<T> value = Pack<T>::load(c.values + r), slope = Pack<T>::load(c.slopes + r);
    const std::int64_t element = edge * c.num_phi + p.phi + first;
    const T* const d = c.adjoints + problem.sum(p, problem.centers[edge], channel);
    const int mine = static_cast<int>(lane_number()) / (kWarp / kPadded);
    const bool writes = lane_number() % (kWarp / kPadded) == 0 && mine < N;
    for (int n = 0; n < p.s3; ++n) {
      const Pack<T> adjoint = Pack<T>::load(d + n * p.sum_row);
      const Pack<T> scaled = adjoint * value, by_slope = adjoint * slope;
      T of_phi[kPadded];
      Pack<T> product = Pack<T>::zero();
      NEARSIGHT_UNROLL for (int m = 0; m < kPadded; ++m) {
        of_phi[m] = T(0);
        if (m >= N) continue;
        NEARSIGHT_UNROLL for (int v = 0; v < Pack<T>::kSize; ++v) of_phi[m] +=
            scaled.x[v] * sources[m < N ? m : 0].x[v];
        product.add(problem.phi[element + n * p.s1 + m], sources[m < N ? m : 0]);
      }
      NEARSIGHT_UNROLL for (int v = 0; v < Pack<T>::kSize; ++v) distance += by_slope.x[v] * product.x[v];
      const T sum = sum_each(of_phi);
      T* const out = phi_adjoints + element + n * p.s1 + mine;
      if (writes) *out = adds ? *out + sum : sum;
    }
  }
};

/// A warp for every edge.
template <class T>
__global__ void of_edges(Problem<T> problem, T* phi_adjoints, double* distance_adjoints) {
  const Convolution<T>& c = problem.c;
  const auto edge = static_cast<std::int64_t>(warp_number());
  if (edge >= c.graph.num_edges) return;
  double distance = 0.0;
  for (int path = 0; path < c.num_paths; ++path) {
    const Path p = problem.paths[path];
    T of_path = T(0);
    for (int first = 0; first < c.channels; first += static_cast<int>(kWarp) * Pack<T>::kSize) {
      const int k = first + static_cast<int>(lane_number()) * Pack<T>::kSize;
      const OfGeometry<T> of{problem,      p,      edge, path, k < c.channels ? k : -1, first > 0,
                             phi_adjoints, of_path};
      for_parts(p.s1, of);
    }
    distance += static_cast<double>(of_path);
  }
  distance = warp_sum(distance);
  if (lane_number() == 0) distance_adjoints[edge] = distance;
}

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
