#pragma once
// Wide angular functions with a whole ζ, without a loop over pairs, for kernels.cpp. With the moments
//
//     M_abc = Σ_j w(r_j) x_j^a y_j^b z_j^c        (x, y, z) the unit vector
//
// of one species, Σ_jk w_j w_k cos^n θ_jk = Σ_{a+b+c=n} n!/(a! b! c!) M_abc M'_abc, and (1 + λ cos θ)^ζ is a
// sum of powers of the cosine. So a function costs as much as its neighbors, and not as their pairs.
#include "core/models/acsf/kernels.hpp"
#include "core/models/shared/simd_lanes.hpp"

namespace nearsight {
namespace acsf {
namespace {

using simd::broadcast;
using simd::load;
using simd::store;
using simd::Vec;
using simd::width;

/// All monomials up to kMaxDegree, by degree.
struct Monomials {
  int power[kMaxMonomials][3] = {};
  int parent[kMaxMonomials] = {},
      axis[kMaxMonomials] = {};            // x^a… = parent times the coordinate of this axis
  int lower[kMaxMonomials][3] = {};        // with one power less of an axis, or 0
  double multinomial[kMaxMonomials] = {};  // n! / (a! b! c!)
};

constexpr int monomial_place(int a, int b, int c) {
  const int degree = a + b + c, rest = degree - a;
  return num_monomials(degree - 1) + rest * (rest + 1) / 2 + c;
}

constexpr Monomials make_monomials() {
  Monomials m;
  double factorial[kMaxDegree + 1] = {1};
  for (int n = 1; n <= kMaxDegree; ++n) factorial[n] = n * factorial[n - 1];
  for (int degree = 0; degree <= kMaxDegree; ++degree)
    for (int a = degree; a >= 0; --a)
      for (int c = 0; c <= degree - a; ++c) {
        const int b = degree - a - c, place = monomial_place(a, b, c);
        m.power[place][0] = a;
        m.power[place][1] = b;
        m.power[place][2] = c;
        m.multinomial[place] = factorial[degree] / (factorial[a] * factorial[b] * factorial[c]);
        if (a) m.lower[place][0] = monomial_place(a - 1, b, c);
        if (b) m.lower[place][1] = monomial_place(a, b - 1, c);
        if (c) m.lower[place][2] = monomial_place(a, b, c - 1);
        m.axis[place] = a ? 0 : b ? 1 : 2;
        m.parent[place] = m.lower[place][m.axis[place]];
      }
  return m;
}
constexpr Monomials kMonomials = make_monomials();

/// All monomials of a block of neighbors, times a factor.
template <class T>
inline void monomials(const Shell<T>& s, int k, int count, Vec<T> factor, Vec<T>* values) {
  const Vec<T> u[3] = {load(s.ux + k), load(s.uy + k), load(s.uz + k)};
  values[0] = factor;
  for (int m = 1; m < count; ++m) values[m] = values[kMonomials.parent[m]] * u[kMonomials.axis[m]];
}

/// Sums of lanes of so many vectors; may write up to three more.
template <class T>
inline void sum_lanes(const Vec<T>* vectors, int count, double* sums) {
  const Vec<T> zero = broadcast<T>(T(0));
  for (int m = 0; m < count; m += 4) {
    T four[4];
    simd::sum_four(vectors[m], m + 1 < count ? vectors[m + 1] : zero, m + 2 < count ? vectors[m + 2] : zero,
                   m + 3 < count ? vectors[m + 3] : zero, four);
    for (int n = 0; n < 4; ++n) sums[m + n] = four[n];
  }
}

/// Σ_n powers[n] Σ_{a+b+c=n} n!/(a! b! c!) a_abc b_abc
inline double contract(const double* powers, int degree, const double* a, const double* b) {
  double result = 0.0;
  for (int n = 0, m = 0; n <= degree; ++n) {
    double sum = 0.0;
    for (; m < num_monomials(n); ++m) sum += kMonomials.multinomial[m] * a[m] * b[m];
    result += powers[n] * sum;
  }
  return result;
}

template <class T>
void find_moments(const MomentGroup<T>& g, const Shell<T>& s, double* moments) {
  const int count = num_monomials(g.degree);
  const T* const values = s.value + g.shape * s.stride;
  Vec<T> block[kMaxMonomials], sums[kMaxMonomials + 1];
  for (int species = 0; species < g.num_species; ++species) {
    const int first = s.first[species], last = first + s.count[species];
    for (int m = 0; m <= count; ++m) sums[m] = broadcast<T>(T(0));
    for (int k = first; k < last; k += width<T>) {
      const Vec<T> w = load(values + k);
      monomials(s, k, count, w, block);
      for (int m = 0; m < count; ++m) sums[m] += block[m];
      sums[count] += w * w;
    }
    sum_lanes<T>(sums, count + 1, moments + species * kMomentStride);
  }
}

template <class T>
void moment_forward(const MomentGroup<T>& g, const double* moments, double* features) {
  const int count = num_monomials(g.degree);
  for (int i = 0; i < g.num_functions; ++i) {
    const MomentFunction& f = g.functions[i];
    const double* const a = moments + f.species1 * kMomentStride;
    const double* const b = moments + f.species2 * kMomentStride;
    double value = contract(f.powers, f.degree, a, b);
    if (f.species1 == f.species2) value = 0.5 * (value - f.self * a[count]);  // each pair once, j != k
    features[f.out] += value;
  }
}

/// dE/dM of one species, and its share of the pairs j = k.
template <class T>
double moment_adjoints(const MomentGroup<T>& g, int species, const double* moments, const T* cotangents,
                       double* adjoints) {
  double self = 0.0;
  for (int m = 0; m < num_monomials(g.degree); ++m) adjoints[m] = 0.0;
  for (int i = 0; i < g.num_functions; ++i) {
    const MomentFunction& f = g.functions[i];
    if (f.species1 != species && f.species2 != species) continue;
    const double* const other = moments + (f.species1 == species ? f.species2 : f.species1) * kMomentStride;
    const double c = cotangents[f.out];
    if (f.species1 == f.species2) self += c * f.self;
    for (int n = 0, m = 0; n <= f.degree; ++n)
      for (; m < num_monomials(n); ++m) adjoints[m] += c * f.powers[n] * kMonomials.multinomial[m] * other[m];
  }
  return self;
}

template <class T>
void moment_reverse(const MomentGroup<T>& g, const Shell<T>& s, const double* moments, const T* cotangents) {
  const int count = num_monomials(g.degree), fewer = num_monomials(g.degree - 1);
  const T* const values = s.value + g.shape * s.stride;
  const T* const slopes = s.slope + g.shape * s.stride;
  double adjoints[kMaxMonomials];
  T value_terms[kMaxMonomials], gradient_terms[3][kMaxMonomials];
  Vec<T> block[kMaxMonomials];
  for (int species = 0; species < g.num_species; ++species) {
    const int first = s.first[species], last = first + s.count[species];
    const T self = static_cast<T>(moment_adjoints(g, species, moments, cotangents, adjoints));
    for (int m = 0; m < count; ++m) value_terms[m] = static_cast<T>(adjoints[m]);
    for (int axis = 0; axis < 3; ++axis) {
      for (int m = 0; m < fewer; ++m) gradient_terms[axis][m] = T(0);
      for (int m = 1; m < count; ++m)
        gradient_terms[axis][kMonomials.lower[m][axis]] +=
            static_cast<T>(kMonomials.power[m][axis] * adjoints[m]);
    }
    for (int k = first; k < last; k += width<T>) {
      monomials(s, k, count, broadcast<T>(T(1)), block);
      Vec<T> value = broadcast<T>(T(0)), x = value, y = value, z = value;
      for (int m = 0; m < fewer; ++m) {
        value += value_terms[m] * block[m];
        x += gradient_terms[0][m] * block[m];
        y += gradient_terms[1][m] * block[m];
        z += gradient_terms[2][m] * block[m];
      }
      for (int m = fewer; m < count; ++m) value += value_terms[m] * block[m];
      const Vec<T> w = load(values + k), inverse = load(s.inverse_r + k), turn = w * inverse;
      const Vec<T> along = x * load(s.ux + k) + y * load(s.uy + k) + z * load(s.uz + k);
      store<T>(s.gx + k, load(s.gx + k) + turn * x);
      store<T>(s.gy + k, load(s.gy + k) + turn * y);
      store<T>(s.gz + k, load(s.gz + k) + turn * z);
      store<T>(s.gr + k, load(s.gr + k) + w * (value - self * w) * load(slopes + k) - turn * inverse * along);
    }
  }
}

template <class T>
void moment_tangent(const MomentGroup<T>& g, const Shell<T>& s, double* moments, double* tangents) {
  const int count = num_monomials(g.degree);
  const T* const values = s.value + g.shape * s.stride;
  const T* const slopes = s.slope + g.shape * s.stride;
  Vec<T> block[kMaxMonomials], sums[kMaxMonomials + 1], rates[kMaxMonomials + 1];
  double* const changes = moments + g.num_species * kMomentStride;
  for (int species = 0; species < g.num_species; ++species) {
    const int first = s.first[species], last = first + s.count[species];
    for (int m = 0; m <= count; ++m) sums[m] = rates[m] = broadcast<T>(T(0));
    for (int k = first; k < last; k += width<T>) {
      monomials(s, k, count, broadcast<T>(T(1)), block);
      const Vec<T> w = load(values + k), vr = load(s.gr + k), inverse = load(s.inverse_r + k);
      const Vec<T> dw = w * load(slopes + k) * load(s.r + k) * vr;
      const Vec<T> du[3] = {(load(s.gx + k) - load(s.ux + k) * vr) * inverse,
                            (load(s.gy + k) - load(s.uy + k) * vr) * inverse,
                            (load(s.gz + k) - load(s.uz + k) * vr) * inverse};
      for (int m = 0; m < count; ++m) {
        Vec<T> rate = dw * block[m];
        for (int axis = 0; axis < 3; ++axis)
          if (kMonomials.power[m][axis])
            rate += w * T(kMonomials.power[m][axis]) * block[kMonomials.lower[m][axis]] * du[axis];
        sums[m] += w * block[m];
        rates[m] += rate;
      }
      rates[count] += T(2) * w * dw;
    }
    sum_lanes<T>(sums, count, moments + species * kMomentStride);
    sum_lanes<T>(rates, count + 1, changes + species * kMomentStride);
  }
  for (int i = 0; i < g.num_functions; ++i) {
    const MomentFunction& f = g.functions[i];
    const int a = f.species1 * kMomentStride, b = f.species2 * kMomentStride;
    double rate = contract(f.powers, f.degree, changes + a, moments + b);
    if (f.species1 == f.species2)
      rate -= 0.5 * f.self * changes[a + count];
    else
      rate += contract(f.powers, f.degree, moments + a, changes + b);
    tangents[f.out] += rate;
  }
}

}  // namespace
}  // namespace acsf
}  // namespace nearsight
