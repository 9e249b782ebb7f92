#pragma once
#include "cuda/device.hpp"

namespace nearsight {
namespace cuda {

/// The sum over the lanes of a warp, or over so many neighboring ones, in all of them, in an order that never
/// changes.
template <unsigned kLanes = kWarp, class T>
__device__ inline T warp_sum(T value) {
  for (unsigned mask = kLanes / 2; mask > 0; mask /= 2) value += __shfl_xor_sync(kAllLanes, value, mask);
  return value;
}

}  // namespace cuda
}  // namespace nearsight
