#pragma once
// Radial shapes and angular terms with their derivatives: core/models/acsf/shapes.hpp for one number at a
// time.
#include <cmath>

#include "core/models/acsf/kernels.hpp"
#include "cuda/device.hpp"

namespace nearsight {
namespace cuda {
namespace acsf {

using nearsight::acsf::Cutoff;
using nearsight::acsf::Falling;
using nearsight::acsf::Shape;
using nearsight::acsf::Term;

constexpr double kPi = 3.14159265358979323846;

/// A function and its logarithmic derivative.
template <class T>
struct Sloped {
  T value, slope;
};

/// A core function at x = 1 - y, 0 < y <= 1, without cancellation near the end. Below the smallest y the
/// function is zero in all digits, and its logarithmic slope stays finite.
template <class T>
__device__ inline Sloped<T> core_function(Falling kind, T y) {
  if (kind == Falling::exp) {
    y = y > T(1.5e-3) ? y : T(1.5e-3);
    const T x = T(1) - y, q = T(1) / (y * (T(1) + x));
    return {std::exp(T(1) - q), T(-2) * x * q * q};
  }
  y = y > T(1e-10) ? y : T(1e-10);
  const T x = T(1) - y, x2 = x * x, y2 = y * y;
  T p, f, slope;
  switch (kind) {
    case Falling::poly1:
      p = T(1) + T(2) * x;
      f = y2 * p;
      slope = T(-6) * x;
      break;
    case Falling::poly2:
      p = T(1) + x * (T(3) + T(6) * x);
      f = y2 * y * p;
      slope = T(-30) * x2;
      break;
    case Falling::poly3:
      p = T(1) + x * (T(4) + x * (T(10) + T(20) * x));
      f = y2 * y2 * p;
      slope = T(-140) * x2 * x;
      break;
    default:  // poly4
      p = T(1) + x * (T(5) + x * (T(15) + x * (T(35) + T(70) * x)));
      f = y2 * y2 * y * p;
      slope = T(-630) * x2 * x2;
      break;
  }
  return {f, slope / (y * p)};
}

/// A shell's cutoff function at r; zero from the radius on.
template <class T>
__device__ inline Sloped<T> cutoff_function(const Cutoff<T>& c, T r) {
  T y = (c.radius - r) * c.inverse_width;
  y = y < T(1) ? y : T(1);
  Sloped<T> f;
  switch (c.kind) {
    case Falling::hard:
      f = {T(1), T(0)};
      break;
    case Falling::cos: {
      const T half = T(0.5) * (y > T(1e-10) ? y : T(1e-10)), s = sinpi(half);
      f = {s * s, T(-kPi) * cospi(half) / s * c.inverse_width};
      break;
    }
    case Falling::tanh3:
    case Falling::tanh3_normalized: {
      const T e = std::exp(T(-2) * (y > T(0) ? y : T(0)));
      const T a = T(1) - e > T(1e-10) ? T(1) - e : T(1e-10), inverse = T(1) / (a * (T(1) + e));
      const T t = a * a * inverse;
      constexpr double kTanh = 0.76159415595576488812;  // tanh(1)
      f = {t * t * t * (c.kind == Falling::tanh3 ? T(1) : T(1.0 / (kTanh * kTanh * kTanh))),
           T(-12) * e * inverse * c.inverse_width};
      break;
    }
    default:
      f = core_function(c.kind, y);
      f.slope *= c.inverse_width;
      break;
  }
  if (!(r < c.radius)) f.value = T(0);
  return f;
}

/// A core function of |x - middle| / half width, with the slope with respect to x.
template <class T>
__device__ inline Sloped<T> compact_function(Falling core, bool asymmetric, T middle, T inverse_half_width,
                                             T x) {
  const T t = (x - middle) * inverse_half_width, size = t < T(0) ? -t : t;
  const T y = T(1) - size > T(0) ? T(1) - size : T(0);
  Sloped<T> f = core_function(core, asymmetric ? y * y : y);
  if (asymmetric) f.slope *= T(2) * y;
  if (!(size < T(1))) f.value = T(0);
  f.slope = (t < T(0) ? -f.slope : f.slope) * inverse_half_width;
  return f;
}

/// A shape at r, where `cutoff` is the shell's cutoff function there.
template <class T>
__device__ inline Sloped<T> shape(const Shape<T>& s, T r, const Sloped<T>& cutoff) {
  if (s.compact) return compact_function(s.core, s.asymmetric, s.middle, s.inverse_half_width, r);
  const T d = r - s.shift;
  return {std::exp(-s.eta * d * d) * cutoff.value, cutoff.slope - T(2) * s.eta * d};
}

template <class T>
__device__ inline T power(T x, int n) {
  T p = T(1);
  for (; n; n >>= 1, x *= x)
    if (n & 1) p *= x;
  return p;
}

/// P and dP/dcos θ.
template <class T>
struct TermValue {
  T value, derivative;
};

/// The angle of compact terms, and dθ/dcos θ; that is infinite at the ends, where the window's slope is zero.
template <class T>
__device__ inline TermValue<T> angle_of(T cosine) {
  constexpr T last = sizeof(T) == 4 ? T(1 - 1e-6) : T(1 - 1e-14);
  const T c = cosine > last ? last : cosine < -last ? -last : cosine;
  return {std::acos(c), T(-1) / std::sqrt((T(1) - c) * (T(1) + c))};
}

/// An angular term; `angle` is read by compact ones only.
template <class T>
__device__ inline TermValue<T> term(const Term<T>& t, T cosine, const TermValue<T>& angle) {
  if (t.compact) {
    const Sloped<T> f = compact_function(t.core, false, t.middle, t.inverse_half_width, angle.value);
    return {f.value, f.value * f.slope * angle.derivative};
  }
  const T sum = T(1) + t.lambda * cosine, base = sum > T(0) ? sum : T(0);
  const T q = t.integer_zeta ? power(base, t.integer_zeta - 1) : std::pow(base, t.zeta - T(1));
  return {q * base, t.zeta * t.lambda * q};
}

}  // namespace acsf
}  // namespace cuda
}  // namespace nearsight
