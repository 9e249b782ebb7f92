#pragma once
#include "cuda/device.hpp"

namespace nearsight {
namespace cuda {

/// Parts of a warp's shared memory, for 16 bytes at a time. With a null `begin` it tells their size.
struct SharedParts {
  unsigned char* begin;
  std::size_t bytes = 0;

  template <class U>
  __host__ __device__ U* take(int count) {
    U* const here = reinterpret_cast<U*>(begin + bytes);
    bytes += (count * sizeof(U) + 15) / 16 * 16;
    return here;
  }
};

/// A warp for each of `count` rows with `bytes` of dynamic_shared() for each: as many in a block, at most
/// `most`, as any GPU has room for.
inline Grid sharing_warps(std::size_t count, std::size_t bytes, unsigned most) {
  constexpr std::size_t kMostShared = 96 * 1024;
  unsigned warps = most;
  while (warps > 1 && warps * bytes > kMostShared) warps /= 2;
  Grid grid = warp_each(count, warps);
  grid.shared_bytes = warps * bytes;
  return grid;
}

}  // namespace cuda
}  // namespace nearsight
