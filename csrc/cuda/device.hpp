#pragma once
// The words of CUDA. Every file of this folder is compiled twice: by nvcc for a GPU, and by the C++ compiler
// for tests without one, where emulation/words.hpp stands in for the language and threads of a block are
// fibers.
#include <cstddef>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "cuda/emulation/words.hpp"
#endif

#include "cuda/runtime.hpp"

namespace nearsight {
namespace cuda {

constexpr unsigned kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

/// Blocks and threads of a kernel, and the bytes of dynamic_shared().
struct Grid {
  dim3 blocks, threads;
  std::size_t shared_bytes = 0;
};

/// Blocks of `threads` for `count` units of work, one for each thread.
inline Grid one_each(std::size_t count, unsigned threads = 256) {
  return {dim3(static_cast<unsigned>((count + threads - 1) / threads)), dim3(threads)};
}

/// The same with a warp for each unit of work.
inline Grid warp_each(std::size_t count, unsigned warps = 4) {
  return {dim3(static_cast<unsigned>((count + warps - 1) / warps)), dim3(kWarp * warps)};
}

#ifdef __CUDACC__
/// Before a loop over an array that is to stay in registers.
#define NEARSIGHT_UNROLL _Pragma("unroll")

/// Number of this thread, or of its warp, in a one-dimensional grid.
__device__ inline std::size_t thread_number() {
  return static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline std::size_t warp_number() {
  return thread_number() / kWarp;
}
__device__ inline unsigned lane_number() {
  return threadIdx.x % kWarp;
}

/// The memory that all threads of a block share, Grid::shared_bytes of it, for 16 bytes at a time.
template <class T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char nearsight_shared[];
  return reinterpret_cast<T*>(nearsight_shared);
}

/// Starts a kernel, unless its grid is empty. Arguments are converted to the kernel's parameters.
template <class... Parameters, class... Arguments>
void launch(const Stream& stream, const Grid& grid, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
  if (grid.shared_bytes > 48 * 1024) allow_shared(reinterpret_cast<const void*>(kernel), grid.shared_bytes);
  kernel<<<grid.blocks, grid.threads, grid.shared_bytes, static_cast<cudaStream_t>(stream.handle())>>>(
      static_cast<Parameters>(arguments)...);
  check_launch();
}
#else
#define NEARSIGHT_UNROLL

inline std::size_t thread_number() {
  return static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
inline std::size_t warp_number() {
  return thread_number() / kWarp;
}
inline unsigned lane_number() {
  return threadIdx.x % kWarp;
}

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(emulation::dynamic_shared());
}

template <class... Parameters, class... Arguments>
void launch(const Stream&, const Grid& grid, void (*kernel)(Parameters...), const Arguments&... arguments) {
  emulation::run(grid.blocks, grid.threads, grid.shared_bytes,
                 [&] { kernel(static_cast<Parameters>(arguments)...); });
}
#endif

/// Four numbers that are read and written at once; of edges a vector and its length.
template <class T>
struct alignas(16) Vec4 {
  T x, y, z, w;
};

}  // namespace cuda
}  // namespace nearsight
