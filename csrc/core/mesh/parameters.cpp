#include "core/mesh/parameters.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "core/engine/error.hpp"
#include "core/mesh/fft.hpp"
#include "core/mesh/pair_kernel.hpp"
#include "core/mesh/spline.hpp"

namespace nearsight {
namespace {

constexpr double kPairs = 300;      // neighbors of a charge within the default cutoff
constexpr double kNegligible = 80;  // of k²/α²; exp(-40)
constexpr double kBeyond = 1.3;
constexpr int kMeasurements = 3;
constexpr std::size_t kMostMeasured = 4096;  // charges; larger systems would take seconds
constexpr double kMostPoints = 1e9;          // of a mesh

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

void check_wishes(const PmeWishes& wishes) {
  if (wishes.order != 0 && (wishes.order < 4 || wishes.order > kMaxOrder))
    throw Error(ErrorKind::argument, "the order of the splines is " + std::to_string(wishes.order) +
                                         ", but 4 to 8 are expected, or 0 for the automatic one: correct it");
  if (wishes.cutoff != 0) check_cutoff(wishes.cutoff);
}

/// How many times the error of forces falls by e from no screening to `force_error`, α²r².
double decays(const ChargeSize& size, const Box& box, double cutoff, double force_error) {
  return std::max(1.0, std::log(short_range_error(size, box, 0.0, cutoff) / force_error));
}

double choose_cutoff(const ChargeSize& size, const Box& box, double force_error, double wish) {
  const double density = static_cast<double>(size.num_charges) / box.occupied;
  double cutoff = wish > 0 ? wish : std::cbrt(3.0 * kPairs / (4.0 * kPi * density));
  // Beyond it pairs of Gaussians are points: erfc(r / 2σ) falls as the screening does.
  const double least = 2.0 * size.width * std::sqrt(decays(size, box, cutoff, force_error));
  if (wish > 0 && wish < least) {
    std::ostringstream message;
    message << "the cutoff is " << wish << " Å, but Gaussian charges of width " << size.width << " Å need "
            << least << " Å at this accuracy: give a longer cutoff, or 0 for the automatic one";
    throw Error(ErrorKind::argument, message.str());
  }
  return std::max(cutoff, least);
}

/// The error of all forces from pairs between the cutoff and `kBeyond` times it, eV/Å. `charges` are the
/// first `own` ones with their surroundings.
double measured_short_range_error(const Charges& charges, std::size_t own, const ChargeSize& size,
                                  const Box& box, double alpha, double cutoff, ThreadPool& threads,
                                  Ranks& ranks) {
  Coulomb near, far;
  near.clear(own);
  far.clear(own);
  add_short_range(charges, own, box, alpha, cutoff, threads, near);
  add_short_range(charges, own, box, alpha, kBeyond * cutoff, threads, far);
  double squares = 0;
  for (std::size_t k = 0; k < near.fields.size(); ++k)
    squares += std::pow(charges.values[k / 3] * (far.fields[k] - near.fields[k]), 2);
  ranks.sum({&squares, 1});
  return kCoulomb * std::sqrt(squares / static_cast<double>(size.num_charges));
}

/// The splitting for a cutoff. Estimates take charges for independent of one another, which they are not over
/// the first shells of neighbors: small systems are measured.
double choose_splitting(const Charges& charges, const ChargeSize& size, const Box& box, double cutoff,
                        double force_error, ThreadPool& threads, Ranks& ranks) {
  double exponent = decays(size, box, cutoff, force_error);
  if (size.num_charges > kMostMeasured) return std::sqrt(exponent) / cutoff;
  Surroundings surroundings;
  const Charges seen =
      surroundings.within(kBeyond * cutoff, charges, box, find_regions(charges, box, ranks), ranks);
  for (int step = 0; step < kMeasurements; ++step) {
    const double found = measured_short_range_error(seen, charges.size(), size, box,
                                                    std::sqrt(exponent) / cutoff, cutoff, threads, ranks);
    if (found <= force_error) break;
    exponent += std::log(found / force_error) + 0.1;
  }
  return std::sqrt(exponent) / cutoff;
}

/// Operations per evaluation: transforms, and a charge's points, which are visited twice with four results.
double cost(const ChargeSize& size, int order, const std::array<int, 3>& mesh) {
  const double points = double(mesh[0]) * mesh[1] * mesh[2];
  return 5.0 * points * std::log2(points + 1.0) + 8.0 * size.num_charges * order * order * order;
}

/// The coarsest mesh of this order that is good enough, or the first one that costs more than `most`: from
/// coarse to fine, as the error goes with the spacing to the power of the order.
std::array<int, 3> choose_mesh(const ChargeSize& size, const Box& box, double alpha, int order, double error,
                               double most) {
  for (double spacing = 1.5 / alpha;;) {
    std::array<int, 3> mesh;
    double points = 1;
    for (int d = 0; d < 3; ++d) {
      const double length = norm(row(box.vectors, d)) / spacing;
      points *= length;
      if (!(points < kMostPoints))
        throw Error(
            ErrorKind::unsupported,
            "the mesh of the charges would have more than 1e9 points: ask for less accuracy, a longer "
            "cutoff, or a smaller cell");
      mesh[d] = smooth_length(static_cast<int>(std::ceil(length)));
    }
    if (cost(size, order, mesh) >= most) return mesh;
    const double found = mesh_error(size, box, alpha, order, mesh);
    if (found <= error) return mesh;
    spacing *= std::clamp(std::pow(error / found, 1.0 / order), 0.5, 0.96);
  }
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
  return {static_cast<std::size_t>(sums[0]), sums[1], sums[2],
          *std::max_element(widths.begin(), widths.end())};
}

PmeParameters choose_parameters(const Charges& charges, const ChargeSize& size, const Box& box,
                                double force_error, const PmeWishes& wishes, ThreadPool& threads,
                                Ranks& ranks) {
  check_wishes(wishes);
  const double part = force_error / std::sqrt(2.0);
  PmeParameters best;
  best.cutoff = choose_cutoff(size, box, part, wishes.cutoff);
  best.splitting = choose_splitting(charges, size, box, best.cutoff, part, threads, ranks);
  double least = std::numeric_limits<double>::infinity();
  for (int order = wishes.order ? wishes.order : kMaxOrder; order >= (wishes.order ? wishes.order : 4);
       --order) {
    const auto mesh = choose_mesh(size, box, best.splitting, order, part, least);
    if (cost(size, order, mesh) >= least) continue;
    least = cost(size, order, mesh);
    best.order = order;
    best.mesh = mesh;
  }
  best.force_error = std::hypot(short_range_error(size, box, best.splitting, best.cutoff),
                                mesh_error(size, box, best.splitting, best.order, best.mesh));
  return best;
}

}  // namespace nearsight
