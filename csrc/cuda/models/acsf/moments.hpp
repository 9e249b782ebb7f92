#pragma once
// Wide angular functions with a whole ζ through moments of the neighbors, as in core/models/acsf/moments.hpp:
// their lanes hold monomials, in reverse neighbors.
#include "cuda/models/acsf/problem.hpp"
#include "cuda/reduce.hpp"

namespace nearsight {
namespace cuda {
namespace acsf {

/// sums[species][monomials, and the sum of squares] over neighbors: addend(k, monomial, whether it is the
/// square).
template <class T, class Addend>
__device__ inline void sum_neighbors(const MomentTable g, const Center<T>& c, double* sums,
                                     const Addend& addend) {
  const int count = num_monomials(g.degree);
  for (int m = static_cast<int>(lane_number()); m <= count; m += kLanes) {
    const Monomial monomial = c.tables.monomials[m < count ? m : 0];
    for (int species = 0; species < c.p.neighborhoods.num_species; ++species) {
      const Range neighbors = c.neighbors(species, g.shell);
      T sum = T(0);
      for (int k = neighbors.first; k < neighbors.last; ++k) sum += addend(k, monomial, m == count);
      sums[species * (count + 1) + m] = sum;
    }
  }
  __syncwarp();
}

template <class T>
__device__ inline void find_moments(const MomentTable g, const Center<T>& c, double* moments) {
  const T* const values = c.shape_values(g.row);
  sum_neighbors(g, c, moments, [&](int k, const Monomial& monomial, bool is_square) {
    const Vec4<T> v = c.places[k];
    const T inverse = T(1) / v.w, w = values[k];
    return w * (is_square ? w
                          : power(v.x * inverse, monomial.a) * power(v.y * inverse, monomial.b) *
                                power(v.z * inverse, monomial.c));
  });
}

/// Derivatives of the moments along directions of the center's edges.
template <class T>
__device__ inline void move_moments(const MomentTable g, const Center<T>& c, const Vec4<T>* directions,
                                    double* tangents) {
  const T* const values = c.shape_values(g.row);
  const T* const slopes = c.shape_slopes(g.row);
  sum_neighbors(g, c, tangents, [&](int k, const Monomial& monomial, bool is_square) {
    const Vec4<T> r = c.places[k], v = directions[c.order[k]];
    const T inverse = T(1) / r.w, x = r.x * inverse, y = r.y * inverse, z = r.z * inverse;
    const T w = values[k], along = scalar_product(r, v), rate = w * slopes[k] * along;
    if (is_square) return T(2) * w * rate;
    const T turn = along * inverse * inverse;  // of the unit vector: (v - turn r) / |r|
    const T a = power(x, monomial.a), b = power(y, monomial.b), d = power(z, monomial.c);
    T change = T(0);
    if (monomial.a) change += T(monomial.a) * power(x, monomial.a - 1) * b * d * (v.x - turn * r.x);
    if (monomial.b) change += T(monomial.b) * a * power(y, monomial.b - 1) * d * (v.y - turn * r.y);
    if (monomial.c) change += T(monomial.c) * a * b * power(z, monomial.c - 1) * (v.z - turn * r.z);
    return rate * a * b * d + w * change * inverse;
  });
}

/// Adds to the features of a group their sums over monomials: product(m, n) of those numbered m and n among
/// the moments of two species; `squares` has the sums of squares that are not of pairs.
template <class T, class Product>
__device__ inline void moment_sums(const MomentTable g, const Center<T>& c, const WarpRoom<T>& room,
                                   const double* squares, const Product& product) {
  const int lane = static_cast<int>(lane_number()), count = num_monomials(g.degree);
  for (int i = g.functions.first; i < g.functions.last; ++i) {
    const MomentFunction& f = c.tables.moment_functions[i];
    const int first = f.species1 * (count + 1), second = f.species2 * (count + 1);
    double value = 0.0;
    for (int m = lane; m < num_monomials(f.degree); m += kLanes) {
      const Monomial monomial = c.tables.monomials[m];
      value += f.powers[monomial.degree] * monomial.multinomial * product(first + m, second + m);
    }
    value = warp_sum(value);
    if (f.species1 == f.species2)
      value = 0.5 * (value - f.self * squares[first + count]);  // each pair once, j != k
    if (lane == 0) room.features[f.out] += value;
  }
  __syncwarp();
}

template <class T>
__device__ inline void moment_forward(const MomentTable g, const Center<T>& c, const WarpRoom<T>& room) {
  const double* const moments = room.moments;
  find_moments(g, c, room.moments);
  moment_sums(g, c, room, moments, [=](int m, int n) { return moments[m] * moments[n]; });
}

/// `tangents` is room for those of the moments.
template <class T>
__device__ inline void moment_tangent(const MomentTable g, const Center<T>& c, const WarpRoom<T>& room,
                                      double* tangents, const Vec4<T>* directions) {
  const double* const moments = room.moments;
  find_moments(g, c, room.moments);
  move_moments(g, c, directions, tangents);
  moment_sums(g, c, room, tangents,
              [=](int m, int n) { return tangents[m] * moments[n] + moments[m] * tangents[n]; });
}

/// A polynomial of x, y and z, and its gradient.
template <class T>
struct Polynomial {
  T value, x, y, z;
};

/// Σ adjoints[monomial] x^a y^b z^c up to a degree.
template <class T>
__device__ inline Polynomial<T> polynomial(const T* adjoints, int degree, T x, T y, T z) {
  Polynomial<T> p{};
  for (int a = degree; a >= 0; --a) {
    T s = T(0), s_y = T(0), s_z = T(0);
    for (int b = degree - a; b >= 0; --b) {
      T q = T(0), q_z = T(0);
      for (int c = degree - a - b; c >= 0; --c) {
        q_z = q_z * z + q;
        q = q * z + adjoints[monomial_place(a, b, c)];
      }
      s_y = s_y * y + s;
      s_z = s_z * y + q_z;
      s = s * y + q;
    }
    p.x = p.x * x + p.value;
    p.y = p.y * x + s_y;
    p.z = p.z * x + s_z;
    p.value = p.value * x + s;
  }
  return p;
}

template <class T>
__device__ inline void moment_reverse(const MomentTable g, const Center<T>& c, const WarpRoom<T>& room,
                                      Vec4<T>* gradients) {
  const int lane = static_cast<int>(lane_number()), count = num_monomials(g.degree);
  find_moments(g, c, room.moments);
  for (int species = 0; species < c.p.neighborhoods.num_species; ++species) {
    const Range neighbors = c.neighbors(species, g.shell);
    double self = 0.0;  // the share of the pairs j = k
    for (int i = g.functions.first; i < g.functions.last; ++i) {
      const MomentFunction& f = c.tables.moment_functions[i];
      if (f.species1 == species && f.species2 == species) self += room.cotangents[f.out] * f.self;
    }
    for (int m = lane; m < count; m += kLanes) {
      const Monomial monomial = c.tables.monomials[m];
      double sum = 0.0;
      for (int i = g.functions.first; i < g.functions.last; ++i) {
        const MomentFunction& f = c.tables.moment_functions[i];
        if ((f.species1 != species && f.species2 != species) || monomial.degree > f.degree) continue;
        const int other = f.species1 == species ? f.species2 : f.species1;
        sum += room.cotangents[f.out] * f.powers[monomial.degree] * room.moments[other * (count + 1) + m];
      }
      room.adjoints[m] = static_cast<T>(sum * monomial.multinomial);
    }
    __syncwarp();
    for (int k = neighbors.first + lane; k < neighbors.last; k += kLanes) {
      const Vec4<T> v = c.places[k];
      const T inverse = T(1) / v.w, x = v.x * inverse, y = v.y * inverse, z = v.z * inverse;
      const Polynomial<T> p = polynomial(room.adjoints, g.degree, x, y, z);
      const T w = c.shape_values(g.row)[k], turn = w * inverse;
      const T radial = w * (p.value - static_cast<T>(self) * w) * c.shape_slopes(g.row)[k] -
                       turn * inverse * (x * p.x + y * p.y + z * p.z);
      Vec4<T>& gradient = gradients[c.order[k]];
      gradient = {gradient.x + turn * p.x + radial * v.x, gradient.y + turn * p.y + radial * v.y,
                  gradient.z + turn * p.z + radial * v.z, T(0)};
    }
    __syncwarp();
  }
}

}  // namespace acsf
}  // namespace cuda
}  // namespace nearsight
