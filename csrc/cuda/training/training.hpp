#pragma once
// Ops of training: kernels between arrays of the host's tensors, on the host's stream.
#include "core/models/equivariant/device.hpp"
#include "core/models/networks/device.hpp"
#include "core/models/shared/device_training.hpp"

namespace nearsight {
namespace cuda {
namespace training {

template <class T>
const equivariant::DeviceKernels<T>& equivariant_kernels();
const equivariant::DeviceEdgeKernels& edge_kernels();
const nearsight::networks::DevicePasses& network_passes();
const DeviceDescriptorKernels& descriptor_kernels();

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
