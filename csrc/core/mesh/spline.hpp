#pragma once
#include <algorithm>
#include <vector>

namespace nearsight {

constexpr int kMaxOrder = 8;

/// Weights of the cardinal B-spline M_p at the p mesh points that a charge reaches, and their derivatives by
/// its position in units of the mesh: weights[j] = M_p(fraction + p - 1 - j). Essmann et al., J. Chem. Phys.
/// 103, 8577 (1995), eqs. 4.1 and 4.2.
template <class T>
void spline_weights(int order, double fraction, T* weights, T* slopes) {
  double m[kMaxOrder] = {fraction, 1.0 - fraction};  // M_2(fraction + i)
  const auto raise = [&](int n) {                    // M_n from M_(n-1)
    for (int i = n - 1; i >= 0; --i)
      m[i] = ((fraction + i) * m[i] + (n - fraction - i) * (i ? m[i - 1] : 0.0)) / (n - 1);
  };
  for (int n = 3; n < order; ++n) raise(n);
  for (int i = 0; i < order; ++i) slopes[order - 1 - i] = static_cast<T>(m[i] - (i ? m[i - 1] : 0.0));
  raise(order);
  for (int i = 0; i < order; ++i) weights[order - 1 - i] = static_cast<T>(m[i]);
}

/// How a wave of h periods over n points is seen by the spline: [h] Ŵ(h)² and Σ_m Ŵ(h + m n)² over all waves
/// that look the same on the mesh, with Ŵ(h) = sinc(πh/n)^p.
struct SplineWaves {
  std::vector<double> own, all;  // [n], h >= n / 2 stands for h - n
};
SplineWaves spline_waves(int order, int n);

}  // namespace nearsight
