#pragma once
#include "cuda/training/training.hpp"

namespace nearsight {
namespace cuda {
namespace training {

void pair_edges(DeviceScope& scope, std::int64_t num_atoms, std::int64_t num_edges,
                const std::int64_t* offsets, const std::int64_t* neighbors, const double* vectors,
                std::int64_t* order, std::int64_t* middles, std::int32_t* pairs, std::int64_t* firsts,
                std::int64_t* count);
void edge_sums(DeviceScope&, const equivariant::FrameEdges&, const double* gradients, double* forces,
               double* virials);
void edge_differences(DeviceScope&, const equivariant::FrameEdges&, const double* forces,
                      const double* virials, double* gradients);

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
