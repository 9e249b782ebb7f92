#include "cuda/mesh/charges.hpp"

namespace nearsight {
namespace cuda {
namespace {

constexpr unsigned kThreads = 256;

/// A block for each component.
__global__ void sum_rows(std::size_t num_rows, const double* rows, double* virial) {
  double sum[1] = {0.0};
  for (std::size_t row = threadIdx.x; row < num_rows; row += kThreads) sum[0] += rows[6 * row + blockIdx.x];
  sum_block<kThreads>(sum, virial + blockIdx.x);
}

}  // namespace

void sum_virial(const Stream& stream, std::size_t num_rows, const double* rows, double* virial) {
  launch(stream, {dim3(6), dim3(kThreads)}, sum_rows, num_rows, rows, virial);
}

}  // namespace cuda
}  // namespace nearsight
