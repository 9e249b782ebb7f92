#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "core/engine/error.hpp"
#include "core/neighbors/grid.hpp"

namespace nearsight {
namespace {

constexpr double kMostPairs = 4294967296.0;  // 64 GiB of list
constexpr double kPi = 3.14159265358979323846;

/// Pairs of a homogeneous system of this density.
double expected_pairs(const Grid& grid, double cutoff) {
  double volume = std::abs(determinant(grid.lattice.vectors));
  for (int a = 0; a < 3; ++a)
    if (!grid.axes[a].tiled) volume *= std::max(grid.axes[a].extent, 2.0 * cutoff / grid.lattice.heights[a]);
  const double atoms = static_cast<double>(grid.num_atoms());
  return atoms * atoms * 4.0 / 3.0 * kPi * cutoff * (cutoff / volume * cutoff);
}

/// Bins around a bin: one row of neighboring bins along the last axis for each offset along the other two.
struct Row {
  std::int32_t dx, dy, z_first, z_last;
};

struct Interval {
  double low, high;
};

/// Integers d for which some t in (d - 1, d + 1) has t·step + offset in [-reach, reach]. Two points of two
/// bins that are d apart differ by such a t. The margin covers the rounding of fractional coordinates.
struct Range {
  int first, last;
};

Range bin_range(double step, Interval offset, double reach, const Axis& axis) {
  constexpr double kMargin = 1e-6;
  const double limit = axis.tiled ? 1e9 : axis.bins - 1.0;
  const double low = std::ceil((-reach - offset.high) / step - 1.0 - kMargin);
  const double high = std::floor((reach - offset.low) / step + 1.0 + kMargin);
  return {static_cast<int>(std::max(low, -limit)), static_cast<int>(std::min(high, limit))};
}

Interval spread(int d, double step) {
  const double a = (d - 1) * step, b = (d + 1) * step;
  return {std::min(a, b), std::max(a, b)};
}

double gap2(Interval i) {
  const double gap = std::max({i.low, -i.high, 0.0});
  return gap * gap;
}

Interval operator+(Interval a, Interval b) {
  return {a.low + b.low, a.high + b.high};
}

/// All offsets between bins that can hold a pair within `reach`. In the frame where the bin edges are
/// triangular, z = (z1, 0, 0), y = (y1, y2, 0), x = (x1, x2, x3), the distance is bounded from below
/// component by component.
std::vector<Row> make_stencil(const Grid& grid, double reach) {
  std::array<Vec3, 3> edges;
  for (int a = 0; a < 3; ++a)
    edges[a] = (grid.axes[a].extent / grid.axes[a].bins) * row(grid.lattice.vectors, a);
  const double z1 = norm(edges[2]);
  const Vec3 e1 = (1.0 / z1) * edges[2];
  const double y1 = dot(edges[1], e1);
  const double y2 = norm(edges[1] - y1 * e1);
  const Vec3 e2 = (1.0 / y2) * (edges[1] - y1 * e1);
  const double x1 = dot(edges[0], e1), x2 = dot(edges[0], e2);
  const double x3 = norm(edges[0] - x1 * e1 - x2 * e2);

  std::vector<Row> rows;
  const Range x = bin_range(x3, {0, 0}, reach, grid.axes[0]);
  for (int dx = x.first; dx <= x.last; ++dx) {
    const double reach2 = reach * reach - gap2(spread(dx, x3));
    if (reach2 < 0) continue;
    const Range y = bin_range(y2, spread(dx, x2), std::sqrt(reach2), grid.axes[1]);
    for (int dy = y.first; dy <= y.last; ++dy) {
      const double left = reach2 - gap2(spread(dy, y2) + spread(dx, x2));
      if (left < 0) continue;
      const Range z = bin_range(z1, spread(dy, y1) + spread(dx, x1), std::sqrt(left), grid.axes[2]);
      if (z.first <= z.last) rows.push_back({dx, dy, z.first, z.last});
    }
  }
  return rows;
}

int floor_divide(int a, int b) {
  return a >= 0 ? a / b : -((b - 1 - a) / b);
}

/// Where a bin index, which may lie beyond the ends of the axis, leads to.
struct Place {
  std::int32_t base;   // contribution to the bin's number; -1: nowhere
  std::int32_t image;  // lattice translation
  Vec3 offset;         // image · lattice vector
};

class Places {
 public:
  Places(const Grid& grid, int a, int first, int last, std::int32_t stride) : first_(first) {
    const Axis& axis = grid.axes[a];
    for (int b = first; b <= last; ++b) {
      const int image = floor_divide(b, axis.bins);
      const bool nowhere = image != 0 && !axis.tiled;
      places_.push_back({nowhere ? -1 : (b - image * axis.bins) * stride, image,
                         double(image) * row(grid.lattice.vectors, a)});
    }
  }
  const Place& operator[](int bin) const { return places_[bin - first_]; }

