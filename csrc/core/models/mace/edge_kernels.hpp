#pragma once
// Sums over edges, for kernels.cpp.
#include "core/models/mace/kernels.hpp"
#include "core/models/shared/simd.hpp"

namespace nearsight {
namespace mace {
namespace {

using simd::broadcast;
using simd::load;
using simd::store;
using simd::Vec;
using simd::width;

/// A radial function of edge e, or with the weights of slopes its slope: Σ_k weights[k] times row k of the
/// interval's two knots.
template <class T>
inline Vec<T> interpolate(const T* weights, int stride, int e, const T* knots, int row) {
  Vec<T> sum = weights[e] * load(knots);
#pragma GCC unroll 6
  for (int k = 1; k < 2 * kJet; ++k) sum += weights[k * stride + e] * load(knots + k * row);
  return sum;
}

/// One level of sum_lanes: adds the parts of a and b that lie `group` lanes apart.
template <class T, int group>
inline Vec<T> fold(Vec<T> a, Vec<T> b) {
  simd::Ints<T> low, high;
  constexpr int n = width<T>;
#pragma GCC unroll 16
  for (int l = 0; l < n; ++l) {
    const int block = l / (2 * group), inside = l % (2 * group);
    low[l] = 2 * group * block + inside % group + (inside >= group ? n : 0);
    high[l] = low[l] + group;
  }
  return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
}

/// Lane k of the result is the sum of the lanes of v[k], k < count <= width.
template <class T, int count, int group = 1>
inline Vec<T> sum_lanes(const Vec<T>* v) {
  constexpr int pairs = (count + 1) / 2;
  Vec<T> sums[pairs];
#pragma GCC unroll 8
  for (int k = 0; k < pairs; ++k)
    sums[k] = fold<T, group>(v[2 * k], v[2 * k + 1 < count ? 2 * k + 1 : 2 * k]);
  if constexpr (2 * group < width<T>)
    return sum_lanes<T, pairs, 2 * group>(sums);
  else
    return sums[0];
}

/// put(k, sum of the lanes of v[k]) for k < count.
template <class T, int count, class Put>
inline void sum_all_lanes(const Vec<T>* v, const Put& put) {
  constexpr int now = count < width<T> ? count : width<T>;
  alignas(64) T sums[width<T>];
  store<T>(sums, sum_lanes<T, now>(v));
#pragma GCC unroll 16
  for (int k = 0; k < now; ++k) put(k, sums[k]);
  if constexpr (now < count) sum_all_lanes<T, count - now>(v + now, [&](int k, T sum) { put(now + k, sum); });
}

/// Φ of a path from the harmonics, edges in the lanes.
template <class T>
inline void couple(const PathWork<T>& p) {
  const int stride = p.edges->stride;
  for (int k = 0; k < p.num_phi * stride; k += width<T>) store<T>(p.phi + k, broadcast<T>(T(0)));
  for (int n = 0; n < p.num_rows; ++n) {
    const Row<T>& row = p.rows[n];
    T* const phi = p.phi + row.phi * stride;
    const T* const y = p.edges->harmonics + row.y * stride;
    for (int e = 0; e < stride; e += width<T>)
      store<T>(phi + e, load(phi + e) + row.coefficient * load(y + e));
  }
}

/// The transpose of couple(): adds to the adjoints of the harmonics.
template <class T>
inline void couple_reverse(const PathWork<T>& p, const T* phi_adjoints) {
  const int stride = p.edges->stride;
  for (int n = 0; n < p.num_rows; ++n) {
    const Row<T>& row = p.rows[n];
    const T* const phi = phi_adjoints + row.phi * stride;
    T* const y = p.edges->harmonic_adjoints + row.y * stride;
    for (int e = 0; e < stride; e += width<T>) store<T>(y + e, load(y + e) + row.coefficient * load(phi + e));
  }
}

/// A of one block of channels: `vectors` of them and n3 components stay in registers over the edges.
template <class T, int n1, int n3, int vectors>
inline void path_block(const PathWork<T>& p, int channel) {
  constexpr int w = width<T>;
  const Edges<T>& edges = *p.edges;
  const int row = p.channels, stride = edges.stride;
  Vec<T> sums[n3][vectors];
#pragma GCC unroll 7
  for (int m3 = 0; m3 < n3; ++m3)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) sums[m3][v] = broadcast<T>(T(0));
  for (int e = 0; e < edges.count; ++e) {
    const T* const knots = edges.tables[e] + p.table_offset + channel;
    const T* const u = edges.features[e] + p.feature_offset + channel;
    const T* const phi = p.phi + e;
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      const Vec<T> radial = interpolate(edges.weights, stride, e, knots + v * w, row);
#pragma GCC unroll 5
      for (int m1 = 0; m1 < n1; ++m1) {
        const Vec<T> source = radial * load(u + m1 * row + v * w);
#pragma GCC unroll 7
        for (int m3 = 0; m3 < n3; ++m3) sums[m3][v] += phi[(m3 * n1 + m1) * stride] * source;
      }
    }
  }
#pragma GCC unroll 7
  for (int m3 = 0; m3 < n3; ++m3)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) store<T>(p.sums + m3 * p.sums_stride + channel + v * w, sums[m3][v]);
}

