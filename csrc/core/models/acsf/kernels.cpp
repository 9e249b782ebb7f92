#include "core/models/acsf/kernels.hpp"

#include "core/models/shared/simd.hpp"

namespace nearsight {
namespace acsf {
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
  x = x < one ? x : one;
  const Vec<T> x2 = x * x, y = x - one;
  switch (kind) {
    case CutoffFunction::cos: {
      Vec<T> s, c;
      simd::sin_cos<T>(T(3.14159265358979323846) * (T(0.5) - x), s, c);
      f = T(0.5) * (one + s);
      df = T(-0.5 * 3.14159265358979323846) * c;
      break;
    }
    case CutoffFunction::tanh3: {
      const Vec<T> e = exp_negative<T>(T(2) * y);
      const Vec<T> t = (one - e) / (one + e);
      f = t * t * t;
      df = T(-3) * t * t * (one - t * t);
      break;
    }
    case CutoffFunction::poly1:
      f = (T(2) * x - T(3)) * x2 + one;
      df = T(6) * x * y;
      break;
    case CutoffFunction::poly2:
      f = ((T(15) - T(6) * x) * x - T(10)) * x2 * x + one;
      df = T(-30) * x2 * y * y;
      break;
    case CutoffFunction::poly3:
      f = (x * (x * (T(20) * x - T(70)) + T(84)) - T(35)) * x2 * x2 + one;
      df = T(140) * x2 * x * y * y * y;
      break;
    case CutoffFunction::poly4:
    default:
      f = (x * (x * ((T(315) - T(70) * x) * x - T(540)) + T(420)) - T(126)) * x2 * x2 * x + one;
      df = T(-630) * x2 * x2 * y * y * y * y;
      break;
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
    df *= inv_cutoff;
    store<T>(s.inv_r + k, T(1) / r);
    store<T>(s.fc + k, f);
    store<T>(s.dfc + k, df);
    for (int e = 0; e < s.num_exponents; ++e) {
      const Vec<T> d = r - s.shift[e];
      const Vec<T> g = exp_negative<T>(-s.eta[e] * d * d);
      store<T>(s.weight + e * s.stride + k, g * f);
      store<T>(s.dweight + e * s.stride + k, g * (df - T(2) * s.eta[e] * d * f));
    }
    const Vec<T> zero = broadcast<T>(T(0));
    store<T>(s.gx + k, zero);
    store<T>(s.gy + k, zero);
    store<T>(s.gz + k, zero);
    store<T>(s.gr + k, zero);
  }
}

// ---- radial functions
// ----------------------------------------------------------------------------------------------

/// Calls body(k, n, value, derivative) for each block of neighbors and each function of the group.
template <class T, class Body>
inline void for_radial(const RadialGroup<T>& g, const Shell<T>& s, const Body& body) {
  const int first = s.first[g.species], last = first + s.count[g.species];
  for (int k = first; k < last; k += width<T>) {
    const Vec<T> r = load(s.r + k), fc = load(s.fc + k), dfc = load(s.dfc + k);
    for (int n = 0; n < g.num_functions; ++n) {
      const Vec<T> d = r - g.shift[n];
      const Vec<T> e = exp_negative<T>(-g.eta[n] * d * d);
      body(k, n, e * fc, e * (dfc - T(2) * g.eta[n] * d * fc));
    }
  }
}

template <class T>
void radial_features(const RadialGroup<T>& g, const Shell<T>& s, double* features) {
  Vec<T> sums[kMaxRadial];
  for (int n = 0; n < g.num_functions; ++n) sums[n] = broadcast<T>(T(0));
  for_radial(g, s, [&](int, int n, Vec<T> value, Vec<T>) { sums[n] += value; });
  for (int n = 0; n < g.num_functions; ++n) features[g.out[n]] += simd::sum<T>(sums[n]);
}

template <class T>
void radial_reverse(const RadialGroup<T>& g, Shell<T>& s, const T* cotangents) {
  for_radial(g, s, [&](int k, int n, Vec<T>, Vec<T> derivative) {
    store<T>(s.gr + k, load(s.gr + k) + cotangents[g.out[n]] * derivative);
  });
}

template <class T>
void radial_tangent(const RadialGroup<T>& g, const Shell<T>& s, double* tangents) {
  Vec<T> sums[kMaxRadial];
  for (int n = 0; n < g.num_functions; ++n) sums[n] = broadcast<T>(T(0));
  for_radial(g, s, [&](int k, int n, Vec<T>, Vec<T> derivative) { sums[n] += derivative * load(s.gr + k); });
  for (int n = 0; n < g.num_functions; ++n) tangents[g.out[n]] += simd::sum<T>(sums[n]);
}

// ---- angular functions
// ---------------------------------------------------------------------------------------------

/// base^n for n >= 0 from the table of base^(2^k).
template <class T>
inline Vec<T> power(const Vec<T>* squares, int n) {
  Vec<T> p = broadcast<T>(T(1));
  for (int k = 0; n; ++k, n >>= 1)
    if (n & 1) p = p * squares[k];
  return p;
}

/// p = (1 + lambda cos)^zeta and dp = dp/dcos for all terms of the group.
template <class T>
inline void angular_terms(const AngularGroup<T>& g, Vec<T> cosine, Vec<T>* p, Vec<T>* dp) {
  constexpr int kSquares = 8;  // integer_zeta is at most 2^8
  Vec<T> squares[kSquares];
  int known = 0;
  for (int u = 0; u < g.num_terms; ++u) {
    const AngularTerm<T>& t = g.terms[u];
    if (t.new_base) {
      squares[0] = simd::max<T>(T(1) + t.lambda * cosine, T(0));
      known = 1;
    }
    Vec<T> q;
    if (t.integer_zeta) {
      for (; (t.integer_zeta - 1) >> known; ++known) squares[known] = squares[known - 1] * squares[known - 1];
      q = power<T>(squares, t.integer_zeta - 1);
    } else {
      for (int l = 0; l < width<T>; ++l) q[l] = static_cast<T>(__builtin_pow(squares[0][l], t.zeta - T(1)));
    }
    p[u] = q * squares[0];
    dp[u] = t.zeta * t.lambda * q;
  }
}

/// One block of triplets j, center, k.
template <class T>
struct Triplets {
  Vec<T> cosine, inv_r_k, dot;
  Vec<T> r_jk, inv_r_jk, fc_jk, dfc_jk;  // narrow only
  Vec<T> use;                            // 1, or 0 for pairs that the other order counts
};

/// Calls body(j, k, triplets) for each neighbor j and each block of neighbors k of the group.
template <class T, class Body>
inline void for_triplets(CutoffFunction kind, const AngularGroup<T>& g, const Shell<T>& s, const Body& body) {
  const int first_j = s.first[g.species1], last_j = first_j + s.count[g.species1];
  const int first_k = s.first[g.species2], last_k = first_k + s.count[g.species2];
  const bool same = g.species1 == g.species2;
  const T inv_cutoff = T(1) / s.cutoff;
  const Vec<T> lanes = simd::lane_numbers<T>(), one = broadcast<T>(T(1)), zero = broadcast<T>(T(0));
  for (int j = first_j; j < last_j; ++j) {
    const T x = s.x[j], y = s.y[j], z = s.z[j], r = s.r[j], inv_r = s.inv_r[j];
    for (int k = same ? (j + 1) / width<T> * width<T> : first_k; k < last_k; k += width<T>) {
      Triplets<T> t;
      t.dot = x * load(s.x + k) + y * load(s.y + k) + z * load(s.z + k);
      t.inv_r_k = load(s.inv_r + k);
      t.cosine = t.dot * t.inv_r_k * inv_r;
      t.use = same && k <= j ? (lanes > broadcast<T>(static_cast<T>(j - k)) ? one : zero) : one;
      if (g.narrow) {
        const Vec<T> r_k = load(s.r + k);
        const Vec<T> squared = simd::max<T>(r * r + r_k * r_k - T(2) * t.dot, T(1e-12));
        t.r_jk = simd::sqrt(squared);
        t.inv_r_jk = T(1) / t.r_jk;
        cutoff<T>(kind, t.r_jk * inv_cutoff, t.fc_jk, t.dfc_jk);
        t.dfc_jk *= inv_cutoff;
      }
      body(j, k, t);
    }
  }
}

/// The factor of the edge j-k and its derivative with respect to r_jk; 1 and 0 for the wide functions.
template <class T>
inline void third_side(const AngularGroup<T>& g, const Shell<T>& s, int exponent, const Triplets<T>& t,
                       Vec<T>& b, Vec<T>& db) {
  b = broadcast<T>(T(1));
  db = broadcast<T>(T(0));
  if (!g.narrow) return;
  const Vec<T> d = t.r_jk - s.shift[exponent];
  const Vec<T> e = exp_negative<T>(-s.eta[exponent] * d * d);
  b = e * t.fc_jk;
  db = e * (t.dfc_jk - T(2) * s.eta[exponent] * d * t.fc_jk);
}

template <class T>
void angular_features(CutoffFunction kind, const AngularGroup<T>& g, const Shell<T>& s, double* features) {
  Vec<T> sums[kMaxExponents * kMaxTerms];
  for (int n = 0; n < g.num_exponents * g.num_terms; ++n) sums[n] = broadcast<T>(T(0));
  for_triplets(kind, g, s, [&](int j, int k, const Triplets<T>& t) {
    Vec<T> p[kMaxTerms], dp[kMaxTerms], b, db;
    angular_terms(g, t.cosine, p, dp);
    for (int e = 0; e < g.num_exponents; ++e) {
      const T* const weight = s.weight + g.exponent[e] * s.stride;
      third_side(g, s, g.exponent[e], t, b, db);
      const Vec<T> a = weight[j] * load(weight + k) * b * t.use;
      for (int u = 0; u < g.num_terms; ++u) sums[e * g.num_terms + u] += p[u] * a;
    }
  });
  for (int n = 0; n < g.num_exponents * g.num_terms; ++n)
    if (g.out[n] >= 0) features[g.out[n]] += g.prefactor[n % g.num_terms] * simd::sum<T>(sums[n]);
}

template <class T>
void angular_reverse(CutoffFunction kind, const AngularGroup<T>& g, Shell<T>& s, const T* cotangents) {
  T c[kMaxExponents * kMaxTerms];
  for (int n = 0; n < g.num_exponents * g.num_terms; ++n)
    c[n] = g.out[n] < 0 ? T(0) : cotangents[g.out[n]] * g.prefactor[n % g.num_terms];
  for_triplets(kind, g, s, [&](int j, int k, const Triplets<T>& t) {
    Vec<T> p[kMaxTerms], dp[kMaxTerms], b, db;
    angular_terms(g, t.cosine, p, dp);
    const Vec<T> zero = broadcast<T>(T(0));
    Vec<T> f_cos = zero, f_j = zero, f_k = zero, f_jk = zero;
    for (int e = 0; e < g.num_exponents; ++e) {
      Vec<T> sum_p = zero, sum_dp = zero;
      for (int u = 0; u < g.num_terms; ++u) {
        sum_p += c[e * g.num_terms + u] * p[u];
        sum_dp += c[e * g.num_terms + u] * dp[u];
      }
      const T* const weight = s.weight + g.exponent[e] * s.stride;
      const T* const dweight = s.dweight + g.exponent[e] * s.stride;
      third_side(g, s, g.exponent[e], t, b, db);
      const Vec<T> w_k = load(weight + k) * t.use;
      f_cos += sum_dp * (weight[j] * w_k * b);
      f_j += sum_p * (dweight[j] * w_k * b);
      f_k += sum_p * (weight[j] * load(dweight + k) * t.use * b);
      f_jk += sum_p * (weight[j] * w_k * db);
    }
    // dcos/dr_k = r_j / (|r_j| |r_k|) - cos r_k / |r_k|^2: a part along r_j, the rest is radial. dr_jk/dr_k
    // likewise.
    const T inv_r_j = s.inv_r[j];
    Vec<T> along = f_cos * t.inv_r_k * inv_r_j;
    f_j -= f_cos * t.cosine * inv_r_j;
    f_k -= f_cos * t.cosine * t.inv_r_k;
    if (g.narrow) {
      const Vec<T> pull = f_jk * t.inv_r_jk;
      along -= pull;
      f_j += pull * s.r[j];
      f_k += pull * load(s.r + k);
    }
    store<T>(s.gx + k, load(s.gx + k) + along * s.x[j]);
    store<T>(s.gy + k, load(s.gy + k) + along * s.y[j]);
    store<T>(s.gz + k, load(s.gz + k) + along * s.z[j]);
    store<T>(s.gr + k, load(s.gr + k) + f_k);
    s.gx[j] += static_cast<T>(simd::sum<T>(along * load(s.x + k)));
    s.gy[j] += static_cast<T>(simd::sum<T>(along * load(s.y + k)));
    s.gz[j] += static_cast<T>(simd::sum<T>(along * load(s.z + k)));
    s.gr[j] += static_cast<T>(simd::sum<T>(f_j));
  });
}

template <class T>
void angular_tangent(CutoffFunction kind, const AngularGroup<T>& g, const Shell<T>& s, double* tangents) {
  Vec<T> sums[kMaxExponents * kMaxTerms];
  for (int n = 0; n < g.num_exponents * g.num_terms; ++n) sums[n] = broadcast<T>(T(0));
  for_triplets(kind, g, s, [&](int j, int k, const Triplets<T>& t) {
    Vec<T> p[kMaxTerms], dp[kMaxTerms], b, db;
    angular_terms(g, t.cosine, p, dp);
    // (gx, gy, gz) holds the direction v here, gr its radial part.
    const T r_j = s.r[j], inv_r_j = s.inv_r[j], v_j = s.gr[j];
    const Vec<T> v_k = load(s.gr + k);
    const Vec<T> ddot = s.gx[j] * load(s.x + k) + s.gy[j] * load(s.y + k) + s.gz[j] * load(s.z + k) +
                        load(s.gx + k) * s.x[j] + load(s.gy + k) * s.y[j] + load(s.gz + k) * s.z[j];
    const Vec<T> dcosine = ddot * t.inv_r_k * inv_r_j - t.cosine * (v_j * inv_r_j + v_k * t.inv_r_k);
    Vec<T> v_jk = broadcast<T>(T(0));
    if (g.narrow) v_jk = (r_j * v_j + load(s.r + k) * v_k - ddot) * t.inv_r_jk;
    for (int e = 0; e < g.num_exponents; ++e) {
      const T* const weight = s.weight + g.exponent[e] * s.stride;
      const T* const dweight = s.dweight + g.exponent[e] * s.stride;
      third_side(g, s, g.exponent[e], t, b, db);
      const Vec<T> w_k = load(weight + k);
      const Vec<T> a = weight[j] * w_k * b * t.use * dcosine;
      const Vec<T> da =
          ((dweight[j] * v_j * w_k + weight[j] * load(dweight + k) * v_k) * b + weight[j] * w_k * db * v_jk) *
          t.use;
      for (int u = 0; u < g.num_terms; ++u) sums[e * g.num_terms + u] += dp[u] * a + p[u] * da;
    }
  });
  for (int n = 0; n < g.num_exponents * g.num_terms; ++n)
    if (g.out[n] >= 0) tangents[g.out[n]] += g.prefactor[n % g.num_terms] * simd::sum<T>(sums[n]);
}

// ---- the descriptor of one center
// ----------------------------------------------------------------------------------

template <class T>
void features(const CenterFunctions<T>& f, const Shell<T>* shells, double* out) {
  for (int n = 0; n < f.num_features; ++n) out[n] = 0;
  for (int n = 0; n < f.num_radial; ++n) radial_features(f.radial[n], shells[f.radial[n].shell], out);
  for (int n = 0; n < f.num_angular; ++n)
    angular_features(f.cutoff_function, f.angular[n], shells[f.angular[n].shell], out);
}

template <class T>
void reverse(const CenterFunctions<T>& f, Shell<T>* shells, const T* cotangents) {
  for (int n = 0; n < f.num_radial; ++n) radial_reverse(f.radial[n], shells[f.radial[n].shell], cotangents);
  for (int n = 0; n < f.num_angular; ++n)
    angular_reverse(f.cutoff_function, f.angular[n], shells[f.angular[n].shell], cotangents);
  for (int n = 0; n < f.num_shells; ++n) {
    Shell<T>& s = shells[n];
    for (int k = 0; k < s.stride; k += width<T>) {
      const Vec<T> g = load(s.gr + k) * load(s.inv_r + k);
      store<T>(s.gx + k, load(s.gx + k) + g * load(s.x + k));
      store<T>(s.gy + k, load(s.gy + k) + g * load(s.y + k));
      store<T>(s.gz + k, load(s.gz + k) + g * load(s.z + k));
    }
  }
}

template <class T>
void tangent(const CenterFunctions<T>& f, Shell<T>* shells, double* out) {
  for (int n = 0; n < f.num_features; ++n) out[n] = 0;
  for (int n = 0; n < f.num_shells; ++n) {
    Shell<T>& s = shells[n];
    for (int k = 0; k < s.stride; k += width<T>)
      store<T>(s.gr + k, (load(s.gx + k) * load(s.x + k) + load(s.gy + k) * load(s.y + k) +
                          load(s.gz + k) * load(s.z + k)) *
                             load(s.inv_r + k));
  }
  for (int n = 0; n < f.num_radial; ++n) radial_tangent(f.radial[n], shells[f.radial[n].shell], out);
  for (int n = 0; n < f.num_angular; ++n)
    angular_tangent(f.cutoff_function, f.angular[n], shells[f.angular[n].shell], out);
}

template <class T>
constexpr Kernels<T> table() {
  return {prepare<T>, features<T>, reverse<T>, tangent<T>};
}

}  // namespace

namespace NEARSIGHT_ISA {
extern const Kernels<float> kernels_float;
extern const Kernels<double> kernels_double;
const Kernels<float> kernels_float = table<float>();
const Kernels<double> kernels_double = table<double>();
}  // namespace NEARSIGHT_ISA

}  // namespace acsf
}  // namespace nearsight
