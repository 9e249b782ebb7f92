#pragma once
#include <memory>

#include "core/engine/device.hpp"

namespace nearsight {
namespace cuda {

/// The twin of what core's Evaluator does with edges. Throws Error (unsupported) for a model without kernels,
/// and what use_device() throws.
std::unique_ptr<DeviceWorker> make_worker(const ModelFile& file, const DeviceOptions& options);

}  // namespace cuda
}  // namespace nearsight
