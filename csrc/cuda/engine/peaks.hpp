#pragma once
#include "core/engine/device.hpp"

namespace nearsight {
namespace cuda {

DevicePeaks measure_peaks(int device_index);

}  // namespace cuda
}  // namespace nearsight
