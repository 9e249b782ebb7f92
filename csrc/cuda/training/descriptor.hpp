#pragma once
#include "core/models/training_descriptor.hpp"

namespace nearsight {
namespace cuda {
namespace training {

/// Throws Error (unsupported) for a kind without kernels.
std::unique_ptr<DeviceDescriptor> make_descriptor(DeviceScope& scope, const DescriptorRecord& record);

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
