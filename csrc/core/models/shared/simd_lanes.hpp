#pragma once
// Lanes of a vector that are wanted: masks, packing them to the front, and putting them back. One bit per
// lane, the first lane in the lowest. AVX-512 has instructions for it, AVX2 permutes by a table.
#include "core/models/shared/simd.hpp"

namespace nearsight {
namespace {
namespace simd {

using Mask = unsigned;

template <class T>
constexpr Mask all_lanes = (Mask(1) << width<T>)-1;

inline int count_lanes(Mask mask) {
  return __builtin_popcount(mask);
}

/// The lanes where a < b.
inline Mask less(Vec<float> a, Vec<float> b) {
#if NEARSIGHT_VECTOR_BYTES == 64
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ);
#elif NEARSIGHT_VECTOR_BYTES == 32
  return static_cast<Mask>(_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LT_OQ)));
#elif defined(__SSE2__)
  return static_cast<Mask>(_mm_movemask_ps(_mm_cmplt_ps((__m128)a, (__m128)b)));
#else
  Mask mask = 0;
  for (int l = 0; l < width<float>; ++l) mask |= Mask(a[l] < b[l]) << l;
  return mask;
#endif
}
inline Mask less(Vec<double> a, Vec<double> b) {
#if NEARSIGHT_VECTOR_BYTES == 64
  return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_LT_OQ);
#elif NEARSIGHT_VECTOR_BYTES == 32
  return static_cast<Mask>(_mm256_movemask_pd(_mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_LT_OQ)));
#elif defined(__SSE2__)
  return static_cast<Mask>(_mm_movemask_pd(_mm_cmplt_pd((__m128d)a, (__m128d)b)));
#else
  Mask mask = 0;
  for (int l = 0; l < width<double>; ++l) mask |= Mask(a[l] < b[l]) << l;
  return mask;
#endif
}

#if NEARSIGHT_VECTOR_BYTES == 32
/// For each mask of eight lanes, the lane that goes to each place, four bits each.
struct LaneTables {
  std::uint32_t packed[256] = {}, spread[256] = {};
};
constexpr LaneTables make_lane_tables() {
  LaneTables tables;
  for (unsigned mask = 0; mask < 256; ++mask) {
    unsigned place = 0;
    for (unsigned lane = 0; lane < 8; ++lane) {
      if (!(mask >> lane & 1)) continue;
      tables.packed[mask] |= lane << 4 * place;
      tables.spread[mask] |= place << 4 * lane;
      ++place;
    }
  }
  return tables;
}
constexpr LaneTables kLaneTables = make_lane_tables();

inline __m256i lane_indices(std::uint32_t nibbles) {
  const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
  return _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(nibbles)), shifts);  // permutes read 3 bits
}
/// Bits of four lanes doubled, as two lanes of four bytes each.
inline Mask doubled(Mask mask) {
  constexpr unsigned char pairs[] = {0x00, 0x03, 0x0c, 0x0f, 0x30, 0x33, 0x3c, 0x3f,
                                     0xc0, 0xc3, 0xcc, 0xcf, 0xf0, 0xf3, 0xfc, 0xff};
  return pairs[mask];
}
inline __m256 wanted_lanes(Mask mask) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i set = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask)), bit);
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, bit));
}
#endif

/// Sums of the lanes of four vectors.
inline void sum_four(Vec<float> a, Vec<float> b, Vec<float> c, Vec<float> d, float* sums) {
#if NEARSIGHT_VECTOR_BYTES >= 32
#if NEARSIGHT_VECTOR_BYTES == 64
  const auto half = [](Vec<float> v) {  // masked, for GCC 12 warns of its own casts
    return _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, (__m512)v, 0),
                         _mm512_maskz_extractf32x8_ps(0xff, (__m512)v, 1));
  };
#else
  const auto half = [](Vec<float> v) { return (__m256)v; };
#endif
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(half(a), half(b)), _mm256_hadd_ps(half(c), half(d)));
  _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
#else
  for (int n = 0; n < 4; ++n) sums[n] = 0;
  for (int l = 0; l < width<float>; ++l) {
    sums[0] += a[l];
    sums[1] += b[l];
    sums[2] += c[l];
    sums[3] += d[l];
  }
