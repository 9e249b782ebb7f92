#pragma once
// The complementary error function for kernels that are compiled once per instruction set; internal linkage
// as in simd.hpp.
#include "core/models/shared/simd.hpp"

namespace nearsight {
namespace {
namespace simd {

/// exp(x²) erfc(x) for x >= 0: 1 / (1 + 2 x) times a Chebyshev series in t = (x - 3) / (x + 3), after
/// Shepherd and Laframboise, Math. Comp. 36, 249 (1981). Coefficients computed with mpmath; relative error
/// 4e-15 in double.
template <class T>
inline Vec<T> scaled_erfc(Vec<T> x) {
  constexpr T coefficients[] = {
      T(1.1775625741965600463),      T(5.3539045396156767694e-3),   T(-9.3775503422842090522e-2),
      T(5.4366525557443220495e-2),   T(-1.8976596707845207386e-2),  T(4.4534260614627115695e-3),
      T(-6.3355317105531469398e-4),  T(1.7661719523171591851e-5),   T(1.2841532864056670734e-5),
      T(-2.0072285659059914438e-6),  T(-1.8075227904148371024e-7),  T(7.5498283438250928278e-8),
      T(1.8856685238386027905e-9),   T(-2.6995190497983639975e-9),  T(-1.4600791199391049408e-11),
      T(1.0361607445969489676e-10),  T(1.4757159766234730087e-12),  T(-4.2773400643969108248e-12),
      T(-2.0792249285979899778e-13), T(1.8134502003176962422e-13),  T(1.9734255745447388335e-14),
      T(-7.2879437375926731569e-15), T(-1.5169878690228115683e-15), T(2.3514112258781403515e-16)};
  constexpr int terms = sizeof(T) == 4 ? 12 : 24;
  const Vec<T> t = (x - T(3)) / (x + T(3)), zero = broadcast<T>(T(0));
  Vec<T> b1 = zero, b2 = zero;  // Clenshaw's recurrence
  for (int k = terms - 1; k >= 1; --k) {
    const Vec<T> b0 = T(2) * t * b1 + (coefficients[k] - b2);
    b2 = b1;
    b1 = b0;
  }
  return (t * b1 + (coefficients[0] - b2)) / (T(1) + T(2) * x);
}

/// erfc(x) for x >= 0.
template <class T>
inline Vec<T> erfc(Vec<T> x) {
  return exp_negative<T>(-x * x) * scaled_erfc<T>(x);
}

}  // namespace simd
}  // namespace
}  // namespace nearsight
