#pragma once
// Angular functions as sums over triplets, a warp for each center: the lanes hold triplets whose third side
// is below the cutoff, packed, and sum their functions one by one.
#include "cuda/models/acsf/problem.hpp"

namespace nearsight {
namespace cuda {
namespace acsf {

/// Center, j and k.
template <class T>
struct Triplet {
  T inverse_j, inverse_k, cosine;
  TermValue<T> angle;  // if terms are compact
  T far, inverse_far;  // r_jk of narrow functions
  Sloped<T> cutoff;    // at r_jk, if shapes are not compact

  __device__ Triplet(const AngularTable& g, const Cutoff<T>& shell, const Vec4<T>& j, const Vec4<T>& k)
      : inverse_j(T(1) / j.w),
        inverse_k(T(1) / k.w),
        cosine((j.x * k.x + j.y * k.y + j.z * k.z) * inverse_j * inverse_k),
        angle{},
        far(T(0)),
        inverse_far(T(0)),
        cutoff{} {
    if (g.compact_terms) angle = angle_of(cosine);
    if (!g.narrow) return;
    const T square = distance2(j, k);
    far = std::sqrt(square > T(1e-12) ? square : T(1e-12));
    inverse_far = T(1) / far;
    if (!g.compact_shapes) cutoff = cutoff_function(shell, far);
  }
  __device__ static T distance2(const Vec4<T>& j, const Vec4<T>& k) {
    const T x = k.x - j.x, y = k.y - j.y, z = k.z - j.z;
    return x * x + y * y + z * z;
  }
  /// The third side's factor of a shape, the slope w'/(w r).
  __device__ Sloped<T> third(const AngularTable& g, const Shape<T>& s) const {
    if (!g.narrow) return {T(1), T(0)};
    const Sloped<T> w = shape(s, far, cutoff);
    return {w.value, w.slope * inverse_far};
  }
};

/// Calls body(j, k) for the triplets of a group among some pairs.
template <class T, class Body>
__device__ inline void for_triplets(const AngularTable g, const Center<T>& c, const PairRanges& pairs,
                                    int* queue, const Body& body) {
  const T radius = c.shell(g.shell).cutoff.radius, radius2 = radius * radius;
  const auto test = [&](int j, int k) {
    return !g.narrow || Triplet<T>::distance2(c.places[j], c.places[k]) < radius2;
  };
  for_pairs(pairs, queue, test, body);
}

template <class T>
__device__ inline PairRanges pairs_of(const AngularTable g, const Center<T>& c) {
  return PairRanges::of(c.neighbors(g.species1, g.shell), c.neighbors(g.species2, g.shell),
                        g.species1 == g.species2);
}

/// Adds to the features of a group their sums over triplets: body(j, k, triplet, sums) adds to the lane's
/// own.
template <class T, class Body>
__device__ inline void angular_sums(const AngularTable g, const Center<T>& c, const WarpRoom<T>& room,
                                    const Body& body) {
  const int num_functions = g.functions.last - g.functions.first;
  const Cutoff<T> cutoff = c.shell(g.shell).cutoff;
  const PairRanges pairs = pairs_of(g, c);
  if (pairs.is_empty()) return;
  T* const sums = room.sums + lane_number();
  for (int i = 0; i < num_functions; ++i) sums[i * kColumn] = T(0);
  for_triplets(g, c, pairs, room.queue,
               [&](int j, int k) { body(j, k, Triplet<T>(g, cutoff, c.places[j], c.places[k]), sums); });
  add_features(c.tables.angular_functions + g.functions.first, num_functions, room);
}

template <class T>
__device__ inline void angular_forward(const AngularTable g, const Center<T>& c, const WarpRoom<T>& room) {
  const int num_terms = g.terms.last - g.terms.first;
  T* const terms = room.terms + lane_number();
  angular_sums(g, c, room, [&](int j, int k, const Triplet<T>& t, T* sums) {
    for (int u = 0; u < num_terms; ++u)
      terms[u * kLanes] = term(c.tables.terms[g.terms.first + u], t.cosine, t.angle).value;
    for (int e = g.uses.first; e < g.uses.last; ++e) {
      const ShapeUse use = c.tables.uses[e];
      const T* const side = c.shape_values(use.row);
      const T w = side[j] * side[k] * t.third(g, c.tables.shapes[use.shape]).value;
      for (int i = use.functions.first; i < use.functions.last; ++i)
        sums[(i - g.functions.first) * kColumn] += w * terms[c.tables.angular_functions[i].term * kLanes];
    }
  });
}

/// `directions` are those of the center's edges.
template <class T>
__device__ inline void angular_tangent(const AngularTable g, const Center<T>& c, const WarpRoom<T>& room,
                                       const Vec4<T>* directions) {
  const int num_terms = g.terms.last - g.terms.first;
  T* const terms = room.terms + lane_number();
  T* const rates = terms + num_terms * kLanes;
  angular_sums(g, c, room, [&](int j, int k, const Triplet<T>& t, T* sums) {
    const Vec4<T> rj = c.places[j], rk = c.places[k];
    const Vec4<T> vj = directions[c.order[j]], vk = directions[c.order[k]];
    const T along_j = scalar_product(rj, vj), along_k = scalar_product(rk, vk);
    const T crossed = scalar_product(vj, rk) + scalar_product(rj, vk);
    const T along_far = along_j + along_k - crossed;  // (r_k - r_j) · (v_k - v_j)
    const T of_cosine =
        crossed * t.inverse_j * t.inverse_k -
        t.cosine * (along_j * t.inverse_j * t.inverse_j + along_k * t.inverse_k * t.inverse_k);
    for (int u = 0; u < num_terms; ++u) {
      const TermValue<T> p = term(c.tables.terms[g.terms.first + u], t.cosine, t.angle);
      terms[u * kLanes] = p.value;
      rates[u * kLanes] = p.derivative * of_cosine;
    }
    for (int e = g.uses.first; e < g.uses.last; ++e) {
      const ShapeUse use = c.tables.uses[e];
      const T* const side = c.shape_values(use.row);
      const T* const slope = c.shape_slopes(use.row);
      const Sloped<T> third = t.third(g, c.tables.shapes[use.shape]);
      const T w = side[j] * side[k] * third.value;
      const T rate = w * (slope[j] * along_j + slope[k] * along_k + third.slope * along_far);
      for (int i = use.functions.first; i < use.functions.last; ++i) {
        const int u = c.tables.angular_functions[i].term * kLanes;
        sums[(i - g.functions.first) * kColumn] += rate * terms[u] + w * rates[u];
      }
    }
  });
}

template <class T>
__device__ inline void angular_reverse(const AngularTable g, const Center<T>& c, const WarpRoom<T>& room,
                                       Vec4<T>* gradients) {
  const int num_terms = g.terms.last - g.terms.first;
  const Cutoff<T> cutoff = c.shell(g.shell).cutoff;
  T* const terms = room.terms + lane_number();
  T* const derivatives = terms + num_terms * kLanes;
  for_tiles(pairs_of(g, c), [&](const PairRanges& pairs) {
    const PairTile<T> tile(room.tile, pairs.j, pairs.k);
    for_triplets(g, c, pairs, room.queue, [&](int j, int k) {
      const Triplet<T> t(g, cutoff, c.places[j], c.places[k]);
      for (int u = 0; u < num_terms; ++u) {
        const TermValue<T> p = term(c.tables.terms[g.terms.first + u], t.cosine, t.angle);
        terms[u * kLanes] = p.value;
        derivatives[u * kLanes] = p.derivative;
      }
      T by_cosine = T(0), by_far = T(0), radial_j = T(0), radial_k = T(0);
      for (int e = g.uses.first; e < g.uses.last; ++e) {
        const ShapeUse use = c.tables.uses[e];
        T p = T(0), dp = T(0);
        for (int i = use.functions.first; i < use.functions.last; ++i) {
          const AngularFunction<T>& f = c.tables.angular_functions[i];
          const T coefficient = room.cotangents[f.out] * f.factor;
          p += coefficient * terms[f.term * kLanes];
          dp += coefficient * derivatives[f.term * kLanes];
        }
        const T* const side = c.shape_values(use.row);
        const T* const slope = c.shape_slopes(use.row);
        const Sloped<T> third = t.third(g, c.tables.shapes[use.shape]);
        const T value = side[j] * side[k] * third.value, x = value * p;
        by_cosine += value * dp;
        by_far += x * third.slope;
        radial_j += x * slope[j];
        radial_k += x * slope[k];
      }
      // dcos/dr_k = r_j / (|r_j| |r_k|) - cos r_k / |r_k|², and dr_jk/dr_k likewise: a part along r_j, the
      // rest along r_k.
      const T turn = by_cosine * t.cosine;
      tile.set(j, k, by_cosine * t.inverse_j * t.inverse_k - by_far,
               radial_j + by_far - turn * t.inverse_j * t.inverse_j,
               radial_k + by_far - turn * t.inverse_k * t.inverse_k);
    });
    tile.add(c.places, c.order, gradients);
  });
}

}  // namespace acsf
}  // namespace cuda
}  // namespace nearsight
