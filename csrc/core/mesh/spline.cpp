#include "core/mesh/spline.hpp"

#include <cmath>

#include "core/mesh/pair_kernel.hpp"

namespace nearsight {
namespace {

/// M_n(1) .. M_n(n - 1)
std::vector<double> at_integers(int order) {
  std::vector<double> m{0, 1, 0};  // M_2(0), M_2(1), M_2(2)
  for (int n = 3; n <= order; ++n) {
    m.push_back(0);
    for (int x = n; x > 0; --x) m[x] = (x * m[x] + (n - x) * m[x - 1]) / (n - 1);
  }
  return m;
}

}  // namespace

SplineWaves spline_waves(int order, int n) {
  // Σ_m sinc(π(h/n + m))^2p is the Fourier series of M_2p, the spline's overlap with itself, at the integers.
  const std::vector<double> overlap = at_integers(2 * order);
  SplineWaves waves;
  for (int h = 0; h < n; ++h) {
    const double angle = kPi * (2 * h < n ? h : h - n) / n;
    waves.own.push_back(h ? std::pow(std::sin(angle) / angle, 2 * order) : 1.0);
    double sum = overlap[order];
    for (int l = 1; l < order; ++l) sum += 2.0 * overlap[order + l] * std::cos(2.0 * l * angle);
    waves.all.push_back(sum);
  }
  return waves;
}

}  // namespace nearsight
