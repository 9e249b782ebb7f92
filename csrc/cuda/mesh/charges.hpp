#pragma once
// What the sums over pairs and waves share.
#include "core/mesh/periodic.hpp"
#include "cuda/reduce.hpp"

namespace nearsight {
namespace cuda {

/// Charges in device memory, in the order of the host: those of this rank, then those of others near them.
struct DeviceCharges {
  int count, own;
  const double* positions;  // [3n] Å
  const double* values;     // [n] e
  const double* widths;     // [n] Å, or null: points

  /// In which each cell's charges are sorted: those of this rank, and of others.
  __host__ __device__ int num_parts() const { return own < count ? 2 : 1; }
};

/// Sums over charges, of those of this rank, in device memory, e/Å, e²/Å for the virial.
struct ChargeSums {
  bool fields;      // whether fields and virial are wanted
  double* values;   // [n][4] potential and field, or without fields [n] potentials
  double* virials;  // [rows][6] xx yy zz xy xz yz: their sum is the virial
  // The pair (i << 32 | j), i < j, of charges on top of each other with the smallest number, or all bits set.
  unsigned long long* closest;
};

/// The box of a lattice sum, for kernels.
struct Axes {
  double vectors[9], inverse[9];

  explicit Axes(const Box& box) {
    for (int k = 0; k < 9; ++k) vectors[k] = box.vectors[k], inverse[k] = box.inverse[k];
  }

  /// The fractional coordinate of a position along direction d.
  __device__ double fraction(const double* r, int d) const {
    return r[0] * inverse[d] + r[1] * inverse[3 + d] + r[2] * inverse[6 + d];
  }
};

__device__ inline void report_close(unsigned long long* closest, int i, int j) {
  const unsigned long long low = i < j ? i : j, high = i < j ? j : i;
  atomicMin(closest, low << 32 | high);
}

/// to[kNumbers] = sums over all threads of a block, which all take part.
template <int kThreads, int kNumbers>
__device__ inline void sum_block(const double (&values)[kNumbers], double* to) {
  constexpr int kWarps = kThreads / kWarp;
  __shared__ double sums[kWarps][kNumbers];
  for (int a = 0; a < kNumbers; ++a) {
    const double sum = warp_sum(values[a]);
    if (lane_number() == 0) sums[threadIdx.x / kWarp][a] = sum;
  }
  __syncthreads();
  if (threadIdx.x >= kNumbers) return;
  double total = 0;
  for (int w = 0; w < kWarps; ++w) total += sums[w][threadIdx.x];
  to[threadIdx.x] = total;
}

/// sums[columns] = sums over rows[num_rows][columns].
void sum_rows(const Stream& stream, std::size_t num_rows, unsigned columns, const double* rows, double* sums);

}  // namespace cuda
}  // namespace nearsight
