#pragma once
// Real spherical harmonics for kernels that are compiled once per instruction set; internal linkage as in
// simd.hpp.
#include "core/models/shared/harmonics.hpp"
#include "core/models/shared/simd.hpp"

namespace nearsight {
namespace {
namespace simd {

/// Normalized associated Legendre polynomials without their power of sin θ, [l (l + 1) / 2 + m].
template <class T>
inline void legendre(const HarmonicFactors<T>& s, Vec<T> z, Vec<T>* q) {
  for (int m = 0; m <= s.l_max; ++m) {
    Vec<T> before = broadcast<T>(T(0)), value = broadcast<T>(s.diagonal[m]);
    for (int l = m;; ++l) {
      q[l * (l + 1) / 2 + m] = value;
      if (l == s.l_max) break;
      const int next = (l + 1) * (l + 2) / 2 + m;
      const Vec<T> after = s.a[next] * z * value - s.b[next] * before;
      before = value;
      value = after;
    }
  }
}

/// Writes Y_lm of `count` unit vectors, a multiple of the vector width, to values[(l² + l + m) * stride + k],
/// and the gradient of the polynomials that they are on the sphere to the three arrays of `gradient`.
template <class T, bool with_gradient>
inline void harmonics(const HarmonicFactors<T>& s, int count, const T* ux, const T* uy, const T* uz,
                      int stride, T* values, T* const* gradient) {
  for (int k = 0; k < count; k += width<T>) {
    const Vec<T> x = load(ux + k), y = load(uy + k), z = load(uz + k);
    Vec<T> q[kMaxFactors];
    legendre<T>(s, z, q);
    const Vec<T> zero = broadcast<T>(T(0));
    Vec<T> cosine = broadcast<T>(T(1)), sine = zero, cosine_before = zero, sine_before = zero;
    for (int m = 0; m <= s.l_max; ++m) {
      if (m > 0) {
        cosine_before = cosine;
        sine_before = sine;
        cosine = x * cosine_before - y * sine_before;
        sine = x * sine_before + y * cosine_before;
      }
      for (int l = m; l <= s.l_max; ++l) {
        const int place = l * (l + 1) / 2 + m;
        const int plus = (l * l + l + m) * stride + k, minus = (l * l + l - m) * stride + k;
        store<T>(values + plus, q[place] * cosine);
        if (m > 0) store<T>(values + minus, q[place] * sine);
        if (!with_gradient) continue;
        const Vec<T> mq = T(m) * q[place];
        const Vec<T> dq = m < l ? s.d[place] * q[place + 1] : zero;
        store<T>(gradient[0] + plus, mq * cosine_before);
        store<T>(gradient[1] + plus, -mq * sine_before);
        store<T>(gradient[2] + plus, dq * cosine);
        if (m > 0) {
          store<T>(gradient[0] + minus, mq * sine_before);
          store<T>(gradient[1] + minus, mq * cosine_before);
          store<T>(gradient[2] + minus, dq * sine);
        }
      }
    }
  }
}

}  // namespace simd
}  // namespace
}  // namespace nearsight