#endif
}
inline void sum_four(Vec<double> a, Vec<double> b, Vec<double> c, Vec<double> d, double* sums) {
#if NEARSIGHT_VECTOR_BYTES >= 32
#if NEARSIGHT_VECTOR_BYTES == 64
  const auto half = [](Vec<double> v) {
    return _mm256_add_pd(_mm512_maskz_extractf64x4_pd(0xf, (__m512d)v, 0),
                         _mm512_maskz_extractf64x4_pd(0xf, (__m512d)v, 1));
  };
#else
  const auto half = [](Vec<double> v) { return (__m256d)v; };
#endif
  const __m256d ab = _mm256_hadd_pd(half(a), half(b)), cd = _mm256_hadd_pd(half(c), half(d));
  _mm256_storeu_pd(sums,
                   _mm256_add_pd(_mm256_permute2f128_pd(ab, cd, 0x20), _mm256_permute2f128_pd(ab, cd, 0x31)));
#else
  for (int n = 0; n < 4; ++n) sums[n] = 0;
  for (int l = 0; l < width<double>; ++l) {
    sums[0] += a[l];
    sums[1] += b[l];
    sums[2] += c[l];
    sums[3] += d[l];
  }
#endif
}

/// Writes the wanted lanes one after another; may write a whole vector.
inline void pack(float* p, Mask mask, Vec<float> v) {
#if NEARSIGHT_VECTOR_BYTES == 64
  _mm512_storeu_ps(p, _mm512_maskz_compress_ps(static_cast<__mmask16>(mask), (__m512)v));
#elif NEARSIGHT_VECTOR_BYTES == 32
  _mm256_storeu_ps(p, _mm256_permutevar8x32_ps((__m256)v, lane_indices(kLaneTables.packed[mask])));
#else
  for (; mask; mask &= mask - 1) *p++ = v[__builtin_ctz(mask)];
#endif
}
inline void pack(double* p, Mask mask, Vec<double> v) {
#if NEARSIGHT_VECTOR_BYTES == 64
  _mm512_storeu_pd(p, _mm512_maskz_compress_pd(static_cast<__mmask8>(mask), (__m512d)v));
#elif NEARSIGHT_VECTOR_BYTES == 32
  const __m256i lanes = lane_indices(kLaneTables.packed[doubled(mask)]);
  _mm256_storeu_pd(p, _mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps((__m256d)v), lanes)));
#else
  for (; mask; mask &= mask - 1) *p++ = v[__builtin_ctz(mask)];
#endif
}

/// Reads as many elements as lanes are wanted, and puts them there; zero in the others. May read a whole
/// vector.
inline Vec<float> spread(const float* p, Mask mask) {
#if NEARSIGHT_VECTOR_BYTES == 64
  return (Vec<float>)_mm512_maskz_expand_ps(static_cast<__mmask16>(mask), _mm512_loadu_ps(p));
#elif NEARSIGHT_VECTOR_BYTES == 32
  const __m256 v = _mm256_permutevar8x32_ps(_mm256_loadu_ps(p), lane_indices(kLaneTables.spread[mask]));
  return (Vec<float>)_mm256_and_ps(v, wanted_lanes(mask));
#else
  Vec<float> v{};
  for (; mask; mask &= mask - 1) v[__builtin_ctz(mask)] = *p++;
  return v;
#endif
}
inline Vec<double> spread(const double* p, Mask mask) {
#if NEARSIGHT_VECTOR_BYTES == 64
  return (Vec<double>)_mm512_maskz_expand_pd(static_cast<__mmask8>(mask), _mm512_loadu_pd(p));
#elif NEARSIGHT_VECTOR_BYTES == 32
  const Mask pairs = doubled(mask);
  const __m256 v =
      _mm256_permutevar8x32_ps(_mm256_castpd_ps(_mm256_loadu_pd(p)), lane_indices(kLaneTables.spread[pairs]));
  return (Vec<double>)_mm256_castps_pd(_mm256_and_ps(v, wanted_lanes(pairs)));
#else
  Vec<double> v{};
  for (; mask; mask &= mask - 1) v[__builtin_ctz(mask)] = *p++;
  return v;
#endif
}

}  // namespace simd
}  // namespace
}  // namespace nearsight
