#include "core/mesh/errors.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/mesh/pair_kernel.hpp"

namespace nearsight {
namespace {

constexpr double kNegligible = 80;  // of k²/α²; exp(-40)
constexpr double kStep = 0.96;      // of the spacings of a table

/// One direction of the mesh: what a wave of h periods shares with those that look the same, h + m n.
struct Direction {
  int length = 0;
  Vec3 reciprocal{};                 // 2π over the lattice vector, rad/Å
  std::vector<double> others;        // [h] share of all others
  std::vector<double> below, above;  // [h] of h - n and h + n
  std::vector<double> beat;          // [h] product of the own amplitude with those of h - n and h + n
};

Direction direction(const Box& box, int d, int order, int length) {
  Direction result;
  result.length = length;
  for (int c = 0; c < 3; ++c) result.reciprocal[c] = 2.0 * kPi * box.inverse[3 * c + d];
  const SplineWaves waves = spline_waves(order, length);
  for (int h = 0; h < length; ++h) {
    const int signed_h = 2 * h < length ? h : h - length;
    const auto share = [&](int m) {
      const double ratio = double(signed_h) / (signed_h + m * length);
      return waves.own[h] / waves.all[h] * std::pow(ratio * ratio, order);
    };
    result.below.push_back(share(-1));
    result.above.push_back(share(1));
    double others = 0;  // not 1 - own / all, which is round-off for long waves
    for (const int m : {-3, -2, -1, 1, 2, 3}) others += share(m);
    result.others.push_back(others);
    const auto amplitude = [&](int m) {
      return std::pow(-double(signed_h) / (signed_h + m * length), order);
    };
    result.beat.push_back((1.0 - others) * (amplitude(-1) + amplitude(1)));
  }
  return result;
}

/// k² G(k)² V² / (4π)² for Ewald's G: exp(-k²/2α²) / k².
double power(double k2, double alpha) {
  return std::exp(-0.5 * k2 / (alpha * alpha)) / k2;
}

/// Mean square of the error of the force between two unit charges, over V² / (4π)², and amplitude along each
/// direction of the potential that a charge has from itself, which depends on its place between mesh points.
struct WaveError {
  double pairs = 0;
  Vec3 own{};
};

/// What one wave adds, `weight` times.
void add_wave(const std::array<Direction, 3>& directions, const std::array<int, 3>& h, double alpha,
              double weight, WaveError& error) {
  Vec3 k{};
  bool limit = false;
  double impurity = 0;  // 1 - Π (1 - share of others)
  for (int d = 0; d < 3; ++d) {
    const int length = directions[d].length;
    limit = limit || 2 * h[d] == length;
    k = k + double(2 * h[d] < length ? h[d] : h[d] - length) * directions[d].reciprocal;
    impurity += directions[d].others[h[d]] * (1.0 - impurity);
  }
  const double k2 = dot(k, k), own = k2 > 0 ? power(k2, alpha) : 0.0;
  if (limit) {  // left out
    error.pairs += weight * own;
    return;
  }
  // With ρ the purity and A the waves that look the same, weighted by their squares over k²: ρ³ + ρ²A - 2ρ² +
  // 1, and what the mesh does not have of those waves themselves.
  const double purity = 1.0 - impurity;
  double others = 0, missing = 0;
  for (int d = 0; d < 3; ++d)
    for (const int sign : {-1, 1}) {
      const Vec3 other = k + double(sign * directions[d].length) * directions[d].reciprocal;
      const double other2 = dot(other, other);
      if (k2 > 0) others += other2 / k2 * (sign < 0 ? directions[d].below : directions[d].above)[h[d]];
      if (other2 < kNegligible * alpha * alpha) missing += power(other2, alpha);
    }
  error.pairs +=
      weight * (own * (impurity * (1.0 + purity - purity * purity) + purity * purity * others) + missing);
  if (k2 == 0) return;
  const double potential = weight * std::exp(-0.25 * k2 / (alpha * alpha)) / k2;
  for (int d = 0; d < 3; ++d) error.own[d] += potential * directions[d].beat[h[d]];
}

}  // namespace

double short_range_error(const ChargeSize& size, const Box& box, double alpha, double cutoff) {
  return kCoulomb * 2.0 * size.squares / std::sqrt(size.num_charges * cutoff * box.occupied) *
         std::exp(-alpha * alpha * cutoff * cutoff);
}

double mesh_error(const ChargeSize& size, const Box& box, double alpha, int order,
                  const std::array<int, 3>& mesh) {
  std::array<Direction, 3> directions;
  for (int d = 0; d < 3; ++d) directions[d] = direction(box, d, order, mesh[d]);
  WaveError error;
  std::array<int, 3> h;
  for (h[0] = 0; h[0] < mesh[0]; ++h[0])
    for (h[1] = 0; h[1] < mesh[1]; ++h[1])
      for (h[2] = 0; h[2] <= mesh[2] / 2; ++h[2]) add_wave(directions, h, alpha, h[2] ? 2.0 : 1.0, error);
  // A charge's force on itself: ½ ∂/∂r of Σ_d 2 own_d cos(2π times its place).
  double own = 0;
  for (int d = 0; d < 3; ++d)
    own +=
        0.5 * std::pow(error.own[d] * mesh[d], 2) * dot(directions[d].reciprocal, directions[d].reciprocal);
  const double squares = size.squares * size.squares * error.pairs + size.fourths * own;
  return kCoulomb * 4.0 * kPi / box.volume * std::sqrt(squares / size.num_charges);
}

ChargeSize measure(const Charges& charges, Ranks& ranks) {
  std::array<double, 3> sums{static_cast<double>(charges.size()), 0.0, 0.0};
  for (const double q : charges.values) {
    sums[1] += q * q;
    sums[2] += q * q * q * q;
  }
  ranks.sum({sums.data(), sums.size()});
  const double width = charges.max_width();
  const std::vector<double> widths = ranks.gather({&width, 1});
  return {sums[0], sums[1], sums[2], *std::max_element(widths.begin(), widths.end())};
}

FineMeshErrors::FineMeshErrors() {
  constexpr int points = 12;
  const std::array<int, 3> mesh{points, points, points};
  Box cube{};
  double spacing = coarsest_spacing(1.0);
  for (int k = 0; k < kPlaces; ++k, spacing *= kStep) {
    const double side = points * spacing;
    for (int d = 0; d < 3; ++d) {
      cube.vectors[4 * d] = side;
      cube.inverse[4 * d] = 1.0 / side;
    }
    cube.volume = side * side * side;
    for (int order = kMinOrder; order <= kMaxOrder; ++order)
      tables_[order - kMinOrder][k] = {
          mesh_error({1.0, 1.0, 0.0, 0.0}, cube, 1.0, order, mesh) * std::sqrt(cube.volume),
          mesh_error({1.0, 0.0, 1.0, 0.0}, cube, 1.0, order, mesh)};
  }
}

double FineMeshErrors::spacing(const ChargeSize& size, const Box& box, double alpha, int order,
                               double error) const {
  const double pairs = size.squares * std::sqrt(alpha / (box.volume * size.num_charges));
  const double own = alpha * alpha * std::sqrt(size.fourths / size.num_charges);
  double spacing = coarsest_spacing(alpha), found = 0;
  for (const Errors& errors : tables_[order - kMinOrder]) {
    found = std::hypot(pairs * errors.pairs, own * errors.own);
    if (found <= error) return spacing;
    spacing *= kStep;
  }
  return spacing * std::pow(error / found, 1.0 / order);  // beyond the table
}

}  // namespace nearsight
