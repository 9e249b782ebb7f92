#pragma once
#include <vector>

#include "core/mesh/mesh_kernels.hpp"

namespace nearsight {

/// How a wave of h periods over n points is seen by the spline: [h] Ŵ(h)² and Σ_m Ŵ(h + m n)² over all waves
/// that look the same on the mesh, with Ŵ(h) = sinc(πh/n)^p.
struct SplineWaves {
  std::vector<double> own, all;  // [n], h >= n / 2 stands for h - n
};
SplineWaves spline_waves(int order, int n);

}  // namespace nearsight
