#pragma once

namespace nearsight {

constexpr int kMaxL = 8;
constexpr int kMaxFactors = (kMaxL + 1) * (kMaxL + 2) / 2;

/// Factors of the recursions of the normalized Legendre polynomials (nearsight.models.harmonics), which
/// shared/simd_harmonics.hpp evaluates; a, b, d at [l (l + 1) / 2 + m].
template <class T>
struct HarmonicFactors {
  int l_max;
  T diagonal[kMaxL + 1];
  T a[kMaxFactors], b[kMaxFactors], d[kMaxFactors];
};

/// For harmonics up to l_max, orthonormal on the sphere, times `scale`.
template <class T>
HarmonicFactors<T> harmonic_factors(int l_max, double scale);

}  // namespace nearsight