 private:
  int first_;
  std::vector<Place> places_;
};

/// The pairs of consecutive centers, as one thread finds them. Arrays are longer than what is filled.
struct Part {
  std::vector<std::int32_t> neighbors;
  std::vector<Shift> shifts;
  std::size_t size = 0;

  void make_room(std::size_t count) {
    if (size + count <= neighbors.size()) return;
    neighbors.resize(std::max(size + count, neighbors.size() + neighbors.size() / 2));
    shifts.resize(neighbors.size());
  }
};

class Search {
 public:
  Search(const Grid& grid, Span<const double> positions, double cutoff)
      : grid_(grid),
        positions_(positions),
        cutoff_(cutoff),
        rows_(make_stencil(grid, cutoff + grid.round_off)),
        inner2_(square(std::max(0.0, cutoff - grid.round_off))),
        outer2_(square(cutoff + grid.round_off)),
        x_(places(0, rows_.front().dx, rows_.back().dx, grid.axes[1].bins * grid.axes[2].bins)),
        y_(places_y()) {}

  /// Appends the pairs of one center.
  void center(std::size_t i, Part& part) const {
    const auto [bx, by, bz] = bin_coordinates(grid_.bin[i]);
    const std::int32_t self = grid_.rank[i];
    const Vec3 r{grid_.x[self], grid_.y[self], grid_.z[self]};
    const int nz = grid_.axes[2].bins;
    const bool tiled = grid_.axes[2].tiled;
    for (const Row& row : rows_) {
      const Place& px = x_[bx + row.dx];
      const Place& py = y_[by + row.dy];
      if (px.base < 0 || py.base < 0) continue;
      const Vec3 shifted = r - px.offset - py.offset;
      const std::int32_t* start = grid_.start.data() + px.base + py.base;
      int first = bz + row.z_first, last = bz + row.z_last;
      if (!tiled) first = std::max(first, 0), last = std::min(last, nz - 1);
      if (first > last) continue;
      int image = floor_divide(first, nz);
      for (int base = image * nz; base <= last; base += nz, ++image) {
        const Shift shift{px.image - grid_.wrap[self][0], py.image - grid_.wrap[self][1],
                          image - grid_.wrap[self][2]};
        const Vec3 c = shifted - double(image) * nearsight::row(grid_.lattice.vectors, 2);
        const std::int32_t begin = start[std::max(first - base, 0)],
                           end = start[std::min(last - base, nz - 1) + 1];
        if (begin <= self && self < end && px.image == 0 && py.image == 0 && image == 0) {
          run(i, c, shift, begin, self, part);
          run(i, c, shift, self + 1, end, part);
        } else {
          run(i, c, shift, begin, end, part);
        }
      }
    }
  }

 private:
  static double square(double v) { return v * v; }

  std::array<int, 3> bin_coordinates(std::int32_t bin) const {
    const int ny = grid_.axes[1].bins, nz = grid_.axes[2].bins;
    return {bin / nz / ny, bin / nz % ny, bin % nz};
  }

  Places places(int a, int first, int last, std::int32_t stride) const {
    return Places(grid_, a, first, last + grid_.axes[a].bins, stride);
  }

  Places places_y() const {
    const auto [low, high] = std::minmax_element(rows_.begin(), rows_.end(),
                                                 [](const Row& a, const Row& b) { return a.dy < b.dy; });
    return places(1, low->dy, high->dy, grid_.axes[2].bins);
  }

