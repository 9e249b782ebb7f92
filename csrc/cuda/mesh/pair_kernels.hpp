#pragma once
// The hot loops over pairs of charges.
#include "cuda/mesh/functions.hpp"
#include "cuda/mesh/short_range.hpp"

namespace nearsight {
namespace cuda {

constexpr unsigned kPairLanes = 8;      // that share the neighbors of a charge
constexpr unsigned kPairThreads = 256;  // of a block

inline Grid pair_grid(std::size_t num_charges) {
  return one_each(kPairLanes * num_charges, kPairThreads);
}

/// Charges in the order of cells.
template <class T>
struct PairCharges {
  const std::int32_t* order;  // numbers of the host
  const Vec4<T>* places;      // and charges
  const T* widths2;
  const Vec4<T>* offsets;
};

/// 1 / r - series, of Gaussians erf(r / √(2 width2)) / r - series, and minus its derivative over r; r2 is
/// below the square of the cutoff.
template <class T, bool kGaussian, bool kFields>
__device__ inline void pair_term(const nearsight::pairs::Series<T>& series, T r2, T width2, T& value,
                                 T& force) {
  constexpr int kStep = 4;  // terms behind the last one are zero
  const T t = r2 * series.scale - T(1);
  T smooth = 0, slope = 0;
  for (int m = (series.terms - 1) / kStep * kStep; m >= 0; m -= kStep)
    for (int s = kStep - 1; s >= 0; --s) {
      smooth = smooth * t + series.value[m + s];
      if (kFields) slope = slope * t + series.slope[m + s];
    }
  const T inverse = inverse_root(r2), inverse2 = inverse * inverse;
  value = inverse - smooth;
  force = inverse * inverse2 + slope;
  if (!kGaussian || !(width2 > T(0))) return;
  const T a = inverse_root(T(2) * width2), reach = a * r2 * inverse;
  const T outer = outside(reach) * inverse;
  value -= outer;
  if (kFields) force -= (outer + T(1.12837916709551257390) * a * decay(-reach * reach)) * inverse2;
}

/// Eight lanes for each charge: potential, field and virial, or without fields the coefficients of its
/// neighbors in its potential. About 2 (terms + 15) multiply-adds for a pair, and 20 bytes in floats, 36 in
/// doubles, of which 4 come from memory and the rest mostly from caches.
template <class T, bool kGaussian, bool kFields>
__global__ void __launch_bounds__(kPairThreads)
    meet(nearsight::pairs::Series<T> series, PairCharges<T> charges, NeighborRows rows, ChargeSums sums,
         T* coefficients) {
  const std::size_t group = thread_number() / kPairLanes;
  const bool taken = group < static_cast<std::size_t>(rows.count);
  const std::size_t k = taken ? group : 0;
  const int lane = threadIdx.x % kPairLanes, i = charges.order[k];
  const Vec4<T> here = charges.places[k];
  const T own_width2 = kGaussian ? charges.widths2[k] : T(0);
  const std::uint32_t mask = (std::uint32_t{1} << rows.bits) - 1;
  const std::int64_t last = taken ? rows.rows[k + 1] : 0;
  T total[4] = {}, tensor[6] = {};
  for (std::int64_t m = taken ? rows.rows[k] + lane : 0; m < last; m += kPairLanes) {
    const std::uint32_t entry = rows.neighbors[m], j = entry & mask;
    const Vec4<T> there = charges.places[j], offset = charges.offsets[entry >> rows.bits];
    const T dx = there.x - here.x + offset.x, dy = there.y - here.y + offset.y,
            dz = there.z - here.z + offset.z, r2 = dx * dx + dy * dy + dz * dz;
    const bool close = !(r2 >= T(nearsight::pairs::kClosest * nearsight::pairs::kClosest));
    if (close) report_close(sums.closest, i, charges.order[j]);
    T value = 0, force = 0;
    if (!close && r2 < series.cutoff2)
      pair_term<T, kGaussian, kFields>(series, r2, kGaussian ? own_width2 + charges.widths2[j] : T(0), value,
                                       force);
    if (!kFields) {
      coefficients[m] = value;
      continue;
    }
    force *= there.w;
    const T fx = force * dx, fy = force * dy, fz = force * dz;
    total[0] += value * there.w;
    total[1] -= fx, total[2] -= fy, total[3] -= fz;
    tensor[0] += fx * dx, tensor[1] += fy * dy, tensor[2] += fz * dz;
    tensor[3] += fx * dy, tensor[4] += fx * dz, tensor[5] += fy * dz;
  }
  if constexpr (kFields) {
    for (int s = 0; s < 4; ++s) {
      const T sum = warp_sum<kPairLanes>(total[s]);
      if (taken && lane == 0) sums.values[4 * static_cast<std::size_t>(i) + s] = sum;
    }
    const double half = taken ? 0.5 * here.w : 0.0;  // the other half is with the others
    double virial[6];
    for (int a = 0; a < 6; ++a) virial[a] = half * tensor[a];
    sum_block<kPairThreads>(virial, sums.virials + 6 * static_cast<std::size_t>(blockIdx.x));
  }
}

/// Potentials of charges from the coefficients of meet(): a multiply-add for a pair, and 8 bytes in floats,
/// 12 in doubles, from memory.
template <class T>
__global__ void __launch_bounds__(kPairThreads)
    apply(NeighborRows rows, const std::int32_t* order, const T* coefficients, const T* values,
          double* potentials) {
  const std::size_t group = thread_number() / kPairLanes;
  const bool taken = group < static_cast<std::size_t>(rows.count);
  const std::size_t k = taken ? group : 0;
  const int lane = threadIdx.x % kPairLanes;
  const std::uint32_t mask = (std::uint32_t{1} << rows.bits) - 1;
  const std::int64_t last = taken ? rows.rows[k + 1] : 0;
  T total = 0;
  for (std::int64_t m = taken ? rows.rows[k] + lane : 0; m < last; m += kPairLanes)
    total += coefficients[m] * values[rows.neighbors[m] & mask];
  total = warp_sum<kPairLanes>(total);
  if (taken && lane == 0) potentials[order[k]] = total;
}

}  // namespace cuda
}  // namespace nearsight
