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
  typedef std::uint32_t bits __attribute__((vector_size(NEARSIGHT_VECTOR_BYTES)));
  static constexpr float min_exponent = -80.0f;
  static constexpr int mantissa = 23, num_exp_terms = 7;
  static constexpr float magic = 12582912.0f + 127.0f;  // 1.5 * 2^23 + bias
  static constexpr float exp_terms[] = {1.0f,
                                        1.0000000377162138f,
                                        0.50000000471177577f,
                                        0.16666415514653275f,
                                        0.041666352896775157f,
                                        0.0083751263981533357f,
                                        0.0013941108433972675f};
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};
template <>
struct Types<double> {
  typedef double vec __attribute__((vector_size(NEARSIGHT_VECTOR_BYTES), may_alias));
  typedef std::int64_t ints __attribute__((vector_size(NEARSIGHT_VECTOR_BYTES)));
  typedef std::uint64_t bits __attribute__((vector_size(NEARSIGHT_VECTOR_BYTES)));
  static constexpr double min_exponent = -700.0;
  static constexpr int mantissa = 52, num_exp_terms = 12;
  static constexpr double magic = 6755399441055744.0 + 1023.0;  // 1.5 * 2^52 + bias
  static constexpr double exp_terms[] = {1.0,
                                         1.0,
                                         0.50000000000000183855,
                                         0.16666666666666680806,
                                         0.041666666666488095495,
                                         0.0083333333333196006109,
                                         0.0013888888952314774652,
                                         0.00019841269890047113707,
                                         2.4801485482328492419e-5,
                                         2.7557240918578969823e-6,
                                         2.7632639639041029749e-7,
                                         2.5110037605963777712e-8};
  static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
};
template <class T>
using Vec = typename Types<T>::vec;
template <class T>
using Ints = typename Types<T>::ints;
template <class T>
using Bits = typename Types<T>::bits;

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

/// 1 / x and 1 / sqrt(x) for normal numbers, in all but the last digit: AVX-512 starts from 14 bits and
/// doubles them, which takes a third of the time of its division and square root.
inline Vec<float> reciprocal(Vec<float> x) {
#if NEARSIGHT_VECTOR_BYTES == 64
  const Vec<float> y = (Vec<float>)_mm512_maskz_rcp14_ps((__mmask16)-1, (__m512)x);
  return y + y * (1.0f - x * y);
#else
  return 1.0f / x;
#endif
}
inline Vec<double> reciprocal(Vec<double> x) {
#if NEARSIGHT_VECTOR_BYTES == 64
  Vec<double> y = (Vec<double>)_mm512_maskz_rcp14_pd((__mmask8)-1, (__m512d)x);
  y += y * (1.0 - x * y);
  return y + y * (1.0 - x * y);
#else
  return 1.0 / x;
#endif
}
inline Vec<float> inverse_sqrt(Vec<float> x) {
#if NEARSIGHT_VECTOR_BYTES == 64
  const Vec<float> y = (Vec<float>)_mm512_maskz_rsqrt14_ps((__mmask16)-1, (__m512)x);
  return y + 0.5f * y * (1.0f - x * y * y);
#else
  return 1.0f / sqrt(x);
#endif
}
inline Vec<double> inverse_sqrt(Vec<double> x) {
#if NEARSIGHT_VECTOR_BYTES == 64
  Vec<double> y = (Vec<double>)_mm512_maskz_rsqrt14_pd((__mmask8)-1, (__m512d)x);
  y += 0.5 * y * (1.0 - x * y * y);
  return y + 0.5 * y * (1.0 - x * y * y);
#else
  return 1.0 / sqrt(x);
#endif
}

/// exp(x) for x <= 0: x = k ln2 + r with |r| <= ln2 / 2, a polynomial for r (relative error 3e-9, 4e-18).
/// Below min_exponent the result stays at its exponential, far from the slow denormal numbers.
template <class T>
inline Vec<T> exp_negative(Vec<T> x) {
  using P = Types<T>;
  x = max<T>(x, P::min_exponent);
  // Adding `magic` rounds to an integer and leaves it, with the exponent's bias, in the last bits.
  const Vec<T> shifted = x * T(1.44269504088896340736) + P::magic;
  const Vec<T> k = shifted - P::magic;
  const Vec<T> r = (x - k * P::ln2_high) - k * P::ln2_low;
  Vec<T> p = broadcast<T>(P::exp_terms[P::num_exp_terms - 1]);
  for (int n = P::num_exp_terms - 2; n >= 0; --n) p = p * r + P::exp_terms[n];
  return p * (Vec<T>)((Bits<T>)shifted << P::mantissa);
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
