#pragma once
#include "core/models/shared/harmonics.hpp"
#include "cuda/device.hpp"

namespace nearsight {
namespace cuda {

/// Calls body(l, m, Y, x, y, z) for all harmonics up to l_max of a unit vector, -l <= m <= l: the value, and
/// the gradient of the polynomial that it is on the sphere. The recursions are those of core's
/// shared/simd_harmonics.hpp, in an order that needs no arrays.
template <class T, class Body>
__host__ __device__ inline void for_harmonics(const HarmonicFactors<T>& s, T x, T y, T z, const Body& body) {
  T cosine = T(1), sine = T(0), cosine_before = T(0), sine_before = T(0);
  for (int m = 0; m <= s.l_max; ++m) {
    if (m > 0) {
      cosine_before = cosine;
      sine_before = sine;
      cosine = x * cosine_before - y * sine_before;
      sine = x * sine_before + y * cosine_before;
    }
    T value = s.diagonal[m], before = T(0);  // of l and m, and of l - 1
    T next = T(0), next_before = T(0);       // the same of m + 1
    for (int l = m; l <= s.l_max; ++l) {
      const int place = l * (l + 1) / 2 + m;
      const T mq = T(m) * value, dq = m < l ? s.d[place] * next : T(0);
      body(l, m, value * cosine, mq * cosine_before, -mq * sine_before, dq * cosine);
      if (m > 0) body(l, -m, value * sine, mq * sine_before, mq * cosine_before, dq * sine);
      if (l == s.l_max) break;
      const int above = (l + 1) * (l + 2) / 2 + m;
      const T after = s.a[above] * z * value - s.b[above] * before;
      before = value;
      value = after;
      const T next_after =
          l == m ? s.diagonal[m + 1] : s.a[above + 1] * z * next - s.b[above + 1] * next_before;
      next_before = next;
      next = next_after;
    }
  }
}

}  // namespace cuda
}  // namespace nearsight
