#pragma once
// Radial shapes and angular terms with their derivatives, for kernels.cpp. Slopes are logarithmic, w'/w:
// products of shapes then need no other product for each factor's derivative.
#include "core/models/acsf/kernels.hpp"
#include "core/models/shared/simd.hpp"

namespace nearsight {
namespace acsf {
namespace {

using simd::broadcast;
using simd::exp_negative;
using simd::Vec;
using simd::width;

constexpr double kPi = 3.14159265358979323846;

/// The smallest distance from the end of a falling function: below, the function is zero in all digits, and
/// its logarithmic slope stays finite.
template <class T>
constexpr T kEnd = T(1e-10);
template <class T>
constexpr T kEndExponential = T(1.5e-3);  // exp(-1 / y)

/// f(x) and f'(x) / f(x) of a core function at x = 1 - y, 0 < y <= 1, without cancellation near the end.
template <class T>
inline void core_function(Falling kind, Vec<T> y, Vec<T>& f, Vec<T>& slope) {
  const Vec<T> one = broadcast<T>(T(1));
  if (kind == Falling::exp) {
    y = simd::max<T>(y, kEndExponential<T>);
    const Vec<T> x = one - y, q = simd::reciprocal(y * (one + x));
    f = exp_negative<T>(one - q);
    slope = T(-2) * x * q * q;
    return;
  }
  y = simd::max<T>(y, kEnd<T>);
  const Vec<T> x = one - y, x2 = x * x, y2 = y * y;
  Vec<T> p;
  switch (kind) {
    case Falling::poly1:
      p = one + T(2) * x;
      f = y2 * p;
      slope = T(-6) * x;
      break;
    case Falling::poly2:
      p = one + x * (T(3) + T(6) * x);
      f = y2 * y * p;
      slope = T(-30) * x2;
      break;
    case Falling::poly3:
      p = one + x * (T(4) + x * (T(10) + T(20) * x));
      f = y2 * y2 * p;
      slope = T(-140) * x2 * x;
      break;
    case Falling::poly4:
    default:
      p = one + x * (T(5) + x * (T(15) + x * (T(35) + T(70) * x)));
      f = y2 * y2 * y * p;
      slope = T(-630) * x2 * x2;
      break;
  }
  slope *= simd::reciprocal(y * p);
}

/// The cutoff function f and f'/f at r; f is zero from the radius on.
template <class T>
inline void cutoff_function(const Cutoff<T>& c, Vec<T> r, Vec<T>& f, Vec<T>& slope) {
  const Vec<T> one = broadcast<T>(T(1)), zero = broadcast<T>(T(0));
  Vec<T> y = (c.radius - r) * c.inverse_width;
  y = y < one ? y : one;
  switch (c.kind) {
    case Falling::hard:
      f = one;
      slope = zero;
      break;
    case Falling::cos: {
      Vec<T> s, co;
      simd::sin_cos<T>(T(0.5 * kPi) * simd::max<T>(y, kEnd<T>), s, co);
      f = s * s;
      slope = T(-kPi) * co / s * c.inverse_width;
      break;
    }
    case Falling::tanh3:
    case Falling::tanh3_normalized: {
      const Vec<T> e = exp_negative<T>(T(-2) * simd::max<T>(y, T(0)));
      const Vec<T> a = simd::max<T>(one - e, kEnd<T>), b = one + e, inverse = simd::reciprocal(a * b),
                   t = a * a * inverse;
      constexpr double kTanh = 0.76159415595576488812;  // tanh(1)
      f = t * t * t * (c.kind == Falling::tanh3 ? T(1) : T(1.0 / (kTanh * kTanh * kTanh)));
      slope = T(-12) * e * inverse * c.inverse_width;
      break;
    }
    default:
      core_function<T>(c.kind, y, f, slope);
      slope *= c.inverse_width;
      break;
  }
  f = r < c.radius ? f : zero;
}

/// A core function of |x - middle| / half width and its logarithmic slope with respect to x.
template <class T>
inline void compact_function(Falling core, bool asymmetric, T middle, T inverse_half_width, Vec<T> x,
                             Vec<T>& f, Vec<T>& slope) {
  const Vec<T> one = broadcast<T>(T(1)), zero = broadcast<T>(T(0));
  const Vec<T> t = (x - middle) * inverse_half_width, size = t < zero ? -t : t;
  const Vec<T> y = simd::max<T>(one - size, T(0));
  core_function<T>(core, asymmetric ? y * y : y, f, slope);
  if (asymmetric) slope *= T(2) * y;
  f = size < one ? f : zero;
  slope = (t < zero ? -slope : slope) * inverse_half_width;
}

/// w and w'/w of a shape at r, where f and f'/f are those of the shell's cutoff function.
template <class T>
inline void shape(const Shape<T>& s, Vec<T> r, Vec<T> f, Vec<T> f_slope, Vec<T>& w, Vec<T>& slope) {
  if (s.compact) {
    compact_function<T>(s.core, s.asymmetric, s.middle, s.inverse_half_width, r, w, slope);
  } else {
    const Vec<T> d = r - s.shift;
    w = exp_negative<T>(-s.eta * d * d) * f;
    slope = f_slope - T(2) * s.eta * d;
  }
}

/// arccos(c) for |c| <= 1, by polynomials for arcsin(s) on s <= 1/2 (relative error 2e-9, 6e-18).
template <class T>
inline Vec<T> arc_cosine(Vec<T> c) {
  constexpr double terms[] = {0.16666666666666666592,   0.07500000000000117751,   0.044642857142551892902,
                              0.030381944475532339993,  0.022372157443507222419,  0.017352816540325494994,
                              0.013963780012203569641,  0.011566459612121668568,  0.0096218429701002810177,
                              0.0093195607947674462957, 0.0030448799094556773959, 0.019554513336123378949,
                              -0.019241671746743040654, 0.02961201126495512036};
  constexpr int kTerms = sizeof(T) == 4 ? 9 : 14;
  const Vec<T> zero = broadcast<T>(T(0)), half = broadcast<T>(T(0.5));
  const Vec<T> size = c < zero ? -c : c;
  const Vec<T> z = size < half ? c * c : T(0.5) * (T(1) - size);
  const Vec<T> s = size < half ? c : simd::sqrt(z);
  Vec<T> p = broadcast<T>(T(terms[kTerms - 1]));
  for (int n = kTerms - 2; n >= 0; --n) p = p * z + T(terms[n]);
  const Vec<T> arc = s + s * z * p;
  const Vec<T> far = c < zero ? T(kPi) - T(2) * arc : T(2) * arc;
  return size < half ? T(0.5 * kPi) - arc : far;
}

/// x^n for n >= 0.
template <class T>
inline Vec<T> power(Vec<T> x, int n) {
  Vec<T> p = broadcast<T>(T(1));
  for (; n; n >>= 1, x *= x)
    if (n & 1) p *= x;
  return p;
}

/// x^(zeta - 1), where `integer` is zeta if that is whole, or 0.
template <class T>
inline Vec<T> any_power(Vec<T> x, int integer, T zeta) {
  if (integer) return power<T>(x, integer - 1);
  for (int l = 0; l < width<T>; ++l) x[l] = static_cast<T>(__builtin_pow(x[l], zeta - T(1)));
  return x;
}

}  // namespace
}  // namespace acsf
}  // namespace nearsight
