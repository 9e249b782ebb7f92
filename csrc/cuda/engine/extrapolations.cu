#include <algorithm>
#include <cmath>
#include <cstring>

#include "cuda/device.hpp"
#include "cuda/engine/extrapolations.hpp"

namespace nearsight {
namespace cuda {
namespace {

constexpr unsigned kWarps = 8;  // of a block
constexpr int kRows = 64;       // likewise
constexpr unsigned long long kSign = 1ull << 63;

/// A number as an integer that sorts like it.
__device__ inline unsigned long long sort_key(double x) {
  unsigned long long bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits & kSign ? ~bits : bits | kSign;
}

double from_sort_key(unsigned long long key) {
  const unsigned long long bits = key & kSign ? key ^ kSign : ~key;
  double x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

/// A lane for each feature, rows in turn: a warp reads 256 bytes of a row, and what lies inside of its range
/// costs no atomic.
__global__ void __launch_bounds__(kWarps* kWarp)
    find_extrapolations(JudgedFeatures judged, unsigned long long* counts, unsigned long long* lowest,
                        unsigned long long* highest) {
  const int n = static_cast<int>(blockIdx.y * kWarp + lane_number());
  if (n >= judged.num_features) return;
  const int f = judged.first + n;
  const double low = judged.lowest[f], high = judged.highest[f];
  const int begin = static_cast<int>(blockIdx.x) * kRows;
  const int end = begin + kRows < judged.num_rows ? begin + kRows : judged.num_rows;
  unsigned long long count = 0;
  double least = INFINITY, most = -INFINITY;
  for (int row = begin + static_cast<int>(threadIdx.x / kWarp); row < end; row += kWarps) {
    const double x = judged.rows[static_cast<std::size_t>(row) * judged.stride + n];
    if (x >= low && x <= high) continue;
    ++count;
    least = x < least ? x : least;
    most = most < x ? x : most;
  }
  if (count == 0) return;
  atomicAdd(counts + f, count);
  atomicMin(lowest + f, sort_key(least));
  atomicMax(highest + f, sort_key(most));
}

}  // namespace

void ExtrapolationSums::clear(const Stream& stream, std::size_t num_features) {
  num_features_ = num_features;
  sums_.clear(stream, 3 * num_features);
  fill_bytes(stream, sums_.data() + num_features, 0xff, num_features * sizeof(unsigned long long));
}

void ExtrapolationSums::add(const Stream& stream, const JudgedFeatures& judged) {
  const Grid grid{dim3(static_cast<unsigned>((judged.num_rows + kRows - 1) / kRows),
                       static_cast<unsigned>((judged.num_features + kWarp - 1) / kWarp)),
                  dim3(kWarps * kWarp)};
  unsigned long long* const counts = sums_.data();
  launch(stream, grid, find_extrapolations, judged, counts, counts + num_features_,
         counts + 2 * num_features_);
}

void ExtrapolationSums::fetch(const Stream& stream) {
  host_sums_.resize(sums_.size());
  sums_.download(stream, host_sums_.span());
}

void ExtrapolationSums::add_to(const Extrapolations& found) const {
  const unsigned long long *const counts = host_sums_.data(), *const lowest = counts + num_features_,
                                  *const highest = lowest + num_features_;
  for (std::size_t f = 0; f < num_features_; ++f) {
    if (counts[f] == 0) continue;
    found.counts[f] += static_cast<long long>(counts[f]);
    found.lowest[f] = std::min(found.lowest[f], from_sort_key(lowest[f]));
    found.highest[f] = std::max(found.highest[f], from_sort_key(highest[f]));
  }
}

}  // namespace cuda
}  // namespace nearsight
