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
#include "core/mesh/short_range.hpp"

namespace nearsight {
namespace {

constexpr double kNeighbors[] = {40, 60, 90, 130, 190, 270, 390, 560, 800};  // within possible cutoffs
constexpr double kBeyond = 1.3;
constexpr int kMeasurements = 3;
constexpr double kMostMeasured = 4096;  // charges; larger systems would take seconds
constexpr double kMostPoints = 1e9;     // of a mesh

double num_points(const std::array<int, 3>& mesh) {
  return double(mesh[0]) * mesh[1] * mesh[2];
}

/// Times of the parts of an evaluation on one core, ns, as measured.
struct Costs {
  int block;      // charges that meet others together
  double pair;    // of a block and another charge
  double image;   // of a charge or one of its images
  double point;   // of a point of the mesh, and
  double wave;    // for each factor of two of their number
  double charge;  // of a charge, spread and gathered
  double line;    // of each line that it reaches

  double of_pairs(const ChargeSize& size, const Box& box, double cutoff) const {
    const double density = size.num_charges / box.occupied, reach = (1.0 + kSkin) * cutoff;
    const double beyond = 0.45 * std::cbrt(block / density);  // what blocks are wide
    const double others = density * 4.0 / 3.0 * kPi * std::pow(reach + beyond, 3);
    double images = size.num_charges;
    for (int d = 0; d < 3; ++d) images *= 1.0 + 2.0 * reach / norm(row(box.vectors, d));
    return size.num_charges / block * others * pair + images * image;
  }
  double of_mesh(const ChargeSize& size, int order, const std::array<int, 3>& mesh) const {
    const double points = num_points(mesh);
    return points * (point + wave * std::log2(points + 1.0)) +
           size.num_charges * (charge + line * order * order);
  }
};
constexpr Costs kSingle{16, 12.5, 10.0, 1.4, 0.30, 70.0, 1.6};
constexpr Costs kDouble{8, 17.5, 10.0, 2.0, 0.53, 80.0, 2.0};

void check_wishes(const PmeWishes& wishes) {
  if (wishes.order != 0 && (wishes.order < kMinOrder || wishes.order > kMaxOrder))
    throw Error(ErrorKind::argument, "the order of the splines is " + std::to_string(wishes.order) +
                                         ", but 4 to 8 are expected, or 0 for the automatic one: correct it");
  if (wishes.cutoff != 0) check_cutoff(wishes.cutoff);
}

/// How many times the error of forces falls by e from no screening to `force_error`, α²r².
double decays(const ChargeSize& size, const Box& box, double cutoff, double force_error) {
  return std::max(1.0, std::log(short_range_error(size, box, 0.0, cutoff) / force_error));
}

/// Beyond it pairs of Gaussians are points: erfc(r / 2σ) falls as the screening does.
double least_cutoff(const ChargeSize& size, const Box& box, double cutoff, double force_error) {
  return 2.0 * size.width * std::sqrt(decays(size, box, cutoff, force_error));
}

/// Those to choose from.
std::vector<double> cutoffs(const ChargeSize& size, const Box& box, double force_error, double wish) {
  std::vector<double> found;
  if (wish == 0) {
    for (const double neighbors : kNeighbors) {
      const double cutoff = std::cbrt(3.0 * neighbors * box.occupied / (4.0 * kPi * size.num_charges));
      found.push_back(std::max(cutoff, least_cutoff(size, box, cutoff, force_error)));
    }
    return found;
  }
  const double least = least_cutoff(size, box, wish, force_error);
  if (wish < least) {
    std::ostringstream message;
    message << "the cutoff is " << wish << " Å, but Gaussian charges of width " << size.width << " Å need "
            << least << " Å at this accuracy: give a longer cutoff, or 0 for the automatic one";
    throw Error(ErrorKind::argument, message.str());
  }
  return {wish};
}

std::array<int, 3> mesh_of(const Box& box, double spacing) {
  std::array<int, 3> mesh;
  for (int d = 0; d < 3; ++d)
    mesh[d] = smooth_length(static_cast<int>(std::ceil(std::min(norm(row(box.vectors, d)) / spacing, 1e7))));
  return mesh;
}

/// Cutoff and order with the least estimated time; splitting and mesh are only as good as estimates.
PmeParameters choose_cheapest(const ChargeSize& size, const Box& box, double error, const PmeWishes& wishes,
                              const Costs& costs) {
  static const FineMeshErrors errors;
  PmeParameters best;
  double least = std::numeric_limits<double>::infinity();
  for (const double cutoff : cutoffs(size, box, error, wishes.cutoff)) {
    const double pairs = costs.of_pairs(size, box, cutoff);
    const double splitting = std::sqrt(decays(size, box, cutoff, error)) / cutoff;
    for (int order = wishes.order ? wishes.order : kMinOrder;
         order <= (wishes.order ? wishes.order : kMaxOrder); ++order) {
      const double spacing = errors.spacing(size, box, splitting, order, error);
      const double found = pairs + costs.of_mesh(size, order, mesh_of(box, spacing));
      if (found >= least) continue;
      least = found;
      best = {splitting, cutoff, order, {}, 0.0};
    }
  }
  return best;
}

/// The error of all forces from pairs between the cutoff and `kBeyond` times it, eV/Å.
double measured_short_range_error(const Charges& charges, const ChargeSize& size, const Box& box,
                                  double alpha, double cutoff, ThreadPool& threads, Ranks& ranks) {
  const std::vector<Region> regions = find_regions(charges.positions, box, ranks);
  Coulomb near, far;
  near.clear(charges.size());
  far.clear(charges.size());
  ShortRange<double>(alpha, cutoff, 0.0).add(charges, box, regions, true, threads, ranks, near);
  ShortRange<double>(alpha, kBeyond * cutoff, 0.0).add(charges, box, regions, true, threads, ranks, far);
  double squares = 0;
  for (std::size_t k = 0; k < near.fields.size(); ++k)
    squares += std::pow(charges.values[k / 3] * (far.fields[k] - near.fields[k]), 2);
  ranks.sum({&squares, 1});
  return kCoulomb * std::sqrt(squares / size.num_charges);
}

/// The splitting for a cutoff. Estimates take charges for independent of one another, which they are not over
/// the first shells of neighbors: small systems are measured.
double choose_splitting(const Charges& charges, const ChargeSize& size, const Box& box, double cutoff,
                        double force_error, ThreadPool& threads, Ranks& ranks) {
  double exponent = decays(size, box, cutoff, force_error);
  if (size.num_charges > kMostMeasured) return std::sqrt(exponent) / cutoff;
  for (int step = 0; step < kMeasurements; ++step) {
    const double found =
        measured_short_range_error(charges, size, box, std::sqrt(exponent) / cutoff, cutoff, threads, ranks);
    if (found <= force_error) break;
    exponent += std::log(found / force_error) + 0.1;
  }
  return std::sqrt(exponent) / cutoff;
}

/// The coarsest mesh of this order that is good enough: from coarse to fine, as the error goes with the
/// spacing to the power of the order.
std::array<int, 3> choose_mesh(const ChargeSize& size, const Box& box, double alpha, int order,
                               double error) {
  for (double spacing = coarsest_spacing(alpha);;) {
    const std::array<int, 3> mesh = mesh_of(box, spacing);
    if (num_points(mesh) > kMostPoints)
      throw Error(ErrorKind::unsupported,
                  "the mesh of the charges would have more than 1e9 points: ask for less accuracy, a longer "
                  "cutoff, or a smaller cell");
    const double found = mesh_error(size, box, alpha, order, mesh);
    if (found <= error) return mesh;
    spacing *= std::clamp(std::pow(error / found, 1.0 / order), 0.5, 0.96);
  }
}

}  // namespace

PmeParameters choose_parameters(const Charges& charges, const ChargeSize& size, const Box& box,
                                double force_error, const PmeWishes& wishes, bool single, ThreadPool& threads,
                                Ranks& ranks) {
  check_wishes(wishes);
  const double part = force_error / std::sqrt(2.0);
  PmeParameters best = choose_cheapest(size, box, part, wishes, single ? kSingle : kDouble);
  best.splitting = choose_splitting(charges, size, box, best.cutoff, part, threads, ranks);
  best.mesh = choose_mesh(size, box, best.splitting, best.order, part);
  best.force_error = std::hypot(short_range_error(size, box, best.splitting, best.cutoff),
                                mesh_error(size, box, best.splitting, best.order, best.mesh));
  return best;
}

}  // namespace nearsight
