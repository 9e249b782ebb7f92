#pragma once
#include <memory>

#include "core/couple/dispersion.hpp"

namespace nearsight {
namespace cuda {

/// See core's make_cuda_dispersion.
std::unique_ptr<Dispersion> make_dispersion(const DispersionRecord& record, bool double_precision,
                                            const Communicator& ranks, int device_index);

}  // namespace cuda
}  // namespace nearsight
