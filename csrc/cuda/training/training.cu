#include "cuda/training/contraction.hpp"
#include "cuda/training/convolution.hpp"
#include "cuda/training/descriptors.hpp"
#include "cuda/training/edges.hpp"
#include "cuda/training/geometry.hpp"
#include "cuda/training/training.hpp"

namespace nearsight {
namespace cuda {
namespace training {

template <class T>
const equivariant::DeviceKernels<T>& equivariant_kernels() {
  static const equivariant::DeviceKernels<T> kernels{
      convolve<T>,     by_geometry<T>,      by_parameters<T>,     of_tangent<T>,
      contract<T>,     contract_reverse<T>, contract_tangent<T>,  silu<T>,
      silu_reverse<T>, harmonics<T>,        harmonics_reverse<T>, harmonics_tangent<T>};
  return kernels;
}
template const equivariant::DeviceKernels<float>& equivariant_kernels();
template const equivariant::DeviceKernels<double>& equivariant_kernels();

const equivariant::DeviceEdgeKernels& edge_kernels() {
  static const equivariant::DeviceEdgeKernels kernels{pair_edges, edge_sums, edge_differences};
  return kernels;
}

const DeviceDescriptorKernels& descriptor_kernels() {
  static const DeviceDescriptorKernels kernels{stored_reverse,   stored_tangent,   stored_gather,
                                               products_forward, products_reverse, products_second};
  return kernels;
}

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
