#pragma once
// Functions of one edge: its place among the knots, radial functions, harmonics, energies of pairs.
#include "core/models/mace/kernels.hpp"
#include "core/models/mace/pair_terms.hpp"
#include "cuda/engine/graph.hpp"

namespace nearsight {
namespace cuda {
namespace mace {

using nearsight::mace::kJet;
using nearsight::mace::kMaxHarmonics;
using nearsight::mace::PairEnergy;

/// KnotScale in the type of the features.
template <class T>
struct Knots {
  T first, shape, start, per_step;
  int intervals;
};

/// Functions of the distance: [table][knot][kJet][count], a table for some pairs of species.
template <class T>
struct Functions {
  Knots<T> knots;
  const T* tables;
  const std::int32_t* table_of;  // [species][species]
  int num_species, count;        // count: of functions

  __device__ const T* table(int a, int b) const {
    return tables +
           static_cast<std::int64_t>(table_of[a * num_species + b]) * (knots.intervals + 1) * kJet * count;
  }
};

/// Energies of pairs without parameters of the networks.
struct PairTerms {
  nearsight::mace::ZblTerms zbl;
  nearsight::mace::WallTerms walls;
  double shortest;  // where radial functions begin, Å

  __device__ bool any() const { return zbl.scale != 0.0 || walls.limits; }
  __device__ PairEnergy at(int a, int b, double r) const {
    const PairEnergy zbl_part = zbl_energy(zbl, a, b, r), wall = wall_energy(walls, a, b, r);
    const PairEnergy close = nearsight::mace::close_repulsion(r, shortest);
    return {zbl_part.value + wall.value + close.value, zbl_part.slope + wall.slope + close.slope};
  }
};

/// What later layers and densities have found of an edge; null where there is none.
template <class T>
struct EdgeAdjoints {
  T* harmonics;  // [places][number of harmonics]
  T* slopes;     // [places] dE/dr at fixed direction
};

/// Weights of value, slope and curvature at the two ends of an interval for the value of the polynomial of
/// degree five between them, and for its slope per Å.
template <class T>
struct Interpolation {
  int knot;
  T value[2 * kJet], slope[2 * kJet];

  __device__ Interpolation(const Knots<T>& s, T r) {
    const T per_shape = T(1) / (r + s.shape);
    T steps = (r * per_shape - s.start) * s.per_step;
    steps = steps > T(0) ? steps : T(0);
    knot = static_cast<int>(steps);
    knot = knot < s.intervals ? knot : s.intervals - 1;
    T t = steps - static_cast<T>(knot);
    t = t < T(1) ? t : T(1);
    // Closer than the tables begin, the functions stay as they are there.
    const T h = r < s.first ? T(0) : s.shape * s.per_step * per_shape * per_shape;
    const T u = T(1) - t, t2 = t * t, u2 = u * u, t3 = t2 * t, u3 = u2 * u, tu = t2 * u2;
    value[0] = u3 * (T(1) + T(3) * t + T(6) * t2);
    value[1] = u3 * t * (T(1) + T(3) * t);
    value[2] = T(0.5) * t2 * u3;
    value[3] = t3 * (T(1) + T(3) * u + T(6) * u2);
    value[4] = -t3 * u * (T(1) + T(3) * u);
    value[5] = T(0.5) * u2 * t3;
    slope[0] = -T(30) * h * tu;
    slope[1] = h * u2 * (T(1) + t * (T(2) - T(15) * t));
    slope[2] = T(0.5) * h * t * u2 * (T(2) - T(5) * t);
    slope[3] = -slope[0];
    slope[4] = h * t2 * (T(1) + u * (T(2) - T(15) * u));
    slope[5] = -T(0.5) * h * u * t2 * (T(2) - T(5) * u);
  }

  /// Function b of a table with `count` of them.
  __device__ T value_of(const T* table, int count, int b) const { return sum(value, table, count, b); }
  __device__ T slope_of(const T* table, int count, int b) const { return sum(slope, table, count, b); }

 private:
  __device__ T sum(const T* weights, const T* table, int count, int b) const {
    const T* const knots = table + static_cast<std::int64_t>(knot) * kJet * count + b;
    T found = 0;
#pragma unroll
    for (int k = 0; k < 2 * kJet; ++k) found += weights[k] * knots[k * count];
    return found;
  }
};

/// Harmonics of a unit vector up to l, and sums over their gradients, as in core/models/shared.
template <class T, int l_max>
struct Harmonics {
  static constexpr int count = (l_max + 1) * (l_max + 1);
  T y[count];

  __device__ Harmonics(const HarmonicFactors<T>& s, const Vec4<T>& v) {
    const T inverse = T(1) / v.w;
    walk(s, v.x * inverse, v.y * inverse, v.z * inverse,
         [&](int place, T value, T, T, T) { y[place] = value; });
  }

  /// dE/dr_ij from the adjoints of the harmonics and dE/dr.
  static __device__ Vec4<T> gradient(const HarmonicFactors<T>& s, const Vec4<T>& v, const T* adjoints,
                                     T slope) {
    const T inverse = T(1) / v.w, x = v.x * inverse, y = v.y * inverse, z = v.z * inverse;
    T gx = 0, gy = 0, gz = 0;
    walk(s, x, y, z, [&](int place, T, T dx, T dy, T dz) {
      gx += adjoints[place] * dx;
      gy += adjoints[place] * dy;
      gz += adjoints[place] * dz;
    });
    // Only what turns the unit vector counts; the slope goes along it.
    const T along = slope - (x * gx + y * gy + z * gz) * inverse;
    return {gx * inverse + x * along, gy * inverse + y * along, gz * inverse + z * along, T(0)};
  }

 private:
  /// Calls visit(l² + l + m, Y, dY/dx, dY/dy, dY/dz) for all of them.
  template <class Visit>
  static __device__ __forceinline__ void walk(const HarmonicFactors<T>& s, T x, T y, T z,
                                              const Visit& visit) {
    constexpr int legendre = (l_max + 1) * (l_max + 2) / 2;
    T q[legendre];
#pragma unroll
    for (int m = 0; m <= l_max; ++m) {
      T before = 0, value = s.diagonal[m];
#pragma unroll
      for (int l = m; l <= l_max; ++l) {
        q[l * (l + 1) / 2 + m] = value;
        if (l == l_max) continue;
        const int next = (l + 1) * (l + 2) / 2 + m;
        const T after = s.a[next] * z * value - s.b[next] * before;
        before = value;
        value = after;
      }
    }
    T cosine = 1, sine = 0, cosine_before = 0, sine_before = 0;
#pragma unroll
    for (int m = 0; m <= l_max; ++m) {
      if (m > 0) {
        cosine_before = cosine;
        sine_before = sine;
        cosine = x * cosine_before - y * sine_before;
        sine = x * sine_before + y * cosine_before;
      }
#pragma unroll
      for (int l = m; l <= l_max; ++l) {
        const int place = l * (l + 1) / 2 + m;
        const T mq = T(m) * q[place], dq = m < l ? s.d[place] * q[place + (m < l)] : T(0);
        visit(l * l + l + m, q[place] * cosine, mq * cosine_before, -mq * sine_before, dq * cosine);
        if (m > 0) visit(l * l + l - m, q[place] * sine, mq * sine_before, mq * cosine_before, dq * sine);
      }
    }
  }
};

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