template <class T, int l1, int l3>
void path(const PathWork<T>& p) {
  constexpr int n1 = 2 * l1 + 1, n3 = 2 * l3 + 1, w = width<T>;
  couple(p);
  int channel = 0;
  for (; channel + 2 * w <= p.channels; channel += 2 * w) path_block<T, n1, n3, 2>(p, channel);
  if (channel < p.channels) path_block<T, n1, n3, 1>(p, channel);
}

/// Reverse of components first3 … first3 + n3 - 1 of a path: the adjoints of Φ and of the distance stay in
/// registers over the channels.
template <class T, int n1, int first3, int n3>
inline void path_reverse_part(const PathWork<T>& p, T* phi_adjoints) {
  constexpr int w = width<T>, count = n1 * n3 + 1;
  const Edges<T>& edges = *p.edges;
  const int row = p.channels, stride = edges.stride;
  const T* const slope_weights = edges.weights + 2 * kJet * stride;
  const T* const sums = p.sums + first3 * p.sums_stride;
  for (int e = 0; e < edges.count; ++e) {
    const T* const knots = edges.tables[e] + p.table_offset;
    const T* const u = edges.features[e] + p.feature_offset;
    T* const du = edges.adjoints[e] + p.feature_offset;
    const T* const phi = p.phi + first3 * n1 * stride + e;
    Vec<T> found[count];
#pragma GCC unroll 32
    for (int k = 0; k < count; ++k) found[k] = broadcast<T>(T(0));
    for (int channel = 0; channel < row; channel += w) {
      const Vec<T> radial = interpolate(edges.weights, stride, e, knots + channel, row);
      Vec<T> source[n1], back[n1];
#pragma GCC unroll 5
      for (int m1 = 0; m1 < n1; ++m1) {
        source[m1] = radial * load(u + m1 * row + channel);
        back[m1] = broadcast<T>(T(0));
      }
#pragma GCC unroll 7
      for (int m3 = 0; m3 < n3; ++m3) {
        const Vec<T> a = load(sums + m3 * p.sums_stride + channel);
#pragma GCC unroll 5
        for (int m1 = 0; m1 < n1; ++m1) {
          back[m1] += phi[(m3 * n1 + m1) * stride] * a;
          found[m3 * n1 + m1] += source[m1] * a;
        }
      }
      Vec<T> of_radial = back[0] * load(u + channel);
#pragma GCC unroll 5
      for (int m1 = 0; m1 < n1; ++m1) {
        T* const target = du + m1 * row + channel;
        store<T>(target, load(target) + radial * back[m1]);
        if (m1 > 0) of_radial += back[m1] * load(u + m1 * row + channel);
      }
      found[count - 1] += of_radial * interpolate(slope_weights, stride, e, knots + channel, row);
    }
    sum_all_lanes<T, count>(found, [&](int k, T sum) {
      if (k < count - 1)
        phi_adjoints[(first3 * n1 + k) * stride + e] = sum;
      else
        edges.slopes[e] += sum;
    });
  }
}

