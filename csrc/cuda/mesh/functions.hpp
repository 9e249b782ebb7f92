#pragma once
#include "cuda/device.hpp"

namespace nearsight {
namespace cuda {

__device__ inline float inverse_root(float x) {
  return rsqrtf(x);
}
__device__ inline double inverse_root(double x) {
  return rsqrt(x);
}
/// exp(x)
__device__ inline float decay(float x) {
  return expf(x);
}
__device__ inline double decay(double x) {
  return exp(x);
}
/// erfc(x)
__device__ inline float outside(float x) {
  return erfcf(x);
}
__device__ inline double outside(double x) {
  return erfc(x);
}

}  // namespace cuda
}  // namespace nearsight
