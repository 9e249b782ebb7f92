#pragma once
// The triplets of a group of angular functions, packed, with the products of shapes and the angular terms,
// for kernels.cpp.
#include "core/models/acsf/kernels.hpp"
#include "core/models/acsf/shapes.hpp"
#include "core/models/shared/simd_lanes.hpp"

namespace nearsight {
namespace acsf {
namespace {

using simd::load;
using simd::Mask;
using simd::store;

/// The loops of a group: j one by one, blocks of k behind it.
template <class T>
struct Loops {
  int first_j, last_j, first_k, last_k;
  bool same;

  Loops(const AngularGroup<T>& g, const Shell<T>& s, bool swapped)
      : first_j(s.first[swapped ? g.species2 : g.species1]),
        last_j(first_j + s.count[swapped ? g.species2 : g.species1]),
        first_k(s.first[swapped ? g.species1 : g.species2]),
        last_k(first_k + s.count[swapped ? g.species1 : g.species2]),
        same(g.species1 == g.species2) {}

  long blocks() const {
    return static_cast<long>(last_j - first_j) * ((last_k - first_k + width<T> - 1) / width<T>);
  }
  int first_block(int j) const { return same ? (j + 1) / width<T> * width<T> : first_k; }
  /// Lanes of the block at k that hold a neighbor, and of two equal species one behind j.
  Mask lanes(int j, int k) const {
    Mask mask = simd::all_lanes<T>;
    if (k + width<T> > last_k) mask >>= k + width<T> - last_k;
    if (same && k <= j) mask &= mask << (j + 1 - k);
    return mask;
  }
};

/// Rows of arrays, resolved once: a store might change any pointer that stands in memory.
template <class T>
struct Rows {
  T* row[kMaxFunctions];

  Rows(T* first, int count, int stride) {
    for (int k = 0; k < count; ++k) row[k] = first + k * stride;
  }
  Rows(T* first, int count, int stride, const int* numbers) {
    for (int k = 0; k < count; ++k) row[k] = first + numbers[k] * stride;
  }
  T* operator[](int k) const { return row[k]; }
};

/// Packs cosines, squared distances (into `far`) and products of shapes; with a direction also the rates of
/// change of cosines, of r_jk² / 2 and of the logarithms of the products, into the scratch arrays behind the
/// terms.
template <class T, bool kDirection>
void find_triplets(const AngularGroup<T>& group, const Shell<T>& shell, Triplets<T>& triplets) {
  const AngularGroup<T> g = group;
  const Shell<T> s = shell;
  triplets.swapped = Loops<T>(g, s, true).blocks() < Loops<T>(g, s, false).blocks();
  const Triplets<T> t = triplets;
  const Loops<T> loops(g, s, t.swapped);
  const Rows<T> given(s.value, g.num_shapes, s.stride, g.shapes),
      slopes(s.slope, g.num_shapes, s.stride, g.shapes);
  const Rows<T> values(t.value, g.num_shapes, t.stride);
  const Rows<T> rates(t.scratch + 2 * g.num_terms * t.stride, kDirection ? g.num_shapes + 2 : 0, t.stride);
  const Vec<T> radius2 = broadcast<T>(s.cutoff.radius * s.cutoff.radius);
  unsigned short* masks = t.masks;
  int count = 0;
  for (int j = loops.first_j; j < loops.last_j; ++j) {
    const Vec<T> xj = broadcast(s.x[j]), yj = broadcast(s.y[j]), zj = broadcast(s.z[j]);
    const Vec<T> uxj = broadcast(s.ux[j]), uyj = broadcast(s.uy[j]), uzj = broadcast(s.uz[j]);
    for (int k = loops.first_block(j); k < loops.last_k; k += width<T>) {
      Mask mask = loops.lanes(j, k);
      const Vec<T> dx = load(s.x + k) - xj, dy = load(s.y + k) - yj, dz = load(s.z + k) - zj;
      const Vec<T> distance2 = dx * dx + dy * dy + dz * dz;
      if (g.narrow) mask &= simd::less(distance2, radius2);
      *masks++ = static_cast<unsigned short>(mask);
      if (!mask) continue;
      const Vec<T> ux = load(s.ux + k), uy = load(s.uy + k), uz = load(s.uz + k);
      const Vec<T> cosine = ux * uxj + uy * uyj + uz * uzj;
      simd::pack(t.angle + count, mask, cosine);
      if (g.narrow) simd::pack(t.far + count, mask, distance2);
      for (int e = 0; e < g.num_shapes; ++e)
        simd::pack(values[e] + count, mask, given[e][j] * load(given[e] + k));
      if (kDirection) {
        const Vec<T> vx = load(s.gx + k), vy = load(s.gy + k), vz = load(s.gz + k), vr = load(s.gr + k);
        const Vec<T> from_k = vx * uxj + vy * uyj + vz * uzj - cosine * vr;
        const Vec<T> from_j = ux * s.gx[j] + uy * s.gy[j] + uz * s.gz[j] - cosine * s.gr[j];
        for (int e = 0; e < g.num_shapes; ++e)
          simd::pack(rates[e] + count, mask,
                     slopes[e][j] * s.r[j] * s.gr[j] + load(slopes[e] + k) * load(s.r + k) * vr);
        simd::pack(rates[g.num_shapes] + count, mask,
                   from_k * load(s.inverse_r + k) + from_j * s.inverse_r[j]);
        simd::pack(rates[g.num_shapes + 1] + count, mask,
                   dx * (vx - s.gx[j]) + dy * (vy - s.gy[j]) + dz * (vz - s.gz[j]));
      }
      count += simd::count_lanes(mask);
    }
  }
  const int end = (count + width<T> - 1) / width<T> * width<T>;
  for (; count < end; ++count) {
    t.angle[count] = T(0);
    if (g.narrow) t.far[count] = T(0.25) * s.cutoff.radius * s.cutoff.radius;
    for (int e = 0; e < g.num_shapes; ++e) values[e][count] = T(0);
    for (int e = 0; kDirection && e < g.num_shapes + 2; ++e) rates[e][count] = T(0);
  }
  triplets.count = end;
}

/// Gaussians of r² whose exponents often are multiples of the smallest one: then powers of its exponential
/// are cheaper, and lose less than two digits of double precision.
template <class T>
struct Gaussians {
  int count, base = 0;
  T eta[kMaxFunctions];
  int power_of_base[kMaxFunctions];  // 0: not a multiple

