#include "cuda/mesh/charges.hpp"

namespace nearsight {
namespace cuda {
namespace {

constexpr unsigned kThreads = 256;

/// A block for each column.
__global__ void sum_column(std::size_t num_rows, unsigned columns, const double* rows, double* sums) {
  double sum[1] = {0.0};
  for (std::size_t row = threadIdx.x; row < num_rows; row += kThreads)
    sum[0] += rows[columns * row + blockIdx.x];
  sum_block<kThreads>(sum, sums + blockIdx.x);
}

}  // namespace

void sum_rows(const Stream& stream, std::size_t num_rows, unsigned columns, const double* rows,
              double* sums) {
  launch(stream, {dim3(columns), dim3(kThreads)}, sum_column, num_rows, columns, rows, sums);
}

}  // namespace cuda
}  // namespace nearsight
