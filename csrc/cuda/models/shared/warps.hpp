#pragma once
#include "cuda/device.hpp"

namespace nearsight {
namespace cuda {

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