template <class T, int n1, int first3, int end3>
inline void path_reverse_parts(const PathWork<T>& p, T* phi_adjoints) {
  // What registers hold beside the operands.
  constexpr int room = NEARSIGHT_VECTOR_BYTES == 64 ? 21 : 9, part = room / n1 > 0 ? room / n1 : 1;
  if constexpr (first3 < end3) {
    constexpr int count = end3 - first3 < part ? end3 - first3 : part;
    path_reverse_part<T, n1, first3, count>(p, phi_adjoints);
    path_reverse_parts<T, n1, first3 + count, end3>(p, phi_adjoints);
  }
}

template <class T, int l1, int l3>
void path_reverse(const PathWork<T>& p) {
  couple(p);
  T* const phi_adjoints = p.phi + kMaxPhi * p.edges->stride;
  // Lanes behind the last edge reach nothing, but must be numbers.
  for (int k = 0; k < p.num_phi; ++k)
    for (int e = p.edges->count; e < p.edges->stride; ++e) phi_adjoints[k * p.edges->stride + e] = T(0);
  path_reverse_parts<T, 2 * l1 + 1, 0, 2 * l3 + 1>(p, phi_adjoints);
  couple_reverse(p, phi_adjoints);
}

// ---- the first layer

template <class T, int num_harmonics>
void moments_of(const MomentWork<T>& p) {
  const Edges<T>& edges = *p.edges;
  for (int k = 0; k < p.functions; k += width<T>) {
    Vec<T> sums[num_harmonics];
#pragma GCC unroll 16
    for (int lm = 0; lm < num_harmonics; ++lm) sums[lm] = broadcast<T>(T(0));
    for (int e = p.first; e < p.last; ++e) {
      const Vec<T> radial = interpolate(edges.weights, edges.stride, e, edges.tables[e] + k, p.functions);
#pragma GCC unroll 16
      for (int lm = 0; lm < num_harmonics; ++lm) sums[lm] += edges.harmonics[lm * edges.stride + e] * radial;
    }
#pragma GCC unroll 16
    for (int lm = 0; lm < num_harmonics; ++lm) store<T>(p.moments[lm] + k, sums[lm]);
  }
}

template <class T, int num_harmonics>
void moments_reverse_of(const MomentWork<T>& p) {
  constexpr int count = num_harmonics + 1;
  const Edges<T>& edges = *p.edges;
  const int stride = edges.stride;
  const T* const slope_weights = edges.weights + 2 * kJet * stride;
  for (int e = p.first; e < p.last; ++e) {
    Vec<T> found[count];
#pragma GCC unroll 32
    for (int k = 0; k < count; ++k) found[k] = broadcast<T>(T(0));
    for (int k = 0; k < p.functions; k += width<T>) {
      const T* const knots = edges.tables[e] + k;
      const Vec<T> radial = interpolate(edges.weights, stride, e, knots, p.functions);
      Vec<T> of_radial = broadcast<T>(T(0));
#pragma GCC unroll 16
      for (int lm = 0; lm < num_harmonics; ++lm) {
        const Vec<T> a = load(p.moments[lm] + k);
        found[lm] += radial * a;
        of_radial += edges.harmonics[lm * stride + e] * a;
      }
      found[count - 1] += of_radial * interpolate(slope_weights, stride, e, knots, p.functions);
    }
    sum_all_lanes<T, count>(found, [&](int k, T sum) {
      if (k < num_harmonics)
        edges.harmonic_adjoints[k * stride + e] += sum;
      else
        edges.slopes[e] += sum;
    });
  }
}

}  // namespace
}  // namespace mace
}  // namespace nearsight
