#include <algorithm>

#include "cuda/device.hpp"
#include "cuda/engine/peaks.hpp"

namespace nearsight {
namespace cuda {
namespace {

#ifdef __CUDACC__
constexpr std::size_t kBytes = std::size_t{1} << 30;  // far beyond the cache
constexpr int kBlocks = 132 * 16, kRounds = 4096, kRepeats = 10;
#else
constexpr std::size_t kBytes = 1 << 20;
constexpr int kBlocks = 2, kRounds = 4, kRepeats = 1;
#endif
constexpr int kThreads = 256, kChains = 8;

/// Independent chains of multiply-adds, whose results must not be thrown away.
template <class T>
__global__ void __launch_bounds__(kThreads) multiply_and_add(T factor, T* out) {
  T chains[kChains];
  for (int c = 0; c < kChains; ++c) chains[c] = static_cast<T>(threadIdx.x + c);
  for (int n = 0; n < kRounds; ++n)
    for (int c = 0; c < kChains; ++c) chains[c] = chains[c] * factor + factor;
  T sum = 0;
  for (int c = 0; c < kChains; ++c) sum += chains[c];
  if (sum == static_cast<T>(-1)) *out = sum;
}

/// The best of some repeats.
template <class Work>
double best_seconds(const Stream& stream, const Work& work) {
  double best = 1e30;
  for (int n = 0; n <= kRepeats; ++n) best = std::min(best, measure_seconds(stream, work));
  return best;
}

template <class T>
double operations_per_second(const Stream& stream) {
  Buffer<T> out(1);
  const Grid grid{dim3(kBlocks), dim3(kThreads)};
  const double seconds = best_seconds(
      stream, [&] { launch(stream, grid, multiply_and_add<T>, static_cast<T>(0.5), out.data()); });
  return 2.0 * kBlocks * kThreads * kChains * kRounds / seconds;
}

}  // namespace

DevicePeaks measure_peaks(int device_index) {
  const int device = use_device(device_index);
  const Stream stream;
  Buffer<unsigned char> from(kBytes), to(kBytes);
  fill_bytes(stream, from.data(), 1, kBytes);
  const double seconds =
      best_seconds(stream, [&] { copy_on_device(stream, to.data(), from.data(), kBytes); });
  return {describe_device(device), 2.0 * kBytes / seconds, operations_per_second<float>(stream),
          operations_per_second<double>(stream)};
}

}  // namespace cuda
}  // namespace nearsight
