#pragma once
// ANI's radial and angular terms with their derivatives: core/models/ani/kernels.cpp for one number at a
// time.
#include <cmath>

#include "core/models/ani/kernels.hpp"
#include "cuda/device.hpp"

namespace nearsight {
namespace cuda {
namespace ani {

using nearsight::ani::AngularTerms;
using nearsight::ani::CutoffFunction;
using nearsight::ani::RadialTerms;
using nearsight::ani::Terms;

template <class T>
struct Differentiable {
  T value, derivative;
};

/// The cutoff function at r; zero from the cutoff on.
template <class T>
__device__ inline Differentiable<T> cutoff_function(CutoffFunction kind, T r, T inverse_cutoff) {
  const T x = r * inverse_cutoff;
  if (!(x < T(1))) return {T(0), T(0)};
  if (kind == CutoffFunction::cos) {
    constexpr T pi = T(3.14159265358979323846);
    return {T(0.5) * (T(1) + cospi(x)), T(-0.5) * pi * sinpi(x) * inverse_cutoff};
  }
  const T inverse = T(1) / (T(1) - x * x), f = std::exp(T(1) - inverse);  // exp(1 - 1 / (1 - x²))
  return {f, T(-2) * x * inverse * inverse * f * inverse_cutoff};
}

/// ¼ exp(-eta (r - shift)²) fc.
template <class T>
__device__ inline Differentiable<T> radial_term(T eta, T shift, T r, const Differentiable<T>& fc) {
  const T d = r - shift, e = T(0.25) * std::exp(-eta * d * d);
  return {e * fc.value, e * (fc.derivative - T(2) * eta * d * fc.value)};
}

/// exp(-eta (mean - shift)²) by the mean distance.
template <class T>
__device__ inline Differentiable<T> shell_term(T eta, T shift, T mean) {
  const T d = mean - shift, e = std::exp(-eta * d * d);
  return {e, T(-2) * eta * d * e};
}

/// The angle between two neighbors as angular terms see it: the cosine is 0.95 of the true one, so that the
/// sine is never 0.
template <class T>
struct Angle {
  static constexpr T kShrink = T(0.95);
  T cosine, sine;

  __device__ explicit Angle(T true_cosine)
      : cosine(kShrink * true_cosine), sine(std::sqrt(T(1) - cosine * cosine)) {}

  /// 2 ((1 + cos(θ - angle))/2)^zeta by the true cosine.
  __device__ Differentiable<T> term(const AngularTerms<T>& t, int number) const {
    const T c = t.cos_angles[number], s = t.sin_angles[number];
    const T half = T(0.5) * (T(1) + cosine * c + sine * s);
    const T base = half < T(1e-30) ? T(1e-30) : half < T(1) ? half : T(1);
    const T power = std::exp((t.zeta - T(1)) * std::log(base));
    return {T(2) * power * base, t.zeta * kShrink * power * (c - cosine / sine * s)};
  }
};

}  // namespace ani
}  // namespace cuda
}  // namespace nearsight
