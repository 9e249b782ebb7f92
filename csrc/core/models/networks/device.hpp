#pragma once
#include "core/engine/device_scope.hpp"
#include "core/models/networks/training.hpp"

namespace nearsight {
namespace networks {

/// The passes of `Passes` on a GPU; pointers and spans are to its memory.
struct DevicePasses {
  void (*values)(DeviceScope&, const NetworkShape&, const double* weights, const Inputs&, double* state,
                 double* outputs);
  void (*gradient)(DeviceScope&, const NetworkShape&, const double* weights, const Inputs&,
                   const double* state, const double* cotangents, double* c);
  void (*weights)(DeviceScope&, const NetworkShape&, const double* weights, const Inputs&,
                  const double* state, const double* cotangents, double* of_weights);
  void (*second)(DeviceScope&, const NetworkShape&, const double* weights, const Inputs&, const double* state,
                 const double* cotangents, const double* directions, double* of_weights,
                 double* of_cotangents, double* of_table);
};

/// Opens libnearsight_cuda.so when it is first called. Throws Error (unsupported) in a build without it.
const DevicePasses& device_passes();

}  // namespace networks
}  // namespace nearsight
