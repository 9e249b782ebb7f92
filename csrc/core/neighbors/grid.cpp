#include "core/neighbors/grid.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nearsight {
namespace {

// Bins per cutoff. Fine bins along the last axis only sharpen the ends of a run of atoms, so they cost next
// to nothing.
constexpr std::array<double, 3> kBinsPerCutoff{2, 2, 6};
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

/// Bins of a fraction of the cutoff, or wider where that would make many more bins than atoms.
void choose_bins(std::array<Axis, 3>& axes, const Vec3& heights, double cutoff, std::size_t num_atoms) {
  const double most = 4.0 * static_cast<double>(num_atoms) + 64;
  double widen = 1, total;
  do {
    total = 1;
    for (int a = 0; a < 3; ++a) {
      const double bins = axes[a].extent * heights[a] * kBinsPerCutoff[a] / (widen * cutoff);
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
  return point(positions, i) +
         times(Vec3{double(wrap[0]), double(wrap[1]), double(wrap[2])}, lattice.vectors);
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
  for (auto* component : {&grid.x, &grid.y, &grid.z}) component->resize(n);
  grid.wrap.resize(n);
  grid.atom.resize(n);
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
  choose_bins(grid.axes, lattice.heights, cutoff, n);
  std::vector<Shift> wrap(n);
  grid.bin.resize(n);
  threads.split(n, [&](int, std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      for (int a = 0; a < 3; ++a)
        wrap[i][a] =
            lattice.pbc[a] ? -static_cast<std::int32_t>(std::floor(s[a * n + i] - grid.axes[a].origin)) : 0;
      grid.bin[i] = bin_of(grid.axes, times(wrapped(positions, i, wrap[i], lattice), lattice.inverse));
    }
  });
  sort_by_bin(grid);
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
  return grid;
}

}  // namespace nearsight
