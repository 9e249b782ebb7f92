#pragma once
// Pairs of neighbors of a center, for kernels with a warp for each center.
#include "core/models/shared/range.hpp"
#include "cuda/device.hpp"

namespace nearsight {
namespace cuda {

constexpr int kLanes = static_cast<int>(kWarp);
constexpr int kColumn = kLanes + 1;  // numbers from one row of lanes to the next, in different banks
constexpr int kQueue = 2 * kLanes;   // a power of two

/// Of the first three numbers.
template <class T>
__host__ __device__ inline T scalar_product(const Vec4<T>& a, const Vec4<T>& b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}

/// Neighbors j and k, numbers among the row's: all pairs of two ranges, or, in the same range, those with j <
/// k.
struct PairRanges {
  Range j, k;
  bool same;

  /// With fewer neighbors j than k.
  __host__ __device__ static PairRanges of(Range a, Range b, bool same) {
    return a.last - a.first <= b.last - b.first ? PairRanges{a, b, same} : PairRanges{b, a, same};
  }
  __host__ __device__ bool is_empty() const { return j.first >= j.last || first_k(j.first) >= k.last; }
  __host__ __device__ int first_k(int at_j) const { return same && at_j >= k.first ? at_j + 1 : k.first; }
};

/// Calls body(j, k) for the pairs that test(j, k) lets pass, with full lanes until the last ones; `queue` is
/// room for kQueue numbers that the warp shares. All lanes of the warp must come here.
template <class Test, class Body>
__device__ inline void for_pairs(const PairRanges& pairs, int* queue, const Test& test, const Body& body) {
  const int lane = static_cast<int>(lane_number());
  if (pairs.is_empty()) return;
  int j = pairs.j.first, k = pairs.first_k(j) + lane, waiting = 0, head = 0;
  for (;;) {
    while (j < pairs.j.last && k >= pairs.k.last) {  // the next row, and the rest of the step in it
      const int rest = k - pairs.k.last;
      ++j;
      k = pairs.first_k(j) + rest;
    }
    const bool exists = j < pairs.j.last, more = __any_sync(kAllLanes, exists);
    const bool found = exists && test(j, k);
    const unsigned votes = __ballot_sync(kAllLanes, found);
    if (found)
      queue[(head + waiting + __popc(votes & ((1u << lane) - 1))) & (kQueue - 1)] =
          (j - pairs.j.first) << 16 | (k - pairs.k.first);
    waiting += __popc(votes);
    k += kLanes;
    __syncwarp();
    if (more && waiting < kLanes) continue;
    if (lane < waiting) {
      const int pair = queue[(head + lane) & (kQueue - 1)];
      body(pairs.j.first + (pair >> 16), pairs.k.first + (pair & 0xffff));
    }
    if (!more) break;
    head += kLanes;
    waiting -= kLanes;
    __syncwarp();
  }
  __syncwarp();
}

constexpr int kTileRows = kLanes / 2;

/// What pairs of a tile give to the gradients, for sums without atomics: each lane then adds what its
/// neighbor takes part in. A pair gives `along` r_k + `radial_j` r_j to the gradient of j, and `along` r_j +
/// `radial_k` r_k to that of k. A tile has kTileRows neighbors j and kLanes neighbors k at most.
template <class T>
struct PairTile {
  T *along, *radial_j, *radial_k;  // [kTileRows][kColumn]
  Range j, k;                      // neighbors of the tile

  static constexpr int kNumbers = 3 * kTileRows * kColumn;

  __device__ PairTile(T* room, Range j, Range k)
      : along(room),
        radial_j(room + kTileRows * kColumn),
        radial_k(room + 2 * kTileRows * kColumn),
        j(j),
        k(k) {
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
    if (k.first + lane < k.last) {
      const Vec4<T> sum = sum_of(j, along + lane, radial_k + lane, kColumn, neighbors);
      give(sum, k.first + lane, neighbors, order, gradients);
    }
    __syncwarp();
    // Two lanes for each neighbor j, with half of the columns.
    const int row = lane % kTileRows, middle = k.first + kTileRows < k.last ? k.first + kTileRows : k.last;
    const Range half = lane < kTileRows ? Range{k.first, middle} : Range{middle, k.last};
    const int place = row * kColumn + half.first - k.first;
    Vec4<T> sum{};
    if (j.first + row < j.last) sum = sum_of(half, along + place, radial_j + place, 1, neighbors);
    sum.x += __shfl_xor_sync(kAllLanes, sum.x, kTileRows);
    sum.y += __shfl_xor_sync(kAllLanes, sum.y, kTileRows);
    sum.z += __shfl_xor_sync(kAllLanes, sum.z, kTileRows);
    sum.w += __shfl_xor_sync(kAllLanes, sum.w, kTileRows);
    if (lane < kTileRows && j.first + row < j.last) give(sum, j.first + row, neighbors, order, gradients);
    __syncwarp();
  }

 private:
  /// Σ along r over some neighbors, and Σ radial.
  __device__ static Vec4<T> sum_of(Range others, const T* along, const T* radial, int step,
                                   const Vec4<T>* neighbors) {
    Vec4<T> sum{};
    for (int n = others.first; n < others.last; ++n, along += step, radial += step) {
      const Vec4<T> v = neighbors[n];
      const T a = *along;
      sum.x += a * v.x;
      sum.y += a * v.y;
      sum.z += a * v.z;
      sum.w += *radial;
    }
    return sum;
  }
  __device__ static void give(const Vec4<T>& sum, int own, const Vec4<T>* neighbors,
                              const std::int32_t* order, Vec4<T>* gradients) {
    const Vec4<T> v = neighbors[own];
    Vec4<T>& g = gradients[order[own]];
    g = {g.x + sum.x + sum.w * v.x, g.y + sum.y + sum.w * v.y, g.z + sum.z + sum.w * v.z, T(0)};
  }
};

/// Calls body(tile's pairs) for tiles of them, with rows as even as can be.
template <class Body>
__device__ inline void for_tiles(const PairRanges& pairs, const Body& body) {
  const int rows = pairs.j.last - pairs.j.first, parts = (rows + kTileRows - 1) / kTileRows;
  for (int part = 0; part < parts; ++part) {
    const Range j{pairs.j.first + rows * part / parts, pairs.j.first + rows * (part + 1) / parts};
    for (int k = pairs.same ? j.first : pairs.k.first; k < pairs.k.last; k += kLanes)
      body(PairRanges{j, {k, k + kLanes < pairs.k.last ? k + kLanes : pairs.k.last}, pairs.same});
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
