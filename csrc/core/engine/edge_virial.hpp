#pragma once
#include "core/engine/host_device.hpp"

namespace nearsight {

/// The virial of an edge, -dE/dstrain, eV: xx yy zz xy xz yz of its vector r, Å, and gradient dE/dr, eV/Å.
/// Half of the mixed components from each order: symmetric also for a model that is not quite invariant.
NEARSIGHT_HOST_DEVICE inline void edge_virial(const double* r, const double* g, double* virial) {
  virial[0] = -r[0] * g[0];
  virial[1] = -r[1] * g[1];
  virial[2] = -r[2] * g[2];
  virial[3] = -0.5 * (r[0] * g[1] + r[1] * g[0]);
  virial[4] = -0.5 * (r[0] * g[2] + r[2] * g[0]);
  virial[5] = -0.5 * (r[1] * g[2] + r[2] * g[1]);
}

}  // namespace nearsight