  /// Appends the atoms of ranks [begin, end) that are within the cutoff of c.
  void run(std::size_t i, const Vec3& c, const Shift& shift, std::int32_t begin, std::int32_t end,
           Part& part) const {
    if (begin >= end) return;
    part.make_room(end - begin);
    std::int32_t* found = part.neighbors.data() + part.size;
    const double *x = grid_.x.data(), *y = grid_.y.data(), *z = grid_.z.data();
    std::int32_t count = 0, certain = 0;
    for (std::int32_t k = begin; k < end; ++k) {
      const double dx = x[k] - c[0], dy = y[k] - c[1], dz = z[k] - c[2];
      const double d2 = dx * dx + dy * dy + dz * dz;
      found[count] = k;
      count += d2 < outer2_;
      certain += d2 < inner2_;
    }
    Shift* shifts = part.shifts.data() + part.size;
    for (std::int32_t n = 0; n < count; ++n) {
      const Shift& w = grid_.wrap[found[n]];
      shifts[n] = {shift[0] + w[0], shift[1] + w[1], shift[2] + w[2]};
      found[n] = grid_.atom[found[n]];
    }
    if (certain != count) count = keep_within(i, found, shifts, count);
    part.size += count;
  }

  /// Some pair is so close to the cutoff that round-off could decide: the original positions do.
  std::int32_t keep_within(std::size_t i, std::int32_t* found, Shift* shifts, std::int32_t count) const {
    std::int32_t kept = 0;
    for (std::int32_t n = 0; n < count; ++n) {
      const Vec3 r = pair_vector(positions_, i, found[n], shifts[n], grid_.lattice.vectors);
      if (dot(r, r) >= cutoff_ * cutoff_) continue;
      found[kept] = found[n];
      shifts[kept++] = shifts[n];
    }
    return kept;
  }

  const Grid& grid_;
  Span<const double> positions_;
  double cutoff_;
  std::vector<Row> rows_;
  double inner2_, outer2_;
  Places x_, y_;
};

}  // namespace

void build_cell_list(Span<const double> positions, const Cell& cell, double cutoff, ThreadPool& threads,
                     NeighborList& list) {
  check_cutoff(cutoff);
  const std::size_t n = positions.size() / 3;
  const Grid grid = make_grid(positions, cell, cutoff, threads);
  const double expected = expected_pairs(grid, cutoff);
  if (expected > kMostPairs) {
    std::ostringstream message;
    message << "a cutoff of " << cutoff << " Å gives about " << expected << " neighbor pairs of " << n
            << " atoms, but at most " << kMostPairs
            << " are possible: check that cutoff, positions and cell are in Å";
    throw Error(ErrorKind::argument, message.str());
  }
  list.offsets.assign(n + 1, 0);
  const Search search(grid, positions, cutoff);
  std::vector<Part> parts(threads.size());
  parts[0].neighbors.swap(list.neighbors);
  parts[0].shifts.swap(list.shifts);
  threads.split(n, [&](int thread, std::size_t first, std::size_t last) {
    Part& part = parts[thread];
    part.make_room(static_cast<std::size_t>(1.1 * expected / threads.size()));
    for (std::size_t i = first; i < last; ++i) {
      const std::size_t before = part.size;
      search.center(i, part);
      list.offsets[i + 1] = static_cast<std::int64_t>(part.size - before);
    }
  });
  for (std::size_t i = 0; i < n; ++i) list.offsets[i + 1] += list.offsets[i];
  list.neighbors.swap(parts[0].neighbors);
  list.shifts.swap(parts[0].shifts);
  list.neighbors.resize(list.offsets[n]);
  list.shifts.resize(list.offsets[n]);
  threads.split(n, [&](int thread, std::size_t first, std::size_t) {
    if (thread == 0) return;
    const Part& part = parts[thread];
    std::copy_n(part.neighbors.begin(), part.size, list.neighbors.begin() + list.offsets[first]);
    std::copy_n(part.shifts.begin(), part.size, list.shifts.begin() + list.offsets[first]);
  });
}

}  // namespace nearsight
