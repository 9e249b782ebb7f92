#include <utility>

#include "cuda/primitives.hpp"

#ifdef __CUDACC__
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#else
#include <algorithm>
#endif

namespace nearsight {
namespace cuda {

#ifdef __CUDACC__
void Primitives::sort(const Stream& stream, Buffer<std::uint64_t>& keys, int bits) {
  const auto count = static_cast<std::int64_t>(keys.size());
  if (count == 0) return;
  sorted_.resize(keys.size());
  const auto handle = static_cast<cudaStream_t>(stream.handle());
  std::size_t bytes = 0;
  cub::DeviceRadixSort::SortKeys(nullptr, bytes, keys.data(), sorted_.data(), count, 0, bits, handle);
  scratch_.resize(bytes);
  cub::DeviceRadixSort::SortKeys(scratch_.data(), bytes, keys.data(), sorted_.data(), count, 0, bits, handle);
  check_launch();
  std::swap(keys, sorted_);
}

void Primitives::offsets(const Stream& stream, const Buffer<std::int32_t>& counts,
                         Buffer<std::int64_t>& offsets) {
  const auto count = static_cast<std::int64_t>(counts.size());
  offsets.clear(stream, counts.size() + 1);
  if (count == 0) return;
  const auto handle = static_cast<cudaStream_t>(stream.handle());
  std::size_t bytes = 0;
  const auto scan = [&](void* scratch) {
    cub::DeviceScan::InclusiveScanInit(scratch, bytes, counts.data(), offsets.data() + 1,
                                       ::cuda::std::plus<>{}, std::int64_t{0}, count, handle);
  };
  scan(nullptr);
  scan(scratch_.resize(bytes));
  check_launch();
}
#else
void Primitives::sort(const Stream&, Buffer<std::uint64_t>& keys, int bits) {
  const std::uint64_t mask = bits < 64 ? (std::uint64_t{1} << bits) - 1 : ~std::uint64_t{0};
  std::stable_sort(keys.data(), keys.data() + keys.size(),
                   [mask](std::uint64_t a, std::uint64_t b) { return (a & mask) < (b & mask); });
}

void Primitives::offsets(const Stream&, const Buffer<std::int32_t>& counts, Buffer<std::int64_t>& offsets) {
  offsets.resize(counts.size() + 1);
  std::int64_t sum = 0;
  for (std::size_t n = 0; n < counts.size(); ++n) {
    offsets.data()[n] = sum;
    sum += counts.data()[n];
  }
  offsets.data()[counts.size()] = sum;
}
#endif

}  // namespace cuda
}  // namespace nearsight
