#include "core/models/shared/harmonics.hpp"

#include <cmath>

namespace nearsight {

template <class T>
HarmonicFactors<T> harmonic_factors(int l_max, double scale) {
  HarmonicFactors<T> s{};
  s.l_max = l_max;
  double diagonal = scale * std::sqrt(0.25 / 3.14159265358979323846);
  for (int m = 0; m <= l_max; ++m) {
    if (m > 0) diagonal *= std::sqrt((2.0 * m + 1.0) / (2.0 * m) * (m == 1 ? 2.0 : 1.0));
    s.diagonal[m] = static_cast<T>(diagonal);
    for (int l = m; l <= l_max; ++l) {
      const double l2 = double(l) * l, m2 = double(m) * m;
      const int k = l * (l + 1) / 2 + m;
      s.a[k] = l > m ? static_cast<T>(std::sqrt((4.0 * l2 - 1.0) / (l2 - m2))) : T(0);
      s.b[k] = l > m + 1 ? static_cast<T>(std::sqrt(((l - 1.0) * (l - 1.0) - m2) * (2.0 * l + 1.0) /
                                                    ((2.0 * l - 3.0) * (l2 - m2))))
                         : T(0);
      s.d[k] = static_cast<T>(std::sqrt((l - m) * (l + m + 1.0) * (m == 0 ? 0.5 : 1.0)));
    }
  }
  return s;
}

template HarmonicFactors<float> harmonic_factors(int, double);
template HarmonicFactors<double> harmonic_factors(int, double);

}  // namespace nearsight
