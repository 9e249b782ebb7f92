#pragma once
#include "cuda/training/training.hpp"

namespace nearsight {
namespace cuda {
namespace training {

template <class T>
void silu(DeviceScope&, const T* x, T* y, std::int64_t count);
template <class T>
void silu_reverse(DeviceScope&, const T* x, const T* adjoints, T* gradients, std::int64_t count);
template <class T>
void harmonics(DeviceScope&, const double* vectors, std::int64_t count, int l_max, T* y);
template <class T>
void harmonics_reverse(DeviceScope&, const double* vectors, std::int64_t count, int l_max, const T* adjoints,
                       double* gradients);
template <class T>
void harmonics_tangent(DeviceScope&, const double* vectors, std::int64_t count, int l_max,
                       const double* directions, T* tangents);

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
