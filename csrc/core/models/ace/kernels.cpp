#include "core/models/ace/kernels.hpp"

#include "core/models/shared/simd_harmonics.hpp"
#include "core/models/shared/simd_lanes.hpp"

namespace nearsight {
namespace ace {
namespace {

using simd::broadcast;
using simd::load;
using simd::store;
using simd::Vec;
using simd::width;

constexpr int kMaxHarmonics = (kMaxL + 1) * (kMaxL + 1);

inline int min(int a, int b) {
  return a < b ? a : b;
}

// ---- one run of neighbors
// -----------------------------------------------------------------------------------------

/// Y_lm of a run of neighbors, and the gradient of the polynomials that they are on the sphere.
template <class T>
struct alignas(64) Harmonics {
  T y[kMaxHarmonics * kRun<T>];
  T gradient[3][kMaxHarmonics * kRun<T>];
};

/// The harmonics of the run of neighbors that begins at number `first`.
template <class T, bool with_gradient>
inline void harmonics(const Shape<T>& s, const Neighbors<T>& n, int first, Harmonics<T>& h) {
  T* const gradient[3] = {h.gradient[0], h.gradient[1], h.gradient[2]};
  simd::harmonics<T, with_gradient>(s.harmonics, kRun<T>, n.x + first, n.y + first, n.z + first, kRun<T>, h.y,
                                    gradient);
}

template <class T>
struct alignas(64) RadialRows {
  T values[kRun<T> * kMaxColumns];
  T derivatives[kRun<T> * kMaxColumns];
};

/// Weights of value, slope and curvature at the two knots, for functions and for derivatives per Å.
template <class T>
struct alignas(64) HermiteWeights {
  T f[6][kRun<T>], g[6][kRun<T>];
};

template <class T>
inline void hermite_weights(const Shape<T>& s, const T* place, HermiteWeights<T>& w) {
  for (int k = 0; k < kRun<T>; k += width<T>) {
    const Vec<T> t = load(place + k), t2 = t * t, t3 = t2 * t, t4 = t3 * t, t5 = t4 * t;
    const T c = s.inverse_step;
    store<T>(w.f[0] + k, T(1) - T(10) * t3 + T(15) * t4 - T(6) * t5);
    store<T>(w.f[1] + k, t - T(6) * t3 + T(8) * t4 - T(3) * t5);
    store<T>(w.f[2] + k, T(0.5) * (t2 - T(3) * t3 + T(3) * t4 - t5));
    store<T>(w.f[3] + k, T(10) * t3 - T(15) * t4 + T(6) * t5);
    store<T>(w.f[4] + k, T(7) * t4 - T(4) * t3 - T(3) * t5);
    store<T>(w.f[5] + k, T(0.5) * (t3 - T(2) * t4 + t5));
    store<T>(w.g[0] + k, c * T(30) * (T(2) * t3 - t2 - t4));
    store<T>(w.g[1] + k, c * (T(1) - T(18) * t2 + T(32) * t3 - T(15) * t4));
    store<T>(w.g[2] + k, c * (t - T(4.5) * t2 + T(6) * t3 - T(2.5) * t4));
    store<T>(w.g[3] + k, c * T(30) * (t2 - T(2) * t3 + t4));
    store<T>(w.g[4] + k, c * (T(28) * t3 - T(12) * t2 - T(15) * t4));
    store<T>(w.g[5] + k, c * (T(1.5) * t2 - T(4) * t3 + T(2.5) * t4));
  }
}

/// Radial functions of a run of neighbors by quintic Hermite interpolation, and their derivatives.
template <class T, bool with_derivative>
inline void radial_rows(const Shape<T>& s, const Neighbors<T>& n, int first, int count, RadialRows<T>& r) {
  HermiteWeights<T> w;
  hermite_weights(s, n.place + first, w);
  for (int j = 0; j < count; ++j) {
    const T* const table = n.table[first + j];
    for (int k = 0; k < s.num_columns; k += width<T>) {
      Vec<T> value = broadcast<T>(T(0)), derivative = value;
      for (int p = 0; p < 6; ++p) {
        const Vec<T> knot = load(table + p * s.num_columns + k);
        value += w.f[p][j] * knot;
        if (with_derivative) derivative += w.g[p][j] * knot;
      }
      store<T>(r.values + j * s.num_columns + k, value);
      if (with_derivative) store<T>(r.derivatives + j * s.num_columns + k, derivative);
    }
  }
}

/// Calls body(number of neighbors, first neighbor) for pieces of the run of one species, at most kChunk long.
template <int kChunk, class T, class Body>
inline void for_chunks(const Neighbors<T>& n, int first, int count, const Body& body) {
  for (int j = 0; j < count;) {
    int size = 1;
    while (size < kChunk && j + size < count && n.species[first + j + size] == n.species[first + j]) ++size;
    body(size, j);
    j += size;
  }
}

// ---- moments
// ------------------------------------------------------------------------------------------------------

/// moments += Σ over kCount neighbors of angular ⊗ rows.
template <class T, int kCount>
inline void accumulate(const Shape<T>& s, const T* angular, const T* rows, T* moments) {
  for (int l = 0; l <= s.l_max; ++l) {
    const int length = s.runs[l] * kRun<T>;
    for (int n = 0; n < length; n += width<T>) {
      Vec<T> r[kCount];
      for (int j = 0; j < kCount; ++j) r[j] = load(rows + j * s.num_columns + s.first_column[l] + n);
      T* target = moments + s.first_moment[l] + n;
      for (int m = l * l; m < (l + 1) * (l + 1); ++m, target += length) {
        Vec<T> sum = load(target);
        for (int j = 0; j < kCount; ++j) sum += angular[m * kRun<T> + j] * r[j];
        store<T>(target, sum);
      }
    }
  }
}

template <class T>
inline void accumulate(const Shape<T>& s, int count, const T* angular, const T* rows, T* moments) {
  if (count == 4)
    accumulate<T, 4>(s, angular, rows, moments);
  else
    for (int j = 0; j < count; ++j) accumulate<T, 1>(s, angular + j, rows + j * s.num_columns, moments);
}

template <class T>
void moments(const Shape<T>& s, const Neighbors<T>& n, T* moments) {
  Harmonics<T> h;
  RadialRows<T> r;
  for (int first = 0; first < n.count; first += kRun<T>) {
    const int count = min(kRun<T>, n.count - first);
    harmonics<T, false>(s, n, first, h);
    radial_rows<T, false>(s, n, first, count, r);
    for_chunks<4>(n, first, count, [&](int size, int j) {
      accumulate<T>(s, size, h.y + j, r.values + j * s.num_columns,
                    moments + n.species[first + j] * s.num_moments);
    });
  }
}

template <class T>
void tangent(const Shape<T>& s, const Neighbors<T>& n, T* tangents) {
  constexpr int run = kRun<T>;
  Harmonics<T> h;
  RadialRows<T> r;
  alignas(64) T along[run];
  for (int first = 0; first < n.count; first += run) {
    const int count = min(run, n.count - first);
    harmonics<T, true>(s, n, first, h);
    radial_rows<T, true>(s, n, first, count, r);
    for (int k = 0; k < run; k += width<T>) {
      const int j = first + k;
      const Vec<T> x = load(n.x + j), y = load(n.y + j), z = load(n.z + j), inv_r = load(n.inv_r + j);
      Vec<T> vx = load(n.vx + j), vy = load(n.vy + j), vz = load(n.vz + j);
      const Vec<T> v = vx * x + vy * y + vz * z;
      store<T>(along + k, v);
      vx = (vx - v * x) * inv_r;
      vy = (vy - v * y) * inv_r;
      vz = (vz - v * z) * inv_r;
      for (int m = 0; m < (s.l_max + 1) * (s.l_max + 1); ++m) {
        T* const dx = h.gradient[0] + m * run + k;
        store<T>(dx, load(dx) * vx + load(h.gradient[1] + m * run + k) * vy +
                         load(h.gradient[2] + m * run + k) * vz);
      }
    }
    for (int j = 0; j < count; ++j)
      for (int k = 0; k < s.num_columns; k += width<T>) {
        T* const row = r.derivatives + j * s.num_columns + k;
        store<T>(row, along[j] * load(row));
      }
    for_chunks<4>(n, first, count, [&](int size, int j) {
      T* const target = tangents + n.species[first + j] * s.num_moments;
      accumulate<T>(s, size, h.gradient[0] + j, r.values + j * s.num_columns, target);
      accumulate<T>(s, size, h.y + j, r.derivatives + j * s.num_columns, target);
    });
  }
}

/// For kCount neighbors: out[4 j …] = dE/dr at fixed direction, and the gradient of E over the harmonics'
/// polynomials.
template <class T, int kCount>
inline void contract(const Shape<T>& s, const Harmonics<T>& h, const RadialRows<T>& r, int first,
                     const T* adjoints, T* out) {
  Vec<T> total[kCount][4];
  for (int j = 0; j < kCount; ++j)
    for (int q = 0; q < 4; ++q) total[j][q] = broadcast<T>(T(0));
  for (int l = 0; l <= s.l_max; ++l) {
    const int length = s.runs[l] * kRun<T>;
    for (int n = 0; n < length; n += width<T>) {
      Vec<T> sum[kCount][4];
      for (int j = 0; j < kCount; ++j)
        for (int q = 0; q < 4; ++q) sum[j][q] = broadcast<T>(T(0));
      const T* source = adjoints + s.first_moment[l] + n;
      for (int m = l * l; m < (l + 1) * (l + 1); ++m, source += length) {
        const Vec<T> adjoint = load(source);
        for (int j = 0; j < kCount; ++j) {
          const int place = m * kRun<T> + first + j;
          sum[j][0] += h.y[place] * adjoint;
          sum[j][1] += h.gradient[0][place] * adjoint;
          sum[j][2] += h.gradient[1][place] * adjoint;
          sum[j][3] += h.gradient[2][place] * adjoint;
        }
      }
      for (int j = 0; j < kCount; ++j) {
        const int column = (first + j) * s.num_columns + s.first_column[l] + n;
        const Vec<T> value = load(r.values + column);
        total[j][0] += load(r.derivatives + column) * sum[j][0];
        for (int q = 1; q < 4; ++q) total[j][q] += value * sum[j][q];
      }
    }
  }
  for (int j = 0; j < kCount; ++j)
    simd::sum_four(total[j][0], total[j][1], total[j][2], total[j][3], out + 4 * j);
}

template <class T>
void reverse(const Shape<T>& s, const Neighbors<T>& n, const T* adjoints) {
  constexpr int run = kRun<T>;
  Harmonics<T> h;
  RadialRows<T> r;
  alignas(64) T out[run][4] = {};
  for (int first = 0; first < n.count; first += run) {
    const int count = min(run, n.count - first);
    harmonics<T, true>(s, n, first, h);
    radial_rows<T, true>(s, n, first, count, r);
    for_chunks<3>(n, first, count, [&](int size, int j) {
      const T* const of_species = adjoints + n.species[first + j] * s.num_moments;
      if (size == 3)
        contract<T, 3>(s, h, r, j, of_species, out[j]);
      else
        for (int q = 0; q < size; ++q) contract<T, 1>(s, h, r, j + q, of_species, out[j + q]);
    });
    for (int j = 0; j < count; ++j) {
      const T x = n.x[first + j], y = n.y[first + j], z = n.z[first + j], inv_r = n.inv_r[first + j];
      const T radial_part = out[j][0] - (out[j][1] * x + out[j][2] * y + out[j][3] * z) * inv_r;
      n.vx[first + j] = out[j][1] * inv_r + radial_part * x;
      n.vy[first + j] = out[j][2] * inv_r + radial_part * y;
      n.vz[first + j] = out[j][3] * inv_r + radial_part * z;
    }
  }
}

// ---- products
// -----------------------------------------------------------------------------------------------------

template <class T>
constexpr int kVectors = kRun<T> / width<T>;

template <class T>
void products(const Products& p, T* nodes) {
  for (int target = 0; target < p.num_targets; ++target) {
    Vec<T> sum[kVectors<T>] = {};
    for (int t = p.first[target]; t < p.first[target + 1]; ++t) {
      const Product& term = p.terms[t];
      const T c = static_cast<T>(term.c);
      for (int k = 0; k < kVectors<T>; ++k)
        sum[k] +=
            c * load(nodes + term.a * kRun<T> + k * width<T>) * load(nodes + term.b * kRun<T> + k * width<T>);
    }
    for (int k = 0; k < kVectors<T>; ++k)
      store<T>(nodes + (p.first_target + target) * kRun<T> + k * width<T>, sum[k]);
  }
}

template <class T>
void products_reverse(const Products& p, const T* nodes, T* adjoints) {
  for (int target = p.num_targets - 1; target >= 0; --target) {
    Vec<T> adjoint[kVectors<T>];
    for (int k = 0; k < kVectors<T>; ++k)
      adjoint[k] = load(adjoints + (p.first_target + target) * kRun<T> + k * width<T>);
    for (int t = p.first[target]; t < p.first[target + 1]; ++t) {
      const Product& term = p.terms[t];
      const T c = static_cast<T>(term.c);
      for (int k = 0; k < kVectors<T>; ++k) {
        const int a = term.a * kRun<T> + k * width<T>, b = term.b * kRun<T> + k * width<T>;
        const Vec<T> g = c * adjoint[k];
        store<T>(adjoints + a, load(adjoints + a) + g * load(nodes + b));
        store<T>(adjoints + b, load(adjoints + b) + g * load(nodes + a));
      }
    }
  }
}

template <class T>
void products_second(const Products& p, const T* nodes, const T* tangents, T* adjoints, T* curvatures) {
  for (int target = p.num_targets - 1; target >= 0; --target) {
    const int at = (p.first_target + target) * kRun<T>;
    for (int t = p.first[target]; t < p.first[target + 1]; ++t) {
      const Product& term = p.terms[t];
      const T c = static_cast<T>(term.c);
      for (int k = 0; k < kRun<T>; k += width<T>) {
        const int a = term.a * kRun<T> + k, b = term.b * kRun<T> + k;
        const Vec<T> g = c * load(adjoints + at + k), h = c * load(curvatures + at + k);
        store<T>(curvatures + a, load(curvatures + a) + g * load(tangents + b) + h * load(nodes + b));
        store<T>(curvatures + b, load(curvatures + b) + g * load(tangents + a) + h * load(nodes + a));
        store<T>(adjoints + a, load(adjoints + a) + g * load(nodes + b));
        store<T>(adjoints + b, load(adjoints + b) + g * load(nodes + a));
      }
    }
  }
}

template <class T, bool of_one>
inline Vec<T> node(const T* nodes, int number, int k) {
  return of_one ? broadcast<T>(nodes[number]) : load(nodes + number * kRun<T> + k);
}

template <class T, bool of_one>
void products_tangent(const Products& p, const T* nodes, T* tangents) {
  for (int target = 0; target < p.num_targets; ++target) {
    Vec<T> sum[kVectors<T>] = {}, other[kVectors<T>] = {};  // two, not to wait for one another
    for (int t = p.first[target]; t < p.first[target + 1]; ++t) {
      const Product& term = p.terms[t];
      const T c = static_cast<T>(term.c);
      for (int v = 0; v < kVectors<T>; ++v) {
        const int k = v * width<T>;
        sum[v] += c * node<T, of_one>(nodes, term.a, k) * load(tangents + term.b * kRun<T> + k);
        other[v] += c * node<T, of_one>(nodes, term.b, k) * load(tangents + term.a * kRun<T> + k);
      }
    }
    for (int v = 0; v < kVectors<T>; ++v)
      store<T>(tangents + (p.first_target + target) * kRun<T> + v * width<T>, sum[v] + other[v]);
  }
}

template <class T>
constexpr Kernels<T> table() {
  return {moments<T>,          reverse<T>,
          tangent<T>,          products<T>,
          products_reverse<T>, products_tangent<T, false>,
          products_second<T>,  products_tangent<T, true>};
}

}  // namespace

NEARSIGHT_DEFINE_KERNELS(float)
NEARSIGHT_DEFINE_KERNELS(double)

}  // namespace ace
}  // namespace nearsight
