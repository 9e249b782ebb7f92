#pragma once
// Pairs of neighbors of a center, for kernels with a warp for each center.
#include "core/models/shared/range.hpp"
#include "cuda/device.hpp"

namespace nearsight {
namespace cuda {

constexpr int kLanes = static_cast<int>(kWarp);
constexpr int kColumn = kLanes + 1;  // numbers from one row of lanes to the next, in different banks
constexpr int kQueue = 2 * kLanes;

/// Of the first three numbers.
template <class T>
__host__ __device__ inline T scalar_product(const Vec4<T>& a, const Vec4<T>& b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}

/// Neighbors j and k, numbers among the row's: all pairs of two ranges, or of one range those with j < k.
struct PairRanges {
  Range j, k;
  bool same;

  __host__ __device__ int first_k(int at_j) const { return same && at_j >= k.first ? at_j + 1 : k.first; }
};

/// Calls body(j, k) for the pairs that test(j, k) lets pass, with full lanes until the last ones; `queue` is
/// room for kQueue numbers that the warp shares. All lanes of the warp must come here.
template <class Test, class Body>
__device__ inline void for_pairs(const PairRanges& pairs, int* queue, const Test& test, const Body& body) {
  const int lane = static_cast<int>(lane_number());
  if (pairs.j.first >= pairs.j.last || pairs.k.first >= pairs.k.last) return;
  int j = pairs.j.first, k = pairs.first_k(j) + lane, waiting = 0, head = 0;
  for (;;) {
    while (j < pairs.j.last && k >= pairs.k.last) {  // the next row, and the rest of the step in it
      const int rest = k - pairs.k.last;
      ++j;
      k = pairs.first_k(j) + rest;
    }
    const bool exists = j < pairs.j.last;
    if (!__any_sync(kAllLanes, exists)) break;
    const bool found = exists && test(j, k);
    const unsigned votes = __ballot_sync(kAllLanes, found);
    if (found)
      queue[(head + waiting + __popc(votes & ((1u << lane) - 1))) % kQueue] =
          (j - pairs.j.first) << 16 | (k - pairs.k.first);
    waiting += __popc(votes);
    k += kLanes;
    __syncwarp();
    if (waiting < kLanes) continue;
    const int pair = queue[(head + lane) % kQueue];
    body(pairs.j.first + (pair >> 16), pairs.k.first + (pair & 0xffff));
    head += kLanes;
    waiting -= kLanes;
    __syncwarp();
  }
  if (lane < waiting) {
    const int pair = queue[(head + lane) % kQueue];
    body(pairs.j.first + (pair >> 16), pairs.k.first + (pair & 0xffff));
  }
  __syncwarp();
}

/// What pairs of a tile of kLanes x kLanes neighbors give to the gradients, for sums without atomics: each
/// lane then adds what its neighbor takes part in. A pair gives `along` r_k + `radial_j` r_j to the gradient
/// of j, and `along` r_j + `radial_k` r_k to that of k.
template <class T>
struct PairTile {
  T *along, *radial_j, *radial_k;  // [kLanes][kColumn]
  Range j, k;                      // neighbors of the tile

  static constexpr int kNumbers = 3 * kLanes * kColumn;

  __device__ PairTile(T* room, Range j, Range k)
      : along(room), radial_j(room + kLanes * kColumn), radial_k(room + 2 * kLanes * kColumn), j(j), k(k) {
    const int lane = static_cast<int>(lane_number());
    for (int n = 0; n < j.last - j.first; ++n)
      along[n * kColumn + lane] = radial_j[n * kColumn + lane] = radial_k[n * kColumn + lane] = T(0);
    __syncwarp();
  }
  __device__ void set(int at_j, int at_k, T a, T rj, T rk) const {
    const int place = (at_j - j.first) * kColumn + at_k - k.first;
    along[place] = a;
    radial_j[place] = rj;
    radial_k[place] = rk;
  }
  /// Adds the sums to gradients[order[neighbor]].
  __device__ void add(const Vec4<T>* neighbors, const std::int32_t* order, Vec4<T>* gradients) const {
    const int lane = static_cast<int>(lane_number());
    __syncwarp();
    if (k.first + lane < k.last)
      add_one(j, along + lane, radial_k + lane, kColumn, k.first + lane, neighbors, order, gradients);
    __syncwarp();
    if (j.first + lane < j.last)
      add_one(k, along + lane * kColumn, radial_j + lane * kColumn, 1, j.first + lane, neighbors, order,
              gradients);
    __syncwarp();
  }

 private:
  __device__ static void add_one(Range others, const T* along, const T* radial, int step, int own,
                                 const Vec4<T>* neighbors, const std::int32_t* order, Vec4<T>* gradients) {
    T x = T(0), y = T(0), z = T(0), r = T(0);
    for (int n = others.first; n < others.last; ++n, along += step, radial += step) {
      const Vec4<T> v = neighbors[n];
      const T a = *along;
      x += a * v.x;
      y += a * v.y;
      z += a * v.z;
      r += *radial;
    }
    const Vec4<T> v = neighbors[own];
    Vec4<T>& g = gradients[order[own]];
    g = {g.x + x + r * v.x, g.y + y + r * v.y, g.z + z + r * v.z, T(0)};
  }
};

/// Calls body(tile's pairs) for tiles of at most kLanes x kLanes of them.
template <class Body>
__device__ inline void for_tiles(const PairRanges& pairs, const Body& body) {
  for (int j = pairs.j.first; j < pairs.j.last; j += kLanes)
    for (int k = pairs.same ? j : pairs.k.first; k < pairs.k.last; k += kLanes) {
      const auto end = [](int first, int last) { return first + kLanes < last ? first + kLanes : last; };
      body(PairRanges{{j, end(j, pairs.j.last)}, {k, end(k, pairs.k.last)}, pairs.same && k == j});
    }
}

/// sums[count][kColumn] of lanes, in double: calls body(n, sum of row n) in one lane for each.
template <class T, class Body>
__device__ inline void for_sums(const T* sums, int count, const Body& body) {
  __syncwarp();
  for (int n = static_cast<int>(lane_number()); n < count; n += kLanes) {
    const T* const row = sums + n * kColumn;
    double even = 0.0, odd = 0.0;
    for (int l = 0; l < kLanes; l += 2) {
      even += row[l];
      odd += row[l + 1];
    }
    body(n, even + odd);
  }
  __syncwarp();
}

}  // namespace cuda
}  // namespace nearsight
