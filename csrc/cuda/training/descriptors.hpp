#pragma once
#include "cuda/training/training.hpp"

namespace nearsight {
namespace cuda {
namespace training {

void stored_reverse(DeviceScope&, const StoredDerivatives&, const double* cotangents, double* gradients);
void stored_tangent(DeviceScope&, const StoredDerivatives&, const double* directions, double* tangents);
void stored_gather(DeviceScope&, const StoredDerivatives&, const std::int64_t* slots, double* dense);
void products_forward(DeviceScope&, const MomentProducts&, double* output);
void products_reverse(DeviceScope&, const MomentProducts&, const double* cotangents, double* output);
void products_second(DeviceScope&, const MomentProducts&, const double* cotangents, const double* directions,
                     double* of_cotangents, double* of_moments);

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
