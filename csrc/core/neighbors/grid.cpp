#include "core/neighbors/grid.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "core/engine/error.hpp"

namespace nearsight {
namespace {

constexpr double kMostPairs = 4294967296.0;  // 64 GiB of list
constexpr double kPi = 3.14159265358979323846;
constexpr int kSlots = 256;  // of the histogram that looks for vacuum

/// Fractional coordinates of all atoms, three arrays one after the other.
std::vector<double> fractions(Span<const double> positions, const Lattice& lattice, ThreadPool& threads) {
  const std::size_t n = positions.size() / 3;
  std::vector<double> s(3 * n);
  threads.split(n, [&](int, std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      const Vec3 f = times(point(positions, i), lattice.inverse);
      for (int a = 0; a < 3; ++a) s[a * n + i] = f[a];
    }
  });
  return s;
}

Axis open_axis(Span<const double> s, double cutoff) {
  Axis axis;
  if (s.empty()) return axis;
  const auto [low, high] = std::minmax_element(s.begin(), s.end());
  axis.origin = *low;
  axis.extent = std::max(*high - *low, 1e-3 * cutoff);
  return axis;
}

/// A periodic direction is cut open where it has a gap wider than the cutoff (slabs, droplets, molecules in a
/// large box): no pair crosses the gap, and the grid need not cover it.
Axis periodic_axis(Span<const double> s, double height, double reach) {
  Axis axis;
  axis.tiled = true;
  std::array<bool, kSlots> taken{};
  for (const double f : s) taken[std::min(static_cast<int>((f - std::floor(f)) * kSlots), kSlots - 1)] = true;
  int longest = 0, run = 0;
  for (int k = 0; k < 2 * kSlots; ++k) {
    run = taken[k % kSlots] ? 0 : run + 1;
    if (run > longest && run < kSlots) {
      longest = run;
      axis.origin = static_cast<double>(k + 1) / kSlots;
    }
  }
  if (longest * height / kSlots > reach) {
    axis.tiled = false;
    axis.extent = 1.0 - static_cast<double>(longest) / kSlots;
  } else {
    axis.origin = 0;
  }
  return axis;
}

double expected_pairs(const std::array<Axis, 3>& axes, const Lattice& lattice, double cutoff,
                      std::size_t num_atoms) {
  double volume = std::abs(determinant(lattice.vectors));
  for (int a = 0; a < 3; ++a)
    if (!axes[a].tiled) volume *= std::max(axes[a].extent, 2.0 * cutoff / lattice.heights[a]);
  const double atoms = static_cast<double>(num_atoms);
  const double expected = atoms * atoms * 4.0 / 3.0 * kPi * cutoff * (cutoff / volume * cutoff);
  if (expected <= kMostPairs) return expected;
  std::ostringstream message;
  message << "a cutoff of " << cutoff << " Å gives about " << expected << " neighbor pairs of " << num_atoms
          << " atoms, but at most " << kMostPairs
          << " are possible: check that cutoff, positions and cell are in Å";
  throw Error(ErrorKind::argument, message.str());
}

/// Bins as wide as the cutoff; half of that from about 200 neighbors per atom on, where the distances saved
/// outweigh the more and shorter runs (measured on water). Along the last axis fine bins only sharpen the
/// ends of runs, so they cost nothing. All are wider where there would be many more bins than atoms.
void choose_bins(std::array<Axis, 3>& axes, const Vec3& heights, double cutoff, double num_atoms,
                 double num_pairs) {
  const double across = num_pairs > 200 * num_atoms ? 2 : 1;
  const Vec3 bins_per_cutoff{across, across, 6};
  const double most = std::min(4 * num_atoms + 64, 2e9);
  double widen = 1, total;
  do {
    total = 1;
    for (int a = 0; a < 3; ++a) {
      const double bins = axes[a].extent * heights[a] / (widen * cutoff) * bins_per_cutoff[a];
      axes[a].bins = static_cast<int>(std::clamp(bins, 1.0, 1e9));
      total *= axes[a].bins;
    }
    widen *= std::max(1.1, std::cbrt(total / most));
  } while (total > most);
}

/// Bound on the error of a distance between wrapped positions, which are sums of rounded products.
double round_off(double largest, const Lattice& lattice, double cutoff) {
  double size = largest;
  for (int a = 0; a < 3; ++a)
    if (lattice.pbc[a])
      size += (4.0 + (2.0 * largest + cutoff) / lattice.heights[a]) * norm(row(lattice.vectors, a));
  return 32 * std::numeric_limits<double>::epsilon() * size;
}

Vec3 wrapped(Span<const double> positions, std::size_t i, const Shift& wrap, const Lattice& lattice) {
  return point(positions, i) + translation(wrap, lattice);
}

std::int32_t bin_of(const std::array<Axis, 3>& axes, const Vec3& fraction) {
  std::int32_t bin = 0;
  for (int a = 0; a < 3; ++a) {
    const double b = (fraction[a] - axes[a].origin) / axes[a].extent * axes[a].bins;
    bin = bin * axes[a].bins + static_cast<std::int32_t>(std::clamp(b, 0.0, axes[a].bins - 1.0));
  }
  return bin;
}

/// Counting sort: atoms of one bin stay in the order of their indices.
void sort_by_bin(Grid& grid) {
  const std::size_t n = grid.bin.size();
  grid.start.assign(grid.axes[0].bins * grid.axes[1].bins * grid.axes[2].bins + 1, 0);
  for (const std::int32_t b : grid.bin) ++grid.start[b + 1];
  for (std::size_t b = 1; b < grid.start.size(); ++b) grid.start[b] += grid.start[b - 1];
  std::vector<std::int32_t> next(grid.start.begin(), grid.start.end() - 1);
  grid.rank.resize(n);
  for (std::size_t i = 0; i < n; ++i) grid.rank[i] = next[grid.bin[i]]++;
}

/// Wraps all atoms, finds their bins and writes them in the order of the bins.
void place_atoms(Grid& grid, Span<const double> positions, const std::vector<double>& s,
                 ThreadPool& threads) {
  const Lattice& lattice = grid.lattice;
  const std::size_t n = positions.size() / 3;
  std::vector<Shift> wrap(n);
  grid.bin.resize(n);
  threads.split(n, [&](int, std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      for (int a = 0; a < 3; ++a) {
        const double cells = lattice.pbc[a] ? std::floor(s[a * n + i] - grid.axes[a].origin) : 0.0;
        wrap[i][a] = -static_cast<std::int32_t>(cells);
      }
      grid.bin[i] = bin_of(grid.axes, times(wrapped(positions, i, wrap[i], lattice), lattice.inverse));
    }
  });
  sort_by_bin(grid);
  for (auto* component : {&grid.x, &grid.y, &grid.z}) component->resize(n);
  grid.wrap.resize(n);
  grid.atom.resize(n);
  threads.split(n, [&](int, std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      const std::size_t k = grid.rank[i];
      const Vec3 r = wrapped(positions, i, wrap[i], lattice);
      grid.x[k] = r[0];
      grid.y[k] = r[1];
      grid.z[k] = r[2];
      grid.wrap[k] = wrap[i];
      grid.atom[k] = static_cast<std::int32_t>(i);
    }
  });
}

}  // namespace

Grid make_grid(Span<const double> positions, const Cell& cell, double cutoff, ThreadPool& threads) {
  Grid grid;
  grid.lattice = complete(cell, cutoff);
  const Lattice& lattice = grid.lattice;
  grid.round_off = round_off(check_positions(positions, lattice), lattice, cutoff);
  const std::size_t n = positions.size() / 3;
  const std::vector<double> s = fractions(positions, lattice, threads);
  for (int a = 0; a < 3; ++a) {
    const Span<const double> along(s.data() + a * n, n);
    grid.axes[a] = lattice.pbc[a] ? periodic_axis(along, lattice.heights[a], cutoff + grid.round_off)
                                  : open_axis(along, cutoff);
  }
  grid.expected_pairs = expected_pairs(grid.axes, lattice, cutoff, n);
  choose_bins(grid.axes, lattice.heights, cutoff, static_cast<double>(n), grid.expected_pairs);
  place_atoms(grid, positions, s, threads);
  return grid;
}

}  // namespace nearsight
