#pragma once
// Kernels of the sums over edges; part of kernels.cpp.
#include "core/models/equivariant/kernels.hpp"
#include "core/models/shared/simd_lanes.hpp"
#include "core/models/shared/simd_unaligned.hpp"

namespace nearsight {
namespace equivariant {
namespace {

using simd::broadcast;
using simd::Vec;
using simd::width;

constexpr int kMaxSize = 2 * kMaxL + 1;

template <class T>
inline Vec<T> at(const T* p) {
  return simd::load_anywhere(p);
}
template <class T>
inline void put(T* p, Vec<T> v) {
  simd::store_anywhere(p, v);
}
template <class T>
inline void add(T* p, Vec<T> v) {
  put<T>(p, at(p) + v);
}

template <class T>
inline void clear(T* p, int vectors) {
  for (int n = 0; n < vectors; ++n) put<T>(p + n * width<T>, broadcast<T>(T(0)));
}

template <class T>
constexpr int padded_phi(int num_phi) {
  return (num_phi + kRun<T> - 1) / kRun<T> * kRun<T>;
}

/// Φ [num_phi padded] of harmonics.
template <class T>
inline void make_phi(const Convolution<T>& c, const T* y, T* phi) {
  const int n = padded_phi<T>(c.num_phi);
  for (int k = 0; k < n; k += width<T>) {
    Vec<T> sum = broadcast<T>(T(0));
    for (int h = 0; h < c.num_harmonics; ++h) sum += y[h] * at(c.dense + h * n + k);
    put<T>(phi + k, sum);
  }
}

/// Everything of one path that an edge's kernel reads and writes; pointers are to channel 0.
template <class T>
struct Edge {
  const T *u, *u_tangent, *value, *slope, *adjoint;
  const T *phi, *phi_tangent;
  T distance_tangent;
  T *sums, *u_adjoint, *value_adjoint, *slope_adjoint;
  T *phi_adjoint, *distance_adjoint;  // a vector for each number
  std::int64_t row;                   // from m3 to m3 in adjoint and sums
  int channels, s1, s3;
  bool adds;
};

// Sizes of irreps are known to the compiler where they are not 0.
#define NEARSIGHT_SIZES const int s1 = S1 ? S1 : e.s1, s3 = S3 ? S3 : e.s3

/// sums[m3] += Σ over edges of a center, for one run of B vectors.
template <class T, int S1, int S3, int B>
inline void sum_edges(const Convolution<T>& c, const Path& p, std::int64_t i, const T* phi, const T* values,
                      int k) {
  const int s1 = S1 ? S1 : p.s1, s3 = S3 ? S3 : p.s3, channels = c.channels;
  Vec<T> sums[(S3 ? S3 : kMaxSize) * B] = {};
  const int stride = padded_phi<T>(c.num_phi);
  const T* f = phi + p.phi;
  for (std::int64_t e = c.graph.offsets[i]; e < c.graph.offsets[i + 1]; ++e, f += stride) {
    const T* u = c.sources + p.source + c.graph.places[c.graph.neighbors[e]] * p.source_atom + k;
    const T* r = values + static_cast<std::int64_t>(c.graph.pairs[e]) * c.num_paths * channels + k;
    Vec<T> scaled[(S1 ? S1 : kMaxSize) * B] = {};
#pragma GCC unroll 16
    for (int m = 0; m < s1; ++m)
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b)
        scaled[m * B + b] = at(u + m * channels + b * width<T>) * at(r + b * width<T>);
#pragma GCC unroll 16
    for (int n = 0; n < s3; ++n)
#pragma GCC unroll 16
      for (int m = 0; m < s1; ++m)
#pragma GCC unroll 4
        for (int b = 0; b < B; ++b) sums[n * B + b] += f[n * s1 + m] * scaled[m * B + b];
  }
  T* out = c.sums + p.sum + c.graph.places[i] * p.sum_atom + k;
#pragma GCC unroll 16
  for (int n = 0; n < s3; ++n)
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) put<T>(out + n * p.sum_row + b * width<T>, sums[n * B + b]);
}

template <class T, int S1, int S3>
struct Convolve {
  static void run(const Convolution<T>& c, const Path& p, int number, std::int64_t i, const T* phi) {
    const T* values = c.values + static_cast<std::int64_t>(number) * c.channels;
    int k = 0;
    for (; k + 2 * width<T> <= c.channels; k += 2 * width<T>)
      sum_edges<T, S1, S3, 2>(c, p, i, phi, values, k);
    for (; k < c.channels; k += width<T>) sum_edges<T, S1, S3, 1>(c, p, i, phi, values, k);
  }
};

template <class T, int S1, int S3>
struct ByGeometry {
  static void run(const Edge<T>& e) {
    NEARSIGHT_SIZES;
    Vec<T> g[(S1 ? S1 : kMaxSize) * (S3 ? S3 : kMaxSize)] = {}, distance = at(e.distance_adjoint);
    for (int k = 0; k < e.channels; k += width<T>) {
      const Vec<T> r = at(e.value + k);
      Vec<T> slope = broadcast<T>(T(0));
#pragma GCC unroll 16
      for (int m = 0; m < s1; ++m) {
        const Vec<T> u = at(e.u + m * e.channels + k), scaled = r * u;
        Vec<T> t = broadcast<T>(T(0));
#pragma GCC unroll 16
        for (int n = 0; n < s3; ++n) {
          const Vec<T> d = at(e.adjoint + n * e.row + k);
          t += e.phi[n * s1 + m] * d;
          g[n * s1 + m] += d * scaled;
        }
        if (e.u_adjoint) add<T>(e.u_adjoint + m * e.channels + k, r * t);
        slope += u * t;
      }
      distance += slope * at(e.slope + k);
    }
    put<T>(e.distance_adjoint, distance);
#pragma GCC unroll 64
    for (int n = 0; n < s1 * s3; ++n) put<T>(e.phi_adjoint + n * width<T>, g[n]);
  }
};

template <class T, int S1, int S3>
struct ByParameters {
  static void run(const Edge<T>& e) {
    NEARSIGHT_SIZES;
    for (int k = 0; k < e.channels; k += width<T>) {
      const Vec<T> r = at(e.value + k);
      Vec<T> by_r = e.adds ? at(e.value_adjoint + k) : broadcast<T>(T(0));
#pragma GCC unroll 16
      for (int m = 0; m < s1; ++m) {
        Vec<T> t = broadcast<T>(T(0));
#pragma GCC unroll 16
        for (int n = 0; n < s3; ++n) t += e.phi[n * s1 + m] * at(e.adjoint + n * e.row + k);
        add<T>(e.u_adjoint + m * e.channels + k, r * t);
        by_r += at(e.u + m * e.channels + k) * t;
      }
      put<T>(e.value_adjoint + k, by_r);
    }
  }
};

template <class T, int S1, int S3>
struct OfTangent {
  static void run(const Edge<T>& e) {
    NEARSIGHT_SIZES;
    const Vec<T> zero = broadcast<T>(T(0));
    for (int k = 0; k < e.channels; k += width<T>) {
      const Vec<T> r = at(e.value + k), r_tangent = e.distance_tangent * at(e.slope + k);
      Vec<T> by_value = e.adds ? at(e.value_adjoint + k) : zero;
      Vec<T> by_slope = zero;
      Vec<T> sums[S3 ? S3 : kMaxSize] = {};
#pragma GCC unroll 16
      for (int n = 0; n < s3; ++n) sums[n] = at(e.sums + n * e.row + k);
#pragma GCC unroll 16
      for (int m = 0; m < s1; ++m) {
        const Vec<T> u = at(e.u + m * e.channels + k);
        const Vec<T> u_tangent = e.u_tangent ? at(e.u_tangent + m * e.channels + k) : zero;
        const Vec<T> scaled = r * u, scaled_tangent = r * u_tangent + r_tangent * u;
        Vec<T> t = zero, t_tangent = zero;
#pragma GCC unroll 16
        for (int n = 0; n < s3; ++n) {
          const Vec<T> d = at(e.adjoint + n * e.row + k);
          const T phi = e.phi[n * s1 + m], phi_tangent = e.phi_tangent[n * s1 + m];
          t += phi * d;
          t_tangent += phi_tangent * d;
          sums[n] += phi * scaled_tangent + phi_tangent * scaled;
        }
        add<T>(e.u_adjoint + m * e.channels + k, r_tangent * t + r * t_tangent);
        by_value += u_tangent * t + u * t_tangent;
        by_slope += u * t;
      }
#pragma GCC unroll 16
      for (int n = 0; n < s3; ++n) put<T>(e.sums + n * e.row + k, sums[n]);
      put<T>(e.value_adjoint + k, by_value);
      by_slope = e.distance_tangent * by_slope;
      put<T>(e.slope_adjoint + k, e.adds ? at(e.slope_adjoint + k) + by_slope : by_slope);
    }
  }
};

#undef NEARSIGHT_SIZES

/// Calls Kernel<T, s1, s3>::run, where these sizes are compiled, and else Kernel<T, 0, 0>::run.
template <template <class, int, int> class Kernel, class T, int S1, class... Arguments>
inline void with_s3(int s3, const Arguments&... arguments) {
  switch (s3) {
    case 1:
      return Kernel<T, S1, 1>::run(arguments...);
    case 3:
      return Kernel<T, S1, 3>::run(arguments...);
    case 5:
      return Kernel<T, S1, 5>::run(arguments...);
    case 7:
      return Kernel<T, S1, 7>::run(arguments...);
    default:
      return Kernel<T, 0, 0>::run(arguments...);
  }
}
template <template <class, int, int> class Kernel, class T, class... Arguments>
inline void with_sizes(const Path& p, const Arguments&... arguments) {
  switch (p.s1) {
    case 1:
      return with_s3<Kernel, T, 1>(p.s3, arguments...);
    case 3:
      return with_s3<Kernel, T, 3>(p.s3, arguments...);
    case 5:
      return with_s3<Kernel, T, 5>(p.s3, arguments...);
    default:
      return Kernel<T, 0, 0>::run(arguments...);
  }
}

template <class T>
std::size_t scratch(const Convolution<T>& c, std::int64_t most_edges) {
  const std::size_t phi = padded_phi<T>(c.num_phi);
  const std::size_t of_center = static_cast<std::size_t>(most_edges) * phi;
  const std::size_t of_edge = 2 * phi + (c.num_phi + c.num_harmonics + 8) * width<T>;
  return of_center > of_edge ? of_center : of_edge;
}

template <class T>
void convolve(const Convolution<T>& c, const Rows<T>& rows) {
  const int stride = padded_phi<T>(c.num_phi);
  for (std::int64_t i = rows.first; i < rows.last; ++i) {
    T* phi = rows.scratch;
    for (std::int64_t e = c.graph.offsets[i]; e < c.graph.offsets[i + 1]; ++e, phi += stride)
      make_phi(c, c.harmonics + e * c.num_harmonics, phi);
    for (int p = 0; p < c.num_paths; ++p)
      with_sizes<Convolve, T>(c.paths[p], c, c.paths[p], p, i, static_cast<const T*>(rows.scratch));
  }
}

/// Fills in what a path of edge e from center i has to do with the tensors of the convolution.
template <class T>
inline void set_edge(const Convolution<T>& c, const Rows<T>& rows, std::int64_t i, std::int64_t e, int number,
                     Edge<T>& edge) {
  const Path& p = c.paths[number];
  const std::int64_t j = c.graph.neighbors[e], source = p.source + c.graph.places[j] * p.source_atom;
  const std::int64_t sum = p.sum + c.graph.places[i] * p.sum_atom;
  const std::int64_t r = (static_cast<std::int64_t>(c.graph.pairs[e]) * c.num_paths + number) * c.channels;
  const auto moved = [](auto* pointer, std::int64_t by) { return pointer ? pointer + by : nullptr; };
  edge.u = c.sources + source;
  edge.u_tangent = moved(c.source_tangents, source);
  edge.value = c.values + r;
  edge.slope = moved(c.slopes, r);
  edge.adjoint = c.adjoints + sum;
  edge.sums = moved(c.sums, sum);
  edge.u_adjoint = moved(rows.source_adjoints,
                         ((j - rows.first_source) * c.components + p.component) * std::int64_t(c.channels));
  edge.value_adjoint = moved(c.value_adjoints, r);
  edge.slope_adjoint = moved(c.slope_adjoints, r);
  edge.row = p.sum_row;
  edge.channels = c.channels;
  edge.s1 = p.s1;
  edge.s3 = p.s3;
}

/// Sums of the lanes of count vectors; `vectors` has room for three more.
template <class T>
inline void sum_lanes(const T* vectors, int count, T* sums) {
  for (int n = 0; n < count; n += 4) {
    T four[4];
    const T* v = vectors + n * width<T>;
    simd::sum_four(at(v), at(v + width<T>), at(v + 2 * width<T>), at(v + 3 * width<T>), four);
    for (int k = n; k < n + 4 && k < count; ++k) sums[k] = four[k - n];
  }
}

template <class T>
void by_geometry(const Convolution<T>& c, const Rows<T>& rows) {
  constexpr int w = width<T>;
  T* const phi = rows.scratch;
  T* const phi_adjoints = phi + padded_phi<T>(c.num_phi);
  T* const adjoints = phi_adjoints + c.num_phi * w;  // of the harmonics, then of the distance
  Edge<T> edge{};
  for (std::int64_t i = rows.first; i < rows.last; ++i)
    for (std::int64_t e = c.graph.offsets[i]; e < c.graph.offsets[i + 1]; ++e) {
      make_phi(c, c.harmonics + e * c.num_harmonics, phi);
      clear(adjoints, c.num_harmonics + 4);
      edge.distance_adjoint = adjoints + c.num_harmonics * w;
      for (int p = 0; p < c.num_paths; ++p) {
        set_edge(c, rows, i, e, p, edge);
        edge.phi = phi + c.paths[p].phi;
        edge.phi_adjoint = phi_adjoints + c.paths[p].phi * w;
        with_sizes<ByGeometry, T>(c.paths[p], edge);
      }
      for (int n = 0; n < c.num_couplings; ++n) {
        const Coupling& coupling = c.couplings[n];
        add<T>(adjoints + coupling.harmonic * w, T(coupling.value) * at(phi_adjoints + coupling.phi * w));
      }
      c.distance_adjoints[e] = simd::sum<T>(at(edge.distance_adjoint));
      sum_lanes(adjoints, c.num_harmonics, c.harmonic_adjoints + e * c.num_harmonics);
    }
}

/// Calls body(center, edge) for the edges of a part.
template <class T, class Body>
inline void for_part(const Convolution<T>& c, const Rows<T>& rows, Part part, const Body& body) {
  const bool first = part == Part::first_of_pair;
  for (std::int64_t i = rows.first; i < rows.last; ++i) {
    const std::int64_t begin = first ? c.graph.offsets[i] : c.graph.middles[i];
    const std::int64_t end = first ? c.graph.middles[i] : c.graph.offsets[i + 1];
    for (std::int64_t e = begin; e < end; ++e) body(i, e);
  }
}

template <class T>
void by_parameters(const Convolution<T>& c, const Rows<T>& rows, Part part) {
  T* const phi = rows.scratch;
  Edge<T> edge{};
  edge.adds = part == Part::second_of_pair;
  for_part(c, rows, part, [&](std::int64_t i, std::int64_t e) {
    make_phi(c, c.harmonics + e * c.num_harmonics, phi);
    for (int p = 0; p < c.num_paths; ++p) {
      set_edge(c, rows, i, e, p, edge);
      edge.phi = phi + c.paths[p].phi;
      with_sizes<ByParameters, T>(c.paths[p], edge);
    }
  });
}

template <class T>
void of_tangent(const Convolution<T>& c, const Rows<T>& rows, Part part) {
  T* const phi = rows.scratch;
  T* const phi_tangent = phi + padded_phi<T>(c.num_phi);
  Edge<T> edge{};
  edge.adds = part == Part::second_of_pair;
  for_part(c, rows, part, [&](std::int64_t i, std::int64_t e) {
    make_phi(c, c.harmonics + e * c.num_harmonics, phi);
    make_phi(c, c.harmonic_tangents + e * c.num_harmonics, phi_tangent);
    edge.distance_tangent = static_cast<T>(c.distance_tangents[c.graph.pairs[e]]);
    for (int p = 0; p < c.num_paths; ++p) {
      set_edge(c, rows, i, e, p, edge);
      edge.phi = phi + c.paths[p].phi;
      edge.phi_tangent = phi_tangent + c.paths[p].phi;
      with_sizes<OfTangent, T>(c.paths[p], edge);
    }
  });
}

}  // namespace
}  // namespace equivariant
}  // namespace nearsight
