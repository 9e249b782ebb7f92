#include "cuda/models/mace/linear.hpp"

namespace nearsight {
namespace cuda {
namespace mace {
namespace {

constexpr int kInner = 16;     // rows of the matrix that are in shared memory at a time
constexpr int kThreads = 128;  // 16 × 8, each with 4 columns and 8 or 4 rows
constexpr int kColumns = 4;    // of a thread

template <class T, int columns>
struct LinearTile {
  // Padded, so that a column's store meets few banks twice; 16 bytes stay aligned.
  T x[kInner][kTileRows + 4], weights[kInner][columns];
};

/// Brings the next kInner columns of x and rows of the matrix to shared memory; zeros beyond the end.
template <class T, int columns>
__device__ __forceinline__ void load_tile(const LinearWork<T>& work, const RowTile& rows, const Part& part,
                                          const T* matrix, int first, LinearTile<T, columns>& tile) {
  const Vec4<T> zero{0, 0, 0, 0};
#pragma unroll
  for (int n = 0; n < kTileRows * kInner / 4 / kThreads; ++n) {
    const int k = (threadIdx.x + n * kThreads) % (kInner / 4) * 4;
    const int row = (threadIdx.x + n * kThreads) / (kInner / 4);
    Vec4<T> four = zero;
    if (row < rows.count && first + k < part.inner)
      four =
          *reinterpret_cast<const Vec4<T>*>(work.x + (rows.first + row) * work.x_row + part.from + first + k);
    tile.x[k][row] = four.x;
    tile.x[k + 1][row] = four.y;
    tile.x[k + 2][row] = four.z;
    tile.x[k + 3][row] = four.w;
  }
#pragma unroll
  for (int n = 0; n < kInner * columns / 4 / kThreads; ++n) {
    const int column = (threadIdx.x + n * kThreads) % (columns / 4) * 4;
    const int k = (threadIdx.x + n * kThreads) / (columns / 4);
    Vec4<T> four = zero;
    if (first + k < part.inner && static_cast<int>(blockIdx.y) * columns + column < work.columns)
      four = *reinterpret_cast<const Vec4<T>*>(matrix + static_cast<std::int64_t>(first + k) * work.columns +
                                               column);
    *reinterpret_cast<Vec4<T>*>(&tile.weights[k][column]) = four;
  }
}

/// Blocks: tiles of rows, blocks of columns, parts.
template <class T, int columns>
__global__ void __launch_bounds__(kThreads) multiply_tiles(LinearWork<T> work) {
  constexpr int across = columns / kColumns, rows_each = kTileRows * across / kThreads;
  __shared__ LinearTile<T, columns> tile;
  const RowTile rows = work.tiles[blockIdx.x];
  const Part part = work.parts[blockIdx.z];
  const int first_column = blockIdx.y * columns;  // of the block
  const T* const matrix = work.weights + rows.species * work.species_stride + part.weights + first_column;
  const int column = threadIdx.x % across * kColumns, row = threadIdx.x / across * rows_each;
  T sums[rows_each][kColumns];
#pragma unroll
  for (int a = 0; a < rows_each; ++a)
#pragma unroll
    for (int b = 0; b < kColumns; ++b) sums[a][b] = 0;
  for (int first = 0; first < part.inner; first += kInner) {
    load_tile(work, rows, part, matrix, first, tile);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kInner; ++k) {
      const Vec4<T> w = *reinterpret_cast<const Vec4<T>*>(&tile.weights[k][column]);
      alignas(16) T x[rows_each];
#pragma unroll
      for (int a = 0; a < rows_each; a += 4)
        *reinterpret_cast<Vec4<T>*>(x + a) = *reinterpret_cast<const Vec4<T>*>(&tile.x[k][row + a]);
#pragma unroll
      for (int a = 0; a < rows_each; ++a) {
        sums[a][0] += x[a] * w.x;
        sums[a][1] += x[a] * w.y;
        sums[a][2] += x[a] * w.z;
        sums[a][3] += x[a] * w.w;
      }
    }
    __syncthreads();
  }
  if (first_column + column >= work.columns) return;
  Vec4<T> constant{0, 0, 0, 0};
  if (work.constant && blockIdx.z == 0)
    constant = *reinterpret_cast<const Vec4<T>*>(
        work.constant + static_cast<std::int64_t>(rows.species) * work.columns + first_column + column);
#pragma unroll
  for (int a = 0; a < rows_each; ++a) {
    if (row + a >= rows.count) break;
    const std::int64_t number = rows.first + row + a;
    const T scale = work.row_scale ? work.row_scale[number] : T(1);
    Vec4<T>* const to =
        reinterpret_cast<Vec4<T>*>(work.y + number * work.y_row + part.to + first_column + column);
    const Vec4<T> before = work.add ? *to : Vec4<T>{0, 0, 0, 0};
    *to = {before.x + constant.x + scale * sums[a][0], before.y + constant.y + scale * sums[a][1],
           before.z + constant.z + scale * sums[a][2], before.w + constant.w + scale * sums[a][3]};
  }
}

}  // namespace

template <class T>
void multiply(const Stream& stream, const LinearWork<T>& work) {
  const bool wide = work.columns > 32;
  const int columns = wide ? 64 : 32;
  const Grid grid{dim3(work.num_tiles, (work.columns + columns - 1) / columns, work.num_parts),
                  dim3(kThreads)};
  launch(stream, grid, wide ? multiply_tiles<T, 64> : multiply_tiles<T, 32>, work);
}

template void multiply(const Stream&, const LinearWork<float>&);
template void multiply(const Stream&, const LinearWork<double>&);

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
