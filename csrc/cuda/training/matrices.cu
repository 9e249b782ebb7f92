#include "cuda/device.hpp"
#include "cuda/training/matrices.hpp"

namespace nearsight {
namespace cuda {
namespace training {
namespace {

constexpr int kTile = 32, kInner = 16;  // of a block, in steps of the inner dimension
constexpr int kBlock = 4;               // rows and columns of a thread
constexpr int kSide = kTile / kBlock, kThreads = kSide * kSide;

/// A tile of a matrix: element (i, k) is at [k][i]. Threads next to each other read numbers that are.
__device__ inline void read_rows(const Matrix& a, int member, int first_row, int rows, int first, int last,
                                 double (*tile)[kTile + 1]) {
  for (int n = static_cast<int>(threadIdx.x); n < kTile * kInner; n += kThreads) {
    const bool along = a.column == 1;
    const int i = along ? n / kInner : n % kTile, k = along ? n % kInner : n / kTile;
    const int row = first_row + i, inner = first + k;
    tile[k][i] =
        row < rows && inner < last ? a.data[row * a.row + inner * a.column + member * a.member] : 0.0;
  }
}

__device__ inline void read_columns(const Matrix& b, int member, int first_column, int columns, int first,
                                    int last, double (*tile)[kTile + 1]) {
  for (int n = static_cast<int>(threadIdx.x); n < kTile * kInner; n += kThreads) {
    const bool along = b.column == 1;
    const int j = along ? n % kTile : n / kInner, k = along ? n / kTile : n % kInner;
    const int column = first_column + j, inner = first + k;
    double value = 0.0;
    if (column < columns && inner < last)
      value = column < b.end ? b.data[inner * b.row + column * b.column + member * b.member] : b.beyond;
    tile[k][j] = value;
  }
}

/// A block for each tile of c, 4 x 4 numbers for a thread: 8 reads of shared memory for 16 multiply-adds.
__global__ void multiply_tiles(Multiplication p) {
  __shared__ double left[kInner][kTile + 1], right[kInner][kTile + 1];
  const int member = static_cast<int>(blockIdx.z) / p.splits, split = static_cast<int>(blockIdx.z) % p.splits;
  const int row = static_cast<int>(blockIdx.y) * kTile, column = static_cast<int>(blockIdx.x) * kTile;
  const int my_row = static_cast<int>(threadIdx.x) / kSide, my_column = static_cast<int>(threadIdx.x) % kSide;
  const int begin = static_cast<int>(static_cast<std::int64_t>(p.inner) * split / p.splits);
  const int end = static_cast<int>(static_cast<std::int64_t>(p.inner) * (split + 1) / p.splits);
  double sums[kBlock][kBlock] = {};
  for (int pair = 0; pair < p.pairs; ++pair)
    for (int first = begin; first < end; first += kInner) {
      read_rows(p.a[pair], member, row, p.rows, first, end, left);
      read_columns(p.b[pair], member, column, p.columns, first, end, right);
      __syncthreads();
      for (int k = 0; k < kInner; ++k) {
        double x[kBlock], y[kBlock];
        NEARSIGHT_UNROLL for (int n = 0; n < kBlock; ++n) {
          x[n] = left[k][my_row + n * kSide];
          y[n] = right[k][my_column + n * kSide];
        }
        NEARSIGHT_UNROLL for (int i = 0; i < kBlock; ++i) NEARSIGHT_UNROLL for (int j = 0; j < kBlock; ++j)
            sums[i][j] += x[i] * y[j];
      }
      __syncthreads();
    }
  NEARSIGHT_UNROLL for (int i = 0; i < kBlock; ++i) NEARSIGHT_UNROLL for (int j = 0; j < kBlock; ++j) {
    const int r = row + my_row + i * kSide, k = column + my_column + j * kSide;
    if (r >= p.rows || k >= p.columns) continue;
    double* const out = p.c + split * p.c_split + member * p.c_member + r * p.c_row + k;
    const double bias = p.bias ? p.bias[member * p.bias_member + k] : 0.0;
    *out = (p.add ? *out : bias) + sums[i][j];
  }
}

}  // namespace

void multiply(const Work& work, const Multiplication& p) {
  const auto tiles = [](int count) { return static_cast<unsigned>((count + kTile - 1) / kTile); };
  const dim3 blocks(tiles(p.columns), tiles(p.rows), static_cast<unsigned>(p.members * p.splits));
  launch(work.stream, {blocks, dim3(kThreads)}, multiply_tiles, p);
}

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
