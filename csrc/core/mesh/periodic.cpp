#include "core/mesh/periodic.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <sstream>
#include <utility>
#include <vector>

#include "core/engine/error.hpp"
#include "core/mesh/kernels.hpp"
#include "core/mesh/pair_kernel.hpp"
#include "core/models/shared/aligned.hpp"

namespace nearsight {
namespace {

constexpr double kThinnestSlab = 2.0;  // Å, of a single layer

/// The longest wave that the plane of a slab holds, Å: 2π over the shortest reciprocal vector, found by the
/// reduction of Gauss.
double longest_wave(Vec3 a, Vec3 b) {
  const Vec3 normal = cross(a, b);
  const double area = norm(normal);
  // In two dimensions the reciprocal lattice is the lattice itself, turned by 90° and divided by its area.
  for (int step = 0; step < 100; ++step) {
    if (dot(b, b) < dot(a, a)) std::swap(a, b);
    const double multiple = std::round(dot(a, b) / dot(a, a));
    if (multiple == 0) break;
    b = b - multiple * a;
  }
  return area / std::min(norm(a), norm(b));
}

/// The charges of all ranks along the normal of a slab, Å, and their largest width.
struct Extent {
  double lowest = 0, highest = 0, width = 0;
};

Extent find_extent(const Charges& charges, const Vec3& normal, Ranks& ranks) {
  std::array<double, 4> own{0, 0, charges.max_width(), charges.size() ? 1.0 : 0.0};
  for (std::size_t i = 0; i < charges.size(); ++i) {
    const double z = dot(point(charges.positions, i), normal);
    own[0] = i ? std::min(own[0], z) : z;
    own[1] = i ? std::max(own[1], z) : z;
  }
  const std::vector<double> all = ranks.gather({own.data(), own.size()});
  Extent extent;
  bool first = true;
  for (const double* found = all.data(); found < all.data() + all.size(); found += own.size()) {
    if (found[3] == 0) continue;
    extent.lowest = first ? found[0] : std::min(extent.lowest, found[0]);
    extent.highest = first ? found[1] : std::max(extent.highest, found[1]);
    extent.width = std::max(extent.width, found[2]);
    first = false;
  }
  return extent;
}

void add_vacuum(const Charges& charges, const Lattice& lattice, double tolerance, double height, Ranks& ranks,
                Box& box) {
  const int open = !lattice.pbc[0] ? 0 : !lattice.pbc[1] ? 1 : 2;
  box.slab = true;
  box.normal = row(lattice.vectors, open);
  const auto [lowest, highest, width] = find_extent(charges, box.normal, ranks);
  box.bottom = lowest;
  const double wave =
      longest_wave(row(lattice.vectors, (open + 1) % 3), row(lattice.vectors, (open + 2) % 3));
  const double decays = -std::log(tolerance);
  // Layers act on each other as exp(-2π gap / wave), and Gaussians must not overlap.
  const double least = highest - lowest + wave * decays / (2.0 * kPi) + 4.0 * width * std::sqrt(decays);
  if (height > 0 && height < least) {
    std::ostringstream message;
    message << "the slab needs " << least << " Å with its vacuum, but it was set up for " << height
            << " Å: set the mesh up again, or keep atoms from leaving the slab";
    throw Error(ErrorKind::numeric, message.str());
  }
  box.height = height > 0 ? height : least;
  const double thickness = std::max(highest - lowest, kThinnestSlab);
  box.occupied = thickness * std::abs(determinant(lattice.vectors));  // the normal has length 1
  for (int c = 0; c < 3; ++c) box.vectors[3 * open + c] = box.height * box.normal[c];
}

/// Σ q z^k along the normal of a slab, over all ranks, and Σ q σ².
struct Moments {
  double charge = 0, first = 0, second = 0, spread = 0;
};

double height_of(const Charges& charges, std::size_t i, const Box& box) {
  return dot(point(charges.positions, i), box.normal) - box.bottom;
}

Moments find_moments(const Charges& charges, const Box& box, Ranks& ranks) {
  std::array<double, 4> sums{};
  for (std::size_t i = 0; i < charges.size(); ++i) {
    const double q = charges.values[i], w = charges.width(i), z = height_of(charges, i, box);
    sums[0] += q;
    sums[1] += q * z;
    sums[2] += q * z * z;
    sums[3] += q * w * w;
  }
  ranks.sum({sums.data(), sums.size()});
  return {sums[0], sums[1], sums[2], sums[3]};
}

void add_slab(const Charges& charges, const Box& box, const Moments& moments, bool with_virial,
              Coulomb& result) {
  const auto [charge, first, second, spread] = moments;
  const double scale = 4.0 * kPi / box.volume, level = charge * box.height * box.height / 12.0;
  for (std::size_t i = 0; i < charges.size(); ++i) {
    const double w = charges.width(i), z = height_of(charges, i, box), own = charge * (z * z + w * w);
    result.potentials[i] += scale * (z * first - 0.5 * (second + spread + own) - level);
    for (int c = 0; c < 3; ++c) result.fields[3 * i + c] -= scale * (first - charge * z) * box.normal[c];
  }
  if (!with_virial) return;
  const double energy = 0.5 * scale * (first * first - charge * (second + level));
  // A strain scales volumes by its trace, heights along the normal by its normal component, widths not.
  for (int c = 0; c < 3; ++c) result.virial[c] += energy - 0.5 * scale * charge * spread;
  result.add_virial(-2.0 * energy, box.normal);
}

}  // namespace

Box make_box(const Charges& charges, const Cell& cell, double cutoff, double tolerance, double height,
             Ranks& ranks) {
  const int directions = cell.pbc[0] + cell.pbc[1] + cell.pbc[2];
  if (directions == 0)
    throw Error(ErrorKind::argument,
                "the system is not periodic, but a lattice sum was asked for: take the direct sum");
  if (directions == 1)
    throw Error(ErrorKind::unsupported,
                "the system is periodic in one direction, but electrostatics needs 0, 2 or 3: make two more "
                "directions periodic with enough vacuum");
  check_charges(charges);
  const Lattice lattice = complete(cell, cutoff);
  check_positions(charges.positions, lattice);
  Box box;
  box.vectors = lattice.vectors;
  box.occupied = std::abs(determinant(lattice.vectors));
  if (directions == 2) add_vacuum(charges, lattice, tolerance, height, ranks, box);
  box.inverse = inverse(box.vectors);
  box.volume = std::abs(determinant(box.vectors));
  return box;
}

void add_short_range(const Charges& charges, const Box& box, double alpha, double cutoff, ThreadPool& threads,
                     Coulomb& result) {
  const std::size_t n = charges.size();
  NeighborList list;
  build_cell_list(charges.positions, box.cell(), cutoff, threads, list);
  std::vector<std::array<double, 6>> virials(n);
  const double shift = screened(alpha, cutoff).value;
  threads.split(n, [&](int, std::size_t begin, std::size_t end) {
    AlignedBuffer<double> buffer;
    for (std::size_t i = begin; i < end; ++i) {
      const auto first = list.offsets[i];
      const int count = static_cast<int>(list.offsets[i + 1] - first), padded_count = padded(count);
      double* const r2 = buffer.resize(3 * static_cast<std::size_t>(padded_count));
      double *const values = r2 + padded_count, *const slopes = values + padded_count;
      for (int k = 0; k < count; ++k) {
        const Vec3 r =
            pair_vector(charges.positions, i, list.neighbors[first + k], list.shifts[first + k], box.vectors);
        r2[k] = dot(r, r);
        check_distance(std::sqrt(r2[k]), i, list.neighbors[first + k], n);
      }
      std::fill(r2 + count, values, 1.0);
      pairs::kernels<double>().screened(padded_count, alpha, r2, values, slopes);
      Coulomb part;  // of one charge: virial only
      const double qi = charges.values[i], wi = charges.width(i);
      for (int k = 0; k < count; ++k) {
        const std::size_t j = list.neighbors[first + k];
        const Vec3 r = pair_vector(charges.positions, i, j, list.shifts[first + k], box.vectors);
        const double qj = charges.values[j], wj = charges.width(j), width2 = wi * wi + wj * wj;
        PairTerm term{values[k], slopes[k]};
        if (width2 > 0) {
          const PairTerm outer = screened(1.0 / std::sqrt(2.0 * width2), std::sqrt(r2[k]));
          term = {term.value - outer.value, term.slope - outer.slope};
        }
        result.potentials[i] += qj * (term.value - shift);
        for (int c = 0; c < 3; ++c) result.fields[3 * i + c] += qj * term.slope * r[c];
        part.add_virial(-0.5 * qi * qj * term.slope, r);  // the other half is with j
      }
      virials[i] = part.virial;
    }
  });
  for (const auto& virial : virials)
    for (int a = 0; a < 6; ++a) result.virial[a] += virial[a];
}

void add_corrections(const Charges& charges, const Box& box, double alpha, double cutoff, Ranks& ranks,
                     Coulomb& result) {
  const Moments moments = find_moments(charges, box, ranks);
  // ∫ erfc(α r) / r - erfc(α r_c) / r_c d³r within the cutoff; π/α² for a long one.
  const double shift = screened(alpha, cutoff).value, reach = alpha * cutoff;
  const double volume =
      kPi / (alpha * alpha) * (std::erf(reach) - 2.0 / std::sqrt(kPi) * reach * std::exp(-reach * reach)) +
      2.0 / 3.0 * kPi * cutoff * cutoff * cutoff * shift;
  double background = 0;  // the share in its energy
  for (std::size_t i = 0; i < charges.size(); ++i) {
    const double q = charges.values[i], w = charges.width(i);
    // The reciprocal sum holds the charge's own screening charge; the shift is for all charges within the
    // cutoff.
    result.potentials[i] -= (2.0 * alpha / std::sqrt(kPi) + shift) * q;
    // Gaussians: ∫ erfc(r / √(2 w²)) / r d³r = 2π w², w² = σ_i² + σ_j².
    const double level =
        -(volume * moments.charge - 2.0 * kPi * (w * w * moments.charge + moments.spread)) / box.volume;
    result.potentials[i] += level;
    background += 0.5 * q * level;
  }
  for (int c = 0; c < 3; ++c) result.virial[c] += background;
  if (box.slab) add_slab(charges, box, moments, ranks.rank() == 0, result);
}

}  // namespace nearsight
