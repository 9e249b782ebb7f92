#include "cuda/device.hpp"
#include "cuda/training/groups.hpp"

namespace nearsight {
namespace cuda {
namespace training {
namespace {

template <class Key>
__global__ void count_members(const Key* keys, std::int64_t count, std::int32_t* counts) {
  const auto e = static_cast<std::int64_t>(thread_number());
  if (e < count) atomicAdd(&counts[keys[e]], 1);
}

/// Members in whatever order they come.
template <class Key>
__global__ void place_members(const Key* keys, std::int64_t count, const std::int64_t* offsets,
                              std::int32_t* counts, std::int32_t* members) {
  const auto e = static_cast<std::int64_t>(thread_number());
  if (e < count) members[offsets[keys[e]] + atomicAdd(&counts[keys[e]], 1)] = static_cast<std::int32_t>(e);
}

/// A warp for a group: a member's place is the number of those before it. No order of sums shall depend on
/// that in which threads came.
__global__ void sort_members(std::int64_t num_groups, const std::int64_t* offsets,
                             const std::int32_t* members, std::int32_t* sorted) {
  const auto group = static_cast<std::int64_t>(warp_number());
  if (group >= num_groups) return;
  const std::int64_t begin = offsets[group], end = offsets[group + 1];
  for (std::int64_t n = begin + lane_number(); n < end; n += kWarp) {
    std::int64_t place = begin;
    for (std::int64_t k = begin; k < end; ++k) place += members[k] < members[n] ? 1 : 0;
    sorted[place] = members[n];
  }
}

/// One block, kScan numbers at a time.
constexpr unsigned kScan = 1024;
__global__ void scan(const std::int32_t* counts, std::int64_t num_groups, std::int64_t* offsets) {
  __shared__ std::int64_t of_warps[kScan / kWarp];
  const unsigned lane = lane_number(), warp = threadIdx.x / kWarp;
  std::int64_t carry = 0;
  if (threadIdx.x == 0) offsets[0] = 0;
  for (std::int64_t base = 0; base < num_groups; base += kScan) {
    const std::int64_t n = base + threadIdx.x;
    std::int64_t sum = n < num_groups ? counts[n] : 0;
    for (unsigned by = 1; by < kWarp; by *= 2) {
      const std::int64_t below = __shfl_up_sync(kAllLanes, sum, by);
      if (lane >= by) sum += below;
    }
    if (lane == kWarp - 1) of_warps[warp] = sum;
    __syncthreads();
    std::int64_t all = 0;
    for (unsigned w = 0; w < kScan / kWarp; ++w) {
      if (w == warp) sum += all;
      all += of_warps[w];
    }
    if (n < num_groups) offsets[n + 1] = carry + sum;
    carry += all;
    __syncthreads();
  }
}

}  // namespace

void add_up(const Stream& stream, const std::int32_t* counts, std::int64_t num_groups,
            std::int64_t* offsets) {
  launch(stream, {dim3(1), dim3(kScan)}, scan, counts, num_groups, offsets);
}

template <class Key>
Groups group(Work& work, const Key* keys, std::int64_t count, std::int64_t num_groups) {
  std::int32_t* const counts = work.take_filled<std::int32_t>(2 * num_groups, 0);
  std::int64_t* const offsets = work.take<std::int64_t>(num_groups + 1);
  std::int32_t* const members = work.take<std::int32_t>(count);
  std::int32_t* const sorted = work.take<std::int32_t>(count);
  launch(work.stream, one_each(count), count_members<Key>, keys, count, counts);
  add_up(work.stream, counts, num_groups, offsets);
  launch(work.stream, one_each(count), place_members<Key>, keys, count, offsets, counts + num_groups,
         members);
  launch(work.stream, warp_each(num_groups), sort_members, num_groups, offsets, members, sorted);
  return {offsets, sorted};
}

template Groups group(Work&, const std::int32_t*, std::int64_t, std::int64_t);
template Groups group(Work&, const std::int64_t*, std::int64_t, std::int64_t);

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
