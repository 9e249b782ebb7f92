#include "cuda/models/mace/readout.hpp"

namespace nearsight {
namespace cuda {
namespace mace {
namespace {

/// A warp for each row.
template <class T>
__global__ void sum_readouts(ReadoutWork<T> work, Offsets offsets, double* readouts) {
  const std::int64_t row = static_cast<std::int64_t>(warp_number());
  if (row >= work.rows) return;
  const int lane = static_cast<int>(lane_number());
  const T* const x = work.x + row * work.x_row;
  for (int c = 0; c < work.columns; ++c) {
    double sum = 0;
    for (int k = lane; k < work.inputs; k += kWarp) {
      const double value = x[k];
      sum += work.weights[k * work.columns + c] * (work.is_hidden ? value / (1 + exp(-value)) : value);
    }
    for (int other = kWarp / 2; other > 0; other /= 2) sum += __shfl_xor_sync(kAllLanes, sum, other);
    if (lane > 0) continue;
    double& target = readouts[row * work.columns + c];
    double before = offsets.species ? 0.0 : target;
    if (offsets.species && c == 0) before = offsets.shift[offsets.species[row]] + offsets.pair_energies[row];
    target = before + work.scale[c] * sum;
  }
}

/// A thread for each input of each row.
template <class T>
__global__ void spread_readouts(ReadoutWork<T> work, const double* cotangents, T* of_x, int of_row) {
  const int width = work.is_hidden ? of_row : work.inputs;
  const std::int64_t n = static_cast<std::int64_t>(thread_number()), row = n / width;
  const int k = static_cast<int>(n % width);
  if (row >= work.rows) return;
  double sum = 0;
  for (int c = 0; c < work.columns && k < work.inputs; ++c)
    sum += cotangents[row * work.columns + c] * work.scale[c] * work.weights[k * work.columns + c];
  T& target = of_x[row * of_row + k];
  if (!work.is_hidden) {
    target += static_cast<T>(sum);
    return;
  }
  const double x = k < work.inputs ? work.x[row * work.x_row + k] : 0.0, sigma = 1 / (1 + exp(-x));
  target = static_cast<T>(sum * sigma * (1 + x * (1 - sigma)));
}

}  // namespace

template <class T>
void read_out(const Stream& stream, const ReadoutWork<T>& work, const Offsets& offsets, double* readouts) {
  launch(stream, warp_each(work.rows), sum_readouts<T>, work, offsets, readouts);
}

template <class T>
void read_out_reverse(const Stream& stream, const ReadoutWork<T>& work, const double* cotangents, T* of_x,
                      int of_row) {
  const int width = work.is_hidden ? of_row : work.inputs;
  launch(stream, one_each(static_cast<std::size_t>(work.rows) * width), spread_readouts<T>, work, cotangents,
         of_x, of_row);
}

#define NEARSIGHT_READOUTS(T)                                                            \
  template void read_out(const Stream&, const ReadoutWork<T>&, const Offsets&, double*); \
  template void read_out_reverse(const Stream&, const ReadoutWork<T>&, const double*, T*, int);
NEARSIGHT_READOUTS(float)
NEARSIGHT_READOUTS(double)
#undef NEARSIGHT_READOUTS

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
