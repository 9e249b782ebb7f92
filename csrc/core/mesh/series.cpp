#include "core/mesh/series.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "core/mesh/pair_kernel.hpp"

namespace nearsight {
namespace {

/// More digits than the result has: high powers of t are differences of large numbers.
using Exact = long double;

/// erf(α r) / r + erfc(α r_c) / r_c at r² = r_c² (1 + t) / 2: coefficients of Chebyshev's polynomials in t,
/// until the rest is below `least` of the first one.
std::vector<Exact> chebyshev(double alpha, double cutoff, double least) {
  constexpr int nodes = 2 * pairs::kMostTerms;
  std::vector<Exact> coefficients(pairs::kMostTerms, 0.0);
  const double shift = screened(alpha, cutoff).value;
  const Exact pi = std::acos(Exact(-1));
  for (int node = 0; node < nodes; ++node) {
    const Exact angle = pi * (node + Exact(0.5)) / nodes;
    const Exact r = cutoff * std::cos(angle / 2);  // r_c times the square root of (1 + t) / 2
    const Exact value = std::erf(alpha * r) / r + shift;
    for (int k = 0; k < pairs::kMostTerms; ++k)
      coefficients[k] += (k ? 2 : 1) * value * std::cos(k * angle) / nodes;
  }
  Exact rest = 0;
  while (coefficients.size() > 2 &&
         (rest += std::abs(coefficients.back())) < least * std::abs(coefficients[0]))
    coefficients.pop_back();
  return coefficients;
}

/// Coefficients of powers of t.
std::vector<Exact> powers(const std::vector<Exact>& coefficients) {
  const std::size_t terms = coefficients.size();
  std::vector<Exact> sum(terms, 0), before(terms, 0), now(terms, 0);
  before[0] = 1;  // T_0
  now[1] = 1;     // T_1
  sum[0] = coefficients[0];
  for (std::size_t k = 1; k < terms; ++k) {
    for (std::size_t n = 0; n <= k; ++n) sum[n] += coefficients[k] * now[n];
    std::vector<Exact> next(terms, 0);  // T_(k+1) = 2 t T_k - T_(k-1)
    for (std::size_t n = 0; n < terms; ++n) next[n] = (n ? 2 * now[n - 1] : 0) - before[n];
    before.swap(now);
    now.swap(next);
  }
  return sum;
}

}  // namespace

template <class T>
pairs::Series<T> screening_series(double alpha, double cutoff) {
  const std::vector<Exact> values =
      powers(chebyshev(alpha, cutoff, 0.25 * std::numeric_limits<T>::epsilon()));
  pairs::Series<T> series{};
  series.cutoff2 = static_cast<T>(cutoff * cutoff);
  series.scale = static_cast<T>(2.0 / (cutoff * cutoff));
  series.terms = static_cast<int>(values.size());
  for (int n = 0; n < series.terms; ++n) {
    series.value[n] = static_cast<T>(values[n]);
    // d/dr = 2 r scale d/dt, and the slope is over r.
    if (n) series.slope[n - 1] = static_cast<T>(4.0 / (cutoff * cutoff) * n * values[n]);
  }
  return series;
}

template pairs::Series<float> screening_series(double, double);
template pairs::Series<double> screening_series(double, double);

}  // namespace nearsight
