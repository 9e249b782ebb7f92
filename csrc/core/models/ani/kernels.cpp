#include "core/models/ani/kernels.hpp"

#include "core/models/shared/simd_lanes.hpp"
#include "core/models/shared/simd_log.hpp"

namespace nearsight {
namespace ani {
namespace {

using simd::broadcast;
using simd::exp_negative;
using simd::load;
using simd::store;
using simd::Vec;
using simd::width;

/// Cutoff function of x = r / cutoff and its derivative with respect to x; zero from x = 1 on.
template <class T>
inline void cutoff(CutoffFunction kind, Vec<T> x, Vec<T>& f, Vec<T>& df) {
  const Vec<T> one = broadcast<T>(T(1)), zero = broadcast<T>(T(0));
  if (kind == CutoffFunction::cos) {
    constexpr T pi = T(3.14159265358979323846);
    Vec<T> s, c;
    simd::sin_cos<T>(pi * (T(0.5) - (x < one ? x : one)), s, c);
    f = T(0.5) * (one + s);
    df = T(-0.5) * pi * c;
  } else {  // exp(1 - 1 / (1 - x²))
    const Vec<T> inverse = one / (one - (x < one ? x * x : zero));
    f = exp_negative<T>(one - inverse);
    df = T(-2) * x * inverse * inverse * f;
  }
  f = x < one ? f : zero;
  df = x < one ? df : zero;
}

template <class T>
void prepare(CutoffFunction kind, Shell<T>& s) {
  const T inv_cutoff = T(1) / s.cutoff;
  for (int k = 0; k < s.stride; k += width<T>) {
    const Vec<T> r = load(s.r + k);
    Vec<T> f, df;
    cutoff<T>(kind, r * inv_cutoff, f, df);
    store<T>(s.inv_r + k, T(1) / r);
    store<T>(s.fc + k, f);
    store<T>(s.dfc + k, df * inv_cutoff);
  }
}

template <class T>
inline void clear(T* sums, int count) {
  for (int n = 0; n < count; ++n) store<T>(sums + n * kPad, broadcast<T>(T(0)));
}
template <class T>
inline void add(T* at, Vec<T> value) {
  store<T>(at, load(at) + value);
}
template <class T>
inline void add_sums(const T* sums, int count, double* out) {
  T four[4];
  for (int n = 0; n < count; n += 4) {
    const auto at = [&](int k) { return load(sums + (n + k < count ? n + k : n) * kPad); };
    simd::sum_four(at(0), at(1), at(2), at(3), four);
    for (int k = 0; k < 4 && n + k < count; ++k) out[n + k] += four[k];
  }
}

// ---- radial functions

/// Calls body(k, n, value, derivative) for each block of neighbors of a species and each function.
template <class T, class Body>
inline void for_radial(const RadialTerms<T>& t, const Shell<T>& s, int species, const Body& body) {
  const int first = s.first[species], last = first + s.count[species];
  for (int k = first; k < last; k += width<T>) {
    const Vec<T> r = load(s.r + k), fc = T(0.25) * load(s.fc + k), dfc = T(0.25) * load(s.dfc + k);
    for (int n = 0; n < t.num_shifts; ++n) {
      const Vec<T> d = r - t.shifts[n];
      const Vec<T> e = exp_negative<T>(-t.eta * d * d);
      body(k, n, e * fc, e * (dfc - T(2) * t.eta * d * fc));
    }
  }
}

template <class T>
void radial_features(const RadialTerms<T>& t, const Shell<T>& s, int species, T* sums, double* out) {
  clear(sums, t.num_shifts);
  for_radial(t, s, species, [&](int, int n, Vec<T> value, Vec<T>) { add<T>(sums + n * kPad, value); });
  add_sums(sums, t.num_shifts, out);
}

template <class T>
void radial_reverse(const RadialTerms<T>& t, const Shell<T>& s, int species, const T* cotangents) {
  for_radial(t, s, species,
             [&](int k, int n, Vec<T>, Vec<T> derivative) { add<T>(s.gr + k, cotangents[n] * derivative); });
}

template <class T>
void radial_tangent(const RadialTerms<T>& t, const Shell<T>& s, int species, T* sums, double* out) {
  clear(sums, t.num_shifts);
  for_radial(t, s, species, [&](int k, int n, Vec<T>, Vec<T> derivative) {
    add<T>(sums + n * kPad, derivative * load(s.gr + k));
  });
  add_sums(sums, t.num_shifts, out);
}

// ---- angular functions

/// Packed quantities of the pairs of neighbors of two species.
template <class T>
struct Pairs {
  int count;
  T *cosine, *mean, *ends;     // of the angle itself; (r_j + r_k)/2; fc_j fc_k, 0 behind the last pair
  T *dcosine, *dmean, *dends;  // derivatives along a direction
};

template <class T>
inline Pairs<T> pair_arrays(const Shells<T>& s) {
  const auto array = [&](int n) { return s.pairs + n * s.pair_stride; };
  return {0, array(0), array(1), array(2), array(3), array(4), array(5)};
}

/// Calls body(j, k, mask) for one neighbor of a species and a vector of neighbors of the other: the lanes of
/// the mask are all pairs, each once.
template <class T, class Body>
inline void for_pairs(const Shell<T>& s, int species_j, int species_k, const Body& body) {
  const bool same = species_j == species_k;
  const int first_j = s.first[species_j], last_j = first_j + s.count[species_j];
  const int first_k = s.first[species_k], last_k = first_k + s.count[species_k];
  for (int j = first_j; j < last_j; ++j)
    for (int k = same ? (j + 1) / width<T> * width<T> : first_k; k < last_k; k += width<T>) {
      simd::Mask mask = simd::all_lanes<T>;
      if (last_k - k < width<T>) mask >>= width<T> - (last_k - k);
      if (same && k <= j) mask &= simd::all_lanes<T> << (j + 1 - k);
      if (mask) body(j, k, mask);
    }
}

template <class T>
inline Vec<T> cosine_of(const Shell<T>& s, int j, int k) {
  const Vec<T> dot = s.x[j] * load(s.x + k) + s.y[j] * load(s.y + k) + s.z[j] * load(s.z + k);
  return dot * load(s.inv_r + k) * s.inv_r[j];
}

template <class T>
inline void pack_pairs(const Shell<T>& s, int a, int b, Pairs<T>& p) {
  for_pairs(s, a, b, [&](int j, int k, simd::Mask mask) {
    simd::pack(p.cosine + p.count, mask, cosine_of(s, j, k));
    simd::pack(p.mean + p.count, mask, T(0.5) * (load(s.r + k) + s.r[j]));
    simd::pack(p.ends + p.count, mask, s.fc[j] * load(s.fc + k));
    p.count += simd::count_lanes(mask);
  });
  for (int n = p.count; n < padded(p.count); ++n) p.cosine[n] = p.mean[n] = p.ends[n] = T(0);
}

/// Packs the derivatives along the direction in (gx, gy, gz), whose radial part is gr.
template <class T>
inline void pack_derivatives(const Shell<T>& s, int a, int b, const Pairs<T>& p) {
  int n = 0;
  for_pairs(s, a, b, [&](int j, int k, simd::Mask mask) {
    const T v_j = s.gr[j];
    const Vec<T> v_k = load(s.gr + k), inv_r_k = load(s.inv_r + k);
    const Vec<T> dot = s.gx[j] * load(s.x + k) + s.gy[j] * load(s.y + k) + s.gz[j] * load(s.z + k) +
                       load(s.gx + k) * s.x[j] + load(s.gy + k) * s.y[j] + load(s.gz + k) * s.z[j];
    const Vec<T> radial = v_j * s.inv_r[j] + v_k * inv_r_k;
    simd::pack(p.dcosine + n, mask, dot * inv_r_k * s.inv_r[j] - cosine_of(s, j, k) * radial);
    simd::pack(p.dmean + n, mask, T(0.5) * (v_k + v_j));
    simd::pack(p.dends + n, mask, s.dfc[j] * v_j * load(s.fc + k) + s.fc[j] * load(s.dfc + k) * v_k);
    n += simd::count_lanes(mask);
  });
  for (; n < padded(p.count); ++n) p.dcosine[n] = p.dmean[n] = p.dends[n] = T(0);
}

/// value[angles] = 2 ((1 + cos(θ - angle))/2)^zeta and derivative[angles] with respect to the cosine, kPad
/// numbers each; cos(θ - angle) = cos θ cos(angle) + sin θ sin(angle), where sin θ is never 0.
template <class T>
inline void angle_terms(const AngularTerms<T>& t, Vec<T> cosine, T* value, T* derivative) {
  constexpr T shrink = T(0.95), smallest = T(1e-30);
  const Vec<T> c = shrink * cosine, one = broadcast<T>(T(1));
  const Vec<T> sine = simd::sqrt(one - c * c), ratio = c / sine;
  for (int u = 0; u < t.num_angles; ++u) {
    const Vec<T> half = T(0.5) * (one + c * t.cos_angles[u] + sine * t.sin_angles[u]);
    const Vec<T> base = simd::max<T>(half < one ? half : one, smallest);
    const Vec<T> power = exp_negative<T>((t.zeta - T(1)) * simd::log<T>(base));
    store<T>(value + u * kPad, T(2) * power * base);
    store<T>(derivative + u * kPad, t.zeta * shrink * power * (t.cos_angles[u] - ratio * t.sin_angles[u]));
  }
}

/// exp(-eta (mean - shift)²) of shift number n, and its derivative with respect to the mean.
template <class T>
inline Vec<T> shell_term(const AngularTerms<T>& t, Vec<T> mean, int n, Vec<T>& derivative) {
  const Vec<T> d = mean - t.shifts[n];
  const Vec<T> e = exp_negative<T>(-t.eta * d * d);
  derivative = T(-2) * t.eta * d * e;
  return e;
}

template <class T>
void angular_features(const AngularTerms<T>& t, const Shells<T>& s, int a, int b, double* out) {
  const int angles = t.num_angles, functions = t.num_shifts * angles;
  T *const value = s.angles, *const derivative = value + angles * kPad;
  Pairs<T> p = pair_arrays(s);
  pack_pairs(s.angular, a, b, p);
  clear(s.sums, functions);
  for (int i = 0; i < p.count; i += width<T>) {
    angle_terms(t, load(p.cosine + i), value, derivative);
    const Vec<T> mean = load(p.mean + i), ends = load(p.ends + i);
    for (int n = 0; n < t.num_shifts; ++n) {
      Vec<T> slope;
      const Vec<T> e = ends * shell_term(t, mean, n, slope);
      for (int u = 0; u < angles; ++u) add<T>(s.sums + (n * angles + u) * kPad, e * load(value + u * kPad));
    }
  }
  add_sums(s.sums, functions, out);
}

/// Adds the gradients of pairs to those of the neighbors; p holds those with respect to cosine, mean and
/// ends.
template <class T>
void unpack_gradients(const Shell<T>& s, int a, int b, const Pairs<T>& p) {
  int n = 0;
  for_pairs(s, a, b, [&](int j, int k, simd::Mask mask) {
    const Vec<T> by_cosine = simd::spread(p.cosine + n, mask), by_ends = simd::spread(p.ends + n, mask);
    const Vec<T> by_mean = T(0.5) * simd::spread(p.mean + n, mask);
    const Vec<T> cosine = cosine_of(s, j, k), inv_r_k = load(s.inv_r + k);
    n += simd::count_lanes(mask);
    // dcos/dr_k = r_j / (|r_j| |r_k|) - cos r_k / |r_k|²: a part along r_j, the rest is radial.
    const Vec<T> along = by_cosine * inv_r_k * s.inv_r[j];
    const Vec<T> by_r_j = by_mean + by_ends * s.dfc[j] * load(s.fc + k) - by_cosine * cosine * s.inv_r[j];
    add<T>(s.gx + k, along * s.x[j]);
    add<T>(s.gy + k, along * s.y[j]);
    add<T>(s.gz + k, along * s.z[j]);
    add<T>(s.gr + k, by_mean + by_ends * s.fc[j] * load(s.dfc + k) - by_cosine * cosine * inv_r_k);
    T sums[4];
    simd::sum_four(along * load(s.x + k), along * load(s.y + k), along * load(s.z + k), by_r_j, sums);
    s.gx[j] += sums[0];
    s.gy[j] += sums[1];
    s.gz[j] += sums[2];
    s.gr[j] += sums[3];
  });
}

template <class T>
void angular_reverse(const AngularTerms<T>& t, const Shells<T>& s, int a, int b, const T* cotangents) {
  const int angles = t.num_angles;
  T *const value = s.angles, *const derivative = value + angles * kPad;
  Pairs<T> p = pair_arrays(s);
  pack_pairs(s.angular, a, b, p);
  for (int i = 0; i < p.count; i += width<T>) {
    angle_terms(t, load(p.cosine + i), value, derivative);
    const Vec<T> mean = load(p.mean + i), ends = load(p.ends + i), zero = broadcast<T>(T(0));
    Vec<T> by_ends = zero, by_cosine = zero, by_mean = zero;
    for (int n = 0; n < t.num_shifts; ++n) {
      Vec<T> slope, sum_value = zero, sum_derivative = zero;
      const Vec<T> e = shell_term(t, mean, n, slope);
      for (int u = 0; u < angles; ++u) {
        sum_value += cotangents[n * angles + u] * load(value + u * kPad);
        sum_derivative += cotangents[n * angles + u] * load(derivative + u * kPad);
      }
      by_ends += e * sum_value;
      by_cosine += e * sum_derivative;
      by_mean += slope * sum_value;
    }
    store<T>(p.cosine + i, by_cosine * ends);
    store<T>(p.mean + i, by_mean * ends);
    store<T>(p.ends + i, by_ends);
  }
  unpack_gradients(s.angular, a, b, p);
}

template <class T>
void angular_tangent(const AngularTerms<T>& t, const Shells<T>& s, int a, int b, double* out) {
  const int angles = t.num_angles, functions = t.num_shifts * angles;
  T *const value = s.angles, *const derivative = value + angles * kPad;
  Pairs<T> p = pair_arrays(s);
  pack_pairs(s.angular, a, b, p);
  pack_derivatives(s.angular, a, b, p);
  clear(s.sums, functions);
  for (int i = 0; i < p.count; i += width<T>) {
    angle_terms(t, load(p.cosine + i), value, derivative);
    const Vec<T> mean = load(p.mean + i), ends = load(p.ends + i);
    for (int n = 0; n < t.num_shifts; ++n) {
      Vec<T> slope;
      const Vec<T> e = shell_term(t, mean, n, slope);
      const Vec<T> at_value = e * load(p.dends + i) + slope * load(p.dmean + i) * ends;
      const Vec<T> at_derivative = e * ends * load(p.dcosine + i);
      for (int u = 0; u < angles; ++u)
        add<T>(s.sums + (n * angles + u) * kPad,
               at_value * load(value + u * kPad) + at_derivative * load(derivative + u * kPad));
    }
  }
  add_sums(s.sums, functions, out);
}

// ---- the vector of one center

template <class T>
void clear_gradients(const Shell<T>& s) {
  const Vec<T> zero = broadcast<T>(T(0));
  for (int k = 0; k < s.stride; k += width<T>) {
    store<T>(s.gx + k, zero);
    store<T>(s.gy + k, zero);
    store<T>(s.gz + k, zero);
    store<T>(s.gr + k, zero);
  }
}

/// Adds the radial part gr to gx, gy, gz.
template <class T>
void add_radial_part(const Shell<T>& s) {
  for (int k = 0; k < s.stride; k += width<T>) {
    const Vec<T> g = load(s.gr + k) * load(s.inv_r + k);
    add<T>(s.gx + k, g * load(s.x + k));
    add<T>(s.gy + k, g * load(s.y + k));
    add<T>(s.gz + k, g * load(s.z + k));
  }
}

/// gr = radial part of gx, gy, gz.
template <class T>
void take_radial_part(const Shell<T>& s) {
  for (int k = 0; k < s.stride; k += width<T>) {
    const Vec<T> dot =
        load(s.gx + k) * load(s.x + k) + load(s.gy + k) * load(s.y + k) + load(s.gz + k) * load(s.z + k);
    store<T>(s.gr + k, dot * load(s.inv_r + k));
  }
}

/// Calls body(a, b, first feature) for all pairs of species that have neighbors; the vector runs over the
/// species of which there are more.
template <class T, class Body>
inline void for_species_pairs(const Terms<T>& t, const Shell<T>& s, const Body& body) {
  const int size = t.angular.num_shifts * t.angular.num_angles;
  int feature = t.num_species * t.radial.num_shifts;
  for (int a = 0; a < t.num_species; ++a)
    for (int b = a; b < t.num_species; ++b, feature += size) {
      if (!s.count[a] || !s.count[b]) continue;
      if (s.count[a] > s.count[b])
        body(b, a, feature);
      else
        body(a, b, feature);
    }
}

template <class T>
void features(const Terms<T>& t, const Shells<T>& s, double* out) {
  for (int a = 0; a < t.num_species; ++a)
    if (s.radial.count[a]) radial_features(t.radial, s.radial, a, s.sums, out + a * t.radial.num_shifts);
  for_species_pairs(t, s.angular,
                    [&](int a, int b, int feature) { angular_features(t.angular, s, a, b, out + feature); });
}

template <class T>
void reverse(const Terms<T>& t, const Shells<T>& s, const T* cotangents) {
  clear_gradients(s.radial);
  clear_gradients(s.angular);
  for (int a = 0; a < t.num_species; ++a)
    radial_reverse(t.radial, s.radial, a, cotangents + a * t.radial.num_shifts);
  for_species_pairs(t, s.angular, [&](int a, int b, int feature) {
    angular_reverse(t.angular, s, a, b, cotangents + feature);
  });
  add_radial_part(s.radial);
  add_radial_part(s.angular);
}

template <class T>
void tangent(const Terms<T>& t, const Shells<T>& s, double* out) {
  take_radial_part(s.radial);
  take_radial_part(s.angular);
  for (int a = 0; a < t.num_species; ++a)
    radial_tangent(t.radial, s.radial, a, s.sums, out + a * t.radial.num_shifts);
  for_species_pairs(t, s.angular,
                    [&](int a, int b, int feature) { angular_tangent(t.angular, s, a, b, out + feature); });
}

template <class T>
constexpr Kernels<T> table() {
  return {prepare<T>, features<T>, reverse<T>, tangent<T>};
}

}  // namespace

NEARSIGHT_DEFINE_KERNELS(float)
NEARSIGHT_DEFINE_KERNELS(double)

}  // namespace ani
}  // namespace nearsight
