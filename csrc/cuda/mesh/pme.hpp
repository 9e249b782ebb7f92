#pragma once
#include <memory>

#include "core/mesh/pme_work.hpp"

namespace nearsight {
namespace cuda {

/// See core's make_cuda_pme.
std::unique_ptr<PmeWork> make_pme(const PmeParameters& parameters, const Pencils& pencils, int rank,
                                  bool single, int device_index);
std::unique_ptr<PmeWork> make_direct_sum(int device_index);

}  // namespace cuda
}  // namespace nearsight
