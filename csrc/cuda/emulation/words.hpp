#pragma once
// CUDA's words for a plain C++ compiler. One block runs at a time; its threads are fibers that take turns
// where they wait for each other. So kernels can be tested, and run under sanitizers, on a machine without a
// GPU.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
// Blocks run one after the other, so that one place serves them all.
#define __shared__ static

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace nearsight {
namespace cuda {
namespace emulation {

struct Indices {
  dim3 thread, block, block_size, grid_size;
};
extern Indices indices;  // of the fiber that runs

/// Runs a kernel: `body` in every thread of every block. Throws Error (internal) where CUDA would refuse the
/// launch, and where threads wait for each other for ever. NEARSIGHT_EMULATION_ORDER=reverse in the
/// environment lets the threads take turns from the last to the first: what then changes is a race.
void run(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body);

void* dynamic_shared();
void wait_for_block();
void wait_for_warp();
/// 16 bytes of each lane that its warp sees between two waits.
unsigned char* lane_slot(unsigned lane);

template <class T>
T exchange(T value, unsigned from) {
  static_assert(sizeof(T) <= 16, "a lane has 16 bytes");
  const unsigned lane = (indices.thread.x + indices.block_size.x * indices.thread.y) % 32;
  std::memcpy(lane_slot(lane), &value, sizeof(T));
  wait_for_warp();
  T found;
  std::memcpy(&found, lane_slot(from % 32), sizeof(T));
  wait_for_warp();
  return found;
}

inline unsigned ballot(bool vote) {
  const unsigned lane = (indices.thread.x + indices.block_size.x * indices.thread.y) % 32;
  const unsigned char one = vote ? 1 : 0;
  std::memcpy(lane_slot(lane), &one, 1);
  wait_for_warp();
  unsigned votes = 0;
  for (unsigned k = 0; k < 32; ++k) votes |= (*lane_slot(k) ? 1u : 0u) << k;
  wait_for_warp();
  return votes;
}

template <class T, class Change>
T change(T* place, const Change& next) {
  const T old = *place;
  *place = next(old);
  return old;
}

}  // namespace emulation
}  // namespace cuda
}  // namespace nearsight

#define threadIdx (nearsight::cuda::emulation::indices.thread)
#define blockIdx (nearsight::cuda::emulation::indices.block)
#define blockDim (nearsight::cuda::emulation::indices.block_size)
#define gridDim (nearsight::cuda::emulation::indices.grid_size)

inline void __syncthreads() {
  nearsight::cuda::emulation::wait_for_block();
}
inline void __syncwarp(unsigned = 0xffffffffu) {
  nearsight::cuda::emulation::wait_for_warp();
}
inline void __threadfence() {}

// All lanes that have not returned take part: masks of some lanes only are not emulated.
template <class T>
T __shfl_sync(unsigned, T value, unsigned from) {
  return nearsight::cuda::emulation::exchange(value, from);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, unsigned mask) {
  return nearsight::cuda::emulation::exchange(value, (threadIdx.x % 32) ^ mask);
}
template <class T>
T __shfl_up_sync(unsigned, T value, unsigned by) {
  const unsigned lane = threadIdx.x % 32;
  return nearsight::cuda::emulation::exchange(value, lane >= by ? lane - by : lane);
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned by) {
  const unsigned lane = threadIdx.x % 32;
  return nearsight::cuda::emulation::exchange(value, lane + by < 32 ? lane + by : lane);
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  return nearsight::cuda::emulation::ballot(vote);
}
inline bool __any_sync(unsigned, bool vote) {
  return nearsight::cuda::emulation::ballot(vote) != 0;
}

template <class T>
T atomicAdd(T* place, T value) {
  return nearsight::cuda::emulation::change(place, [&](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* place, T value) {
  return nearsight::cuda::emulation::change(place, [&](T old) { return old < value ? value : old; });
}
template <class T>
T atomicMin(T* place, T value) {
  return nearsight::cuda::emulation::change(place, [&](T old) { return value < old ? value : old; });
}
template <class T>
T atomicOr(T* place, T value) {
  return nearsight::cuda::emulation::change(place, [&](T old) { return old | value; });
}
template <class T>
T atomicExch(T* place, T value) {
  return nearsight::cuda::emulation::change(place, [&](T) { return value; });
}

template <class T>
T __ldg(const T* place) {
  return *place;
}
inline int __popc(unsigned bits) {
  return __builtin_popcount(bits);
}
inline int __ffs(int bits) {
  return __builtin_ffs(bits);
}
inline double rsqrt(double x) {
  return 1.0 / std::sqrt(x);
}
inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}
inline double sinpi(double x) {
  return std::sin(3.14159265358979323846 * x);
}
inline float sinpi(float x) {
  return std::sin(3.14159265358979323846f * x);
}
inline double cospi(double x) {
  return std::cos(3.14159265358979323846 * x);
}
inline float cospi(float x) {
  return std::cos(3.14159265358979323846f * x);
}
inline float erfcf(float x) {
  return std::erfc(x);
}
inline float expf(float x) {
  return std::exp(x);
}
inline void sincosf(float x, float* s, float* c) {
  *s = std::sin(x), *c = std::cos(x);
}
