#pragma once
#include <memory>

#include "core/engine/device.hpp"

namespace nearsight {
namespace cuda {

/// The list that the worker uses, on its own.
std::unique_ptr<DeviceList> make_list(double cutoff, double skin, int device_index);

}  // namespace cuda
}  // namespace nearsight
