#pragma once
#include "cuda/training/training.hpp"

namespace nearsight {
namespace cuda {
namespace training {

template <class T>
void convolve(DeviceScope&, const equivariant::Convolution<T>&);
template <class T>
void by_geometry(DeviceScope&, const equivariant::Convolution<T>&, T* source_adjoints);
template <class T>
void by_parameters(DeviceScope&, const equivariant::Convolution<T>&, T* source_adjoints);
template <class T>
void of_tangent(DeviceScope&, const equivariant::Convolution<T>&, T* source_adjoints);

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
