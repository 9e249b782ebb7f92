#pragma once
// Vector arithmetic for kernels that are compiled once per instruction set. Everything here has internal
// linkage: a symbol that the linker could share between the objects might carry instructions that the machine
// does not have.
#include <cstdint>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace nearsight {
namespace {
namespace simd {

template <class T>
struct Types;
template <>
struct Types<float> {
  typedef float vec __attribute__((vector_size(NEARSIGHT_VECTOR_BYTES), may_alias));
  typedef std::int32_t ints __attribute__((vector_size(NEARSIGHT_VECTOR_BYTES)));
  static constexpr float min_exponent = -87.0f;
  static constexpr int bias = 127, mantissa = 23, terms = 7;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};
template <>
struct Types<double> {
  typedef double vec __attribute__((vector_size(NEARSIGHT_VECTOR_BYTES), may_alias));
  typedef std::int64_t ints __attribute__((vector_size(NEARSIGHT_VECTOR_BYTES)));
  static constexpr double min_exponent = -708.0;
  static constexpr int bias = 1023, mantissa = 52, terms = 13;
  static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
};
template <class T>
using Vec = typename Types<T>::vec;
template <class T>
using Ints = typename Types<T>::ints;

template <class T>
constexpr int width = NEARSIGHT_VECTOR_BYTES / sizeof(T);

template <class T>
inline Vec<T> load(const T* p) {
  return *reinterpret_cast<const Vec<T>*>(p);
}
template <class T>
inline void store(T* p, Vec<T> v) {
  *reinterpret_cast<Vec<T>*>(p) = v;
}
template <class T>
inline Vec<T> broadcast(T x) {
  return Vec<T>{} + x;
}
/// Sum of the lanes, in double.
template <class T>
inline double sum(Vec<T> v) {
  double s = 0;
  for (int l = 0; l < width<T>; ++l) s += v[l];
  return s;
}
template <class T>
inline Vec<T> lane_numbers() {
  Vec<T> v{};
  for (int l = 0; l < width<T>; ++l) v[l] = static_cast<T>(l);
  return v;
}
template <class T>
inline Vec<T> max(Vec<T> a, T b) {
  const Vec<T> v = broadcast<T>(b);
  return a > v ? a : v;
}

inline Vec<float> sqrt(Vec<float> x) {
#if NEARSIGHT_VECTOR_BYTES == 64 && defined(__AVX512F__)
  return (Vec<float>)_mm512_maskz_sqrt_ps((__mmask16)-1, (__m512)x);
#elif NEARSIGHT_VECTOR_BYTES == 32 && defined(__AVX__)
  return (Vec<float>)_mm256_sqrt_ps((__m256)x);
#elif NEARSIGHT_VECTOR_BYTES == 16 && defined(__SSE2__)
  return (Vec<float>)_mm_sqrt_ps((__m128)x);
#else
  for (int l = 0; l < width<float>; ++l) x[l] = __builtin_sqrtf(x[l]);
  return x;
#endif
}
inline Vec<double> sqrt(Vec<double> x) {
#if NEARSIGHT_VECTOR_BYTES == 64 && defined(__AVX512F__)
  return (Vec<double>)_mm512_maskz_sqrt_pd((__mmask8)-1, (__m512d)x);
#elif NEARSIGHT_VECTOR_BYTES == 32 && defined(__AVX__)
  return (Vec<double>)_mm256_sqrt_pd((__m256d)x);
#elif NEARSIGHT_VECTOR_BYTES == 16 && defined(__SSE2__)
  return (Vec<double>)_mm_sqrt_pd((__m128d)x);
#else
  for (int l = 0; l < width<double>; ++l) x[l] = __builtin_sqrt(x[l]);
  return x;
#endif
}

/// exp(x) for x <= 0: x = k ln2 + r with |r| <= ln2 / 2, Taylor series for r. Relative error about one unit
/// of the type.
template <class T>
inline Vec<T> exp_negative(Vec<T> x) {
  using P = Types<T>;
  x = max<T>(x, P::min_exponent);
  const Ints<T> k = __builtin_convertvector(x * T(1.44269504088896340736) - T(0.5), Ints<T>);
  const Vec<T> kf = __builtin_convertvector(k, Vec<T>);
  const Vec<T> r = (x - kf * P::ln2_high) - kf * P::ln2_low;
  constexpr T inverse_factorial[] = {T(1),
                                     T(1),
                                     T(1) / 2,
                                     T(1) / 6,
                                     T(1) / 24,
                                     T(1) / 120,
                                     T(1) / 720,
                                     T(1) / 5040,
                                     T(1) / 40320,
                                     T(1) / 362880,
                                     T(1) / 3628800,
                                     T(1) / 39916800,
                                     T(1) / 479001600,
                                     T(1) / 6227020800.0};
  Vec<T> p = broadcast<T>(inverse_factorial[P::terms]);
  for (int n = P::terms - 1; n >= 0; --n) p = p * r + inverse_factorial[n];
  const Ints<T> bits = (k + P::bias) << P::mantissa;
  return p * (Vec<T>)bits;
}

/// sin(y) and cos(y) for |y| <= pi/2 by their Taylor series.
template <class T>
inline void sin_cos(Vec<T> y, Vec<T>& s, Vec<T>& c) {
  const Vec<T> y2 = y * y;
  s = broadcast<T>(T(1));
  c = broadcast<T>(T(1));
  for (int n = 10; n >= 1; --n) {
    s = T(1) - s * y2 * T(1.0 / ((2 * n) * (2 * n + 1)));
    c = T(1) - c * y2 * T(1.0 / ((2 * n - 1) * (2 * n)));
  }
  s = s * y;
}

}  // namespace simd
}  // namespace
}  // namespace nearsight
