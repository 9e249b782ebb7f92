#pragma once
#include <array>
#include <cmath>
#include <cstddef>

namespace nearsight {

constexpr double kPi = 3.14159265358979323846;

/// A potential between unit charges at distance r, e/Å, and its derivative divided by r.
struct PairTerm {
  double value, slope;
};

/// erfc(a r) / r
inline PairTerm screened(double a, double r) {
  const double value = std::erfc(a * r) / r;
  return {value, -(value + 2.0 * a / std::sqrt(kPi) * std::exp(-a * a * r * r)) / (r * r)};
}

/// Two Gaussians whose widths add in squares to `width2`, Å²: erf(r / √(2 width2)) / r; points: 1 / r.
inline PairTerm bare(double width2, double r) {
  PairTerm term{1.0 / r, -1.0 / (r * r * r)};
  if (width2 > 0) {
    const PairTerm outer = screened(1.0 / std::sqrt(2.0 * width2), r);
    term = {term.value - outer.value, term.slope - outer.slope};
  }
  return term;
}

/// Throws Error (numeric) for pairs whose distance has no meaning; charges from `own` on are other ranks'.
void check_distance(double r, std::size_t i, std::size_t j, std::size_t own);

}  // namespace nearsight
