#include "cuda/models/mace/linear.hpp"

namespace nearsight {
namespace cuda {
namespace mace {
namespace {

constexpr int kInner = 16;     // rows of the matrix that are in shared memory at a time
constexpr int kThreads = 128;  // 16 × 8, each with 4 columns and 8 or 4 rows
constexpr int kColumns = 4;    // of a thread

/// What a thread brings from memory, while the block still computes with what came before.
template <class T, int columns>
struct Fetched {
  static constexpr int of_x = kTileRows * kInner / 4 / kThreads, of_weights = kInner * columns / 4 / kThreads;
  Vec4<T> x[of_x], weights[of_weights];

  /// Columns first … first + kInner - 1 of x and these rows of the matrix; zeros beyond the end.
  __device__ __forceinline__ void read(const LinearWork<T>& work, const RowTile& rows, const Part& part,
                                       const T* matrix, int first) {
#pragma unroll
    for (int n = 0; n < of_x; ++n) {
      const int k = first + x_column(n), row = x_row(n);
      x[n] = {0, 0, 0, 0};
      if (row < rows.count && k < part.inner)
        x[n] = *reinterpret_cast<const Vec4<T>*>(work.x + (rows.first + row) * work.x_row + part.from + k);
    }
#pragma unroll
    for (int n = 0; n < of_weights; ++n) {
      const int k = first + weight_row(n), column = weight_column(n);
      weights[n] = {0, 0, 0, 0};
      if (k < part.inner && static_cast<int>(blockIdx.y) * columns + column < work.columns)
        weights[n] =
            *reinterpret_cast<const Vec4<T>*>(matrix + static_cast<std::int64_t>(k) * work.columns + column);
    }
  }

  static __device__ int x_column(int n) { return (threadIdx.x + n * kThreads) % (kInner / 4) * 4; }
  static __device__ int x_row(int n) { return (threadIdx.x + n * kThreads) / (kInner / 4); }
  static __device__ int weight_column(int n) { return (threadIdx.x + n * kThreads) % (columns / 4) * 4; }
  static __device__ int weight_row(int n) { return (threadIdx.x + n * kThreads) / (columns / 4); }
};

template <class T, int columns>
struct alignas(16) LinearTile {
  // Padded, so that a column's store meets few banks twice; 16 bytes stay aligned.
  T x[kInner][kTileRows + 4], weights[kInner][columns];

  __device__ __forceinline__ void write(const Fetched<T, columns>& from) {
    using Places = Fetched<T, columns>;
#pragma unroll
    for (int n = 0; n < Places::of_x; ++n) {
      const int k = Places::x_column(n), row = Places::x_row(n);
      x[k][row] = from.x[n].x;
      x[k + 1][row] = from.x[n].y;
      x[k + 2][row] = from.x[n].z;
      x[k + 3][row] = from.x[n].w;
    }
#pragma unroll
    for (int n = 0; n < Places::of_weights; ++n)
      *reinterpret_cast<Vec4<T>*>(&weights[Places::weight_row(n)][Places::weight_column(n)]) =
          from.weights[n];
  }
};

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
  Fetched<T, columns> next;
  next.read(work, rows, part, matrix, 0);
  for (int first = 0; first < part.inner; first += kInner) {
    tile.write(next);
    __syncthreads();
    if (first + kInner < part.inner) next.read(work, rows, part, matrix, first + kInner);
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