  Gaussians(const AngularGroup<T>& g, const Shape<T>* shapes) : count(g.num_shapes) {
    constexpr int kMaxPower = sizeof(T) == 8 ? 32 : 0;
    for (int e = 0; e < count; ++e) {
      eta[e] = shapes[g.shapes[e]].eta;
      if (eta[e] < eta[base]) base = e;
    }
    for (int e = 0; e < count; ++e) {
      const T ratio = eta[e] / (eta[base] > T(0) ? eta[base] : T(1));
      const int whole = ratio < T(kMaxPower + 1) ? static_cast<int>(ratio + T(0.5)) : 0;
      const T error = ratio - T(whole);
      const bool is_multiple = error * error < T(1e-28) * ratio * ratio;
      power_of_base[e] = is_multiple && eta[base] > T(0) && whole <= kMaxPower ? whole : 0;
    }
  }

  /// Multiplies each of the values at n with its Gaussian and a common factor.
  void multiply(const Rows<T>& values, int n, Vec<T> square, Vec<T> factor) const {
    const Vec<T> first = exp_negative<T>(-eta[base] * square);
    for (int e = 0; e < count; ++e) {
      const Vec<T> w =
          power_of_base[e] ? power<T>(first, power_of_base[e]) : exp_negative<T>(-eta[e] * square);
      store<T>(values[e] + n, load(values[e] + n) * (factor * w));
    }
  }
};

/// Multiplies the third side into the values of narrow triplets, whose squared r_jk stand in `far`, and
/// leaves its slopes there.
template <class T>
void third_sides(const AngularGroup<T>& group, const Shell<T>& shell, const Triplets<T>& triplets) {
  const AngularGroup<T> g = group;
  const Shell<T> s = shell;
  const Triplets<T> t = triplets;
  const Rows<T> values(t.value, g.num_shapes, t.stride);
  const Gaussians<T> gaussians(g, s.shapes);
  Shape<T> shapes[kMaxFunctions];
  for (int e = 0; e < g.num_shapes; ++e) shapes[e] = s.shapes[g.shapes[e]];
  for (int n = 0; n < t.count; n += width<T>) {
    const Vec<T> square = simd::max<T>(load(t.far + n), T(1e-12));
    const Vec<T> inverse = simd::inverse_sqrt(square), r = square * inverse;
    if (g.common_slope) {
      Vec<T> f, f_slope;
      cutoff_function<T>(s.cutoff, r, f, f_slope);
      gaussians.multiply(values, n, square, f);
      store<T>(t.far + n, f_slope * inverse);
      continue;
    }
    Vec<T> f = r, f_slope = r, w, slope;
    if (!shapes[0].compact) cutoff_function<T>(s.cutoff, r, f, f_slope);
    for (int e = 0; e < g.num_shapes; ++e) {
      shape<T>(shapes[e], r, f, f_slope, w, slope);
      store<T>(values[e] + n, load(values[e] + n) * w);
      store<T>(t.far + e * t.stride + n, slope * inverse);
    }
  }
}

/// w'/(w r) at r_jk of a shape; zero for wide functions.
template <class T>
inline Vec<T> far_slope(const AngularGroup<T>& g, const Triplets<T>& t, T eta, int e, int n) {
  if (!g.narrow) return broadcast<T>(T(0));
  if (!g.common_slope) return load(t.far + e * t.stride + n);
  return load(t.far + n) - T(2) * eta;
}

/// Turns cosines into angles, for compact terms, and leaves dθ/dcos θ.
template <class T>
void find_angles(const Triplets<T>& triplets) {
  const Triplets<T> t = triplets;
  // The slope is infinite at the ends, where that of the window is zero.
  constexpr T last = sizeof(T) == 4 ? T(1 - 1e-6) : T(1 - 1e-14);
  for (int n = 0; n < t.count; n += width<T>) {
    Vec<T> c = load(t.angle + n);
    c = simd::max<T>(c < last ? c : broadcast<T>(last), -last);
    store<T>(t.angle + n, arc_cosine<T>(c));
    store<T>(t.angle_slope + n, -simd::inverse_sqrt((T(1) - c) * (T(1) + c)));
  }
}

/// P and dP/dcos θ of one compact term.
template <class T, bool kDerivative>
void compact_term_row(const Term<T>& given, const Triplets<T>& triplets, T* p, T* dp) {
  const Term<T> term = given;
  const Triplets<T> t = triplets;
  for (int n = 0; n < t.count; n += width<T>) {
    Vec<T> value, slope;
    compact_function<T>(term.core, false, term.middle, term.inverse_half_width, load(t.angle + n), value,
                        slope);
    store<T>(p + n, value);
    if (kDerivative) store<T>(dp + n, value * slope * load(t.angle_slope + n));
  }
}

/// P and dP/dcos θ of one power; kZeta: its zeta, 0: any.
template <class T, int kZeta, bool kDerivative>
void power_term_row(const Term<T>& given, const T* cosine, int count, T* p, T* dp) {
  const Term<T> term = given;
  for (int n = 0; n < count; n += width<T>) {
    const Vec<T> base = simd::max<T>(T(1) + term.lambda * load(cosine + n), T(0));
    const Vec<T> q = kZeta ? power<T>(base, kZeta - 1) : any_power<T>(base, term.integer_zeta, term.zeta);
    store<T>(p + n, q * base);
    if (kDerivative) store<T>(dp + n, term.zeta * term.lambda * q);
  }
}

/// P and dP/dcos θ of all terms into the scratch arrays.
template <class T, bool kDerivative>
void angular_terms(const AngularGroup<T>& g, const Triplets<T>& t) {
  for (int u = 0; u < g.num_terms; ++u) {
    const Term<T>& term = g.terms[u];
    T* const p = t.scratch + u * t.stride;
    T* const dp = t.scratch + (g.num_terms + u) * t.stride;
    if (g.compact_terms) {
      compact_term_row<T, kDerivative>(term, t, p, dp);
      continue;
    }
    switch (term.integer_zeta) {
      case 1:
        power_term_row<T, 1, kDerivative>(term, t.angle, t.count, p, dp);
        break;
      case 2:
        power_term_row<T, 2, kDerivative>(term, t.angle, t.count, p, dp);
        break;
      case 4:
        power_term_row<T, 4, kDerivative>(term, t.angle, t.count, p, dp);
        break;
      case 16:
        power_term_row<T, 16, kDerivative>(term, t.angle, t.count, p, dp);
        break;
      default:
        power_term_row<T, 0, kDerivative>(term, t.angle, t.count, p, dp);
        break;
    }
  }
}

}  // namespace
}  // namespace acsf
}  // namespace nearsight
