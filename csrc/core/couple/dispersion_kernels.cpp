#include "core/couple/dispersion_kernels.hpp"

#include "core/models/shared/simd.hpp"

namespace nearsight {
namespace d3 {
namespace {

using simd::broadcast;
using simd::load;
using simd::store;
using simd::Vec;
using simd::width;

template <class T>
inline Vec<T> least(Vec<T> a, Vec<T> b) {
  return a < b ? a : b;
}

/// The vector to another atom and what its pair counts; an atom does not see itself.
template <class T>
struct Pair {
  Vec<T> x, y, z;
  Vec<T> square;        // Å², at most that of the cutoff
  Vec<T> share, slope;  // of the window, and its derivative by r²

  Pair(const Window<T>& window, Vec<T> x_, Vec<T> y_, Vec<T> z_) : x(x_), y(y_), z(z_) {
    const Vec<T> zero = broadcast<T>(T(0)), one = broadcast<T>(T(1)), cutoff2 = broadcast(window.cutoff2);
    const Vec<T> closest2 = broadcast<T>(T(pairs::kClosest * pairs::kClosest));
    const Vec<T> r2 = x * x + y * y + z * z;
    square = r2 < closest2 ? cutoff2 : least<T>(r2, cutoff2);
    const Vec<T> t = simd::max<T>(least<T>((r2 - window.start2) * window.scale, one), T(0)),
                 u = t * (one - t);
    const Vec<T> inside = one - t * t * t * (T(10) - t * (T(15) - T(6) * t));
    share = r2 < closest2 ? zero : inside;
    slope = T(-30) * window.scale * u * u;
  }
};

template <class T>
inline void add_slope(Vec<T>* total, const Pair<T>& pair, Vec<T> g) {
  const Vec<T> gx = g * pair.x, gy = g * pair.y, gz = g * pair.z;
  total[force_x] += gx;
  total[force_y] += gy;
  total[force_z] += gz;
  total[xx] += gx * pair.x;
  total[yy] += gy * pair.y;
  total[zz] += gz * pair.z;
  total[xy] += gx * pair.y;
  total[xz] += gx * pair.z;
  total[yz] += gy * pair.z;
}

/// body(lane, k, pair, total) for every vector of lanes and every other.
template <class T, class Body>
inline void for_pairs(const Window<T>& window, const Lanes<T>& lanes, int count, const Others<T>& others,
                      T (*sums)[kBlock<T>], const Body& body) {
  for (int l = 0; l < kBlock<T>; l += width<T>) {
    const Vec<T> x = load(lanes.x + l), y = load(lanes.y + l), z = load(lanes.z + l);
    Vec<T> total[kNumSums] = {};
    for (int k = 0; k < count; ++k)
      body(l, others.atoms[k], Pair<T>(window, others.x[k] - x, others.y[k] - y, others.z[k] - z), total);
    for (int s = 0; s < kNumSums; ++s) store<T>(sums[s] + l, total[s]);
  }
}

/// The counting function, and its derivative by r².
template <class T>
struct Count {
  Vec<T> value, slope;

  Count(const Pair<T>& pair, Vec<T> radius) {
    const Vec<T> inverse = simd::inverse_sqrt(pair.square), t = T(kSteepness) * radius * inverse;
    const Vec<T> decay = T(kExpSteepness) * simd::exp_negative<T>(-t);
    value = simd::reciprocal(T(1) + decay);
    slope = T(-0.5) * value * value * decay * t * inverse * inverse;
  }
};

template <class T>
void count(const Window<T>& window, const Lanes<T>& lanes, int count, const Others<T>& others,
           const Atoms<T>& atoms, T (*sums)[kBlock<T>]) {
  for_pairs<T>(window, lanes, count, others, sums, [&](int l, int atom, const Pair<T>& pair, Vec<T>* total) {
    const Count<T> counted(pair, load(lanes.radii + l) + atoms.radii[atoms.species[atom]]);
    total[value] += counted.value * pair.share;
  });
}

template <class T>
void move(const Window<T>& window, const Lanes<T>& lanes, int count, const Others<T>& others,
          const Atoms<T>& atoms, T (*sums)[kBlock<T>]) {
  for_pairs<T>(window, lanes, count, others, sums, [&](int l, int atom, const Pair<T>& pair, Vec<T>* total) {
    const Count<T> counted(pair, load(lanes.radii + l) + atoms.radii[atoms.species[atom]]);
    const Vec<T> weight = load(lanes.slopes + l) + atoms.slopes[atom];
    add_slope<T>(total, pair, weight * (counted.slope * pair.share + counted.value * pair.slope));
  });
}

template <class T>
void attract(const Window<T>& window, T s6, const Lanes<T>& lanes, int count, const Others<T>& others,
             const Atoms<T>& atoms, T (*sums)[kBlock<T>]) {
  const int references = atoms.references, rows = 3 + 2 * references;
  for_pairs<T>(window, lanes, count, others, sums, [&](int l, int atom, const Pair<T>& pair, Vec<T>* total) {
    const T* const table = lanes.tables + atoms.species[atom] * rows * kBlock<T> + l;
    const T* const weights = atoms.weights + atom * references;
    const T* next = table + 3 * kBlock<T>;
    Vec<T> c6 = broadcast<T>(T(0)), change = c6;
    for (int n = 0; n < references; ++n, next += kBlock<T>) c6 += load(next) * weights[n];
    for (int n = 0; n < references; ++n, next += kBlock<T>) change += load(next) * weights[n];
    const Vec<T> r4 = pair.square * pair.square, r6 = r4 * pair.square;
    const Vec<T> d6 = r6 + load(table), d8 = r4 * r4 + load(table + kBlock<T>);
    const Vec<T> inverse = simd::reciprocal(d6 * d8), i6 = d8 * inverse, i8 = d6 * inverse;
    const Vec<T> e6 = s6 * i6, e8 = load(table + 2 * kBlock<T>) * i8, both = e6 + e8;
    const Vec<T> falls = T(3) * r4 * e6 * i6 + T(4) * r6 * e8 * i8;  // -d(both)/d(r²)
    const Vec<T> seen = both * pair.share;
    total[value] -= c6 * seen;
    total[slope] -= change * seen;
    add_slope<T>(total, pair, c6 * (falls * pair.share - both * pair.slope));
  });
}

template <class T>
constexpr Kernels<T> table() {
  return {count<T>, move<T>, attract<T>};
}

}  // namespace

NEARSIGHT_DEFINE_KERNELS(float)
NEARSIGHT_DEFINE_KERNELS(double)

}  // namespace d3
}  // namespace nearsight
