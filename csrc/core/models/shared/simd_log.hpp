#pragma once
// The logarithm for kernels that are compiled once per instruction set; internal linkage as in simd.hpp.
#include "core/models/shared/simd.hpp"

namespace nearsight {
namespace {
namespace simd {

/// log(x) for normal numbers x > 0: x = 2^k m with m in [1/√2, √2), log m = 2 artanh((m - 1)/(m + 1)) by its
/// series. Error about one unit of the type.
template <class T>
inline Vec<T> log(Vec<T> x) {
  constexpr int mantissa = Types<T>::mantissa, terms = sizeof(T) == 4 ? 5 : 11;
  const Ints<T> sqrt_half = (Ints<T>)broadcast<T>(T(0.70710678118654752440));
  // The exponent steps at m = 1/√2 instead of at 1.
  const Ints<T> bits = (Ints<T>)x, k = (bits - sqrt_half) >> mantissa;
  const Vec<T> m = (Vec<T>)(bits - (k << mantissa));
  const Vec<T> f = (m - T(1)) / (m + T(1)), f2 = f * f;
  Vec<T> p = broadcast<T>(T(1) / (2 * terms + 1));
  for (int n = terms - 1; n >= 1; --n) p = p * f2 + T(1) / (2 * n + 1);
  const Vec<T> kf = __builtin_convertvector(k, Vec<T>);
  return kf * Types<T>::ln2_high + (kf * Types<T>::ln2_low + (T(2) * f + T(2) * f * f2 * p));
}

}  // namespace simd
}  // namespace
}  // namespace nearsight
