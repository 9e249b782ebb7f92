#include <algorithm>
#include <cmath>

#include "core/neighbors/grid.hpp"

namespace nearsight {
namespace {

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

Interval sum(Interval a, Interval b) {
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
      const double left = reach2 - gap2(sum(spread(dy, y2), spread(dx, x2)));
      if (left < 0) continue;
      const Range z = bin_range(z1, sum(spread(dy, y1), spread(dx, x1)), std::sqrt(left), grid.axes[2]);
      if (z.first <= z.last) rows.push_back({dx, dy, z.first, z.last});
    }
  }
  return rows;
}

int floor_divide(int a, int b) {
  return a >= 0 ? a / b : -((b - 1 - a) / b);
}

/// Neighbors of one center in one image of the cell.
struct Run {
  std::int32_t atom;
  std::int32_t count;
  Shift image;
};

/// Pairs as one thread finds them, center after center.
struct Part {
  std::vector<Run> runs;
  std::vector<std::int32_t> found;  // ranks of the neighbors; longer than what is filled
  std::size_t size = 0;

  void make_room(std::size_t count) {
    if (size + count > found.size()) found.resize(std::max(size + count, found.size() + found.size() / 2));
  }

  void add(std::int32_t atom, const Shift& image, std::int32_t count) {
    if (count == 0) return;
    size += count;
    if (!runs.empty() && runs.back().atom == atom && runs.back().image == image)
      runs.back().count += count;
    else
      runs.push_back({atom, count, image});
  }
};

/// A row of bins as it lies around a column of bins (those that differ only along the last axis).
struct Line {
  const std::int32_t* start;  // first atoms of its bins
  Shift image;                // of the first two axes
  int z_first, z_last;        // bins in reach, relative to the bin of the center
};

class Search {
 public:
  Search(const Grid& grid, Span<const double> positions, double cutoff)
      : grid_(grid),
        positions_(positions),
        cutoff_(cutoff),
        inner_(std::max(0.0, cutoff - grid.round_off)),
        outer_(cutoff + grid.round_off),
        rows_(make_stencil(grid, outer_)) {}

  /// All pairs of the atoms with ranks [first, last).
  void find(std::size_t first, std::size_t last, Part& part) const {
    std::vector<Line> lines;
    int column = -1;
    for (std::size_t self = first; self < last; ++self) {
      const std::int32_t bin = grid_.bin[grid_.atom[self]], nz = grid_.axes[2].bins;
      if (bin / nz != column) {
        column = bin / nz;
        lines = lines_around(column);
      }
      for (const Line& line : lines) scan(static_cast<std::int32_t>(self), bin % nz, line, part);
    }
  }

 private:
  std::vector<Line> lines_around(int column) const {
    const Axis &x = grid_.axes[0], &y = grid_.axes[1];
    std::vector<Line> lines;
    for (const Row& row : rows_) {
      const int bx = column / y.bins + row.dx, by = column % y.bins + row.dy;
      const Shift image{floor_divide(bx, x.bins), floor_divide(by, y.bins), 0};
      if ((image[0] != 0 && !x.tiled) || (image[1] != 0 && !y.tiled)) continue;
      const int target = (bx - image[0] * x.bins) * y.bins + by - image[1] * y.bins;
      lines.push_back({grid_.start.data() + target * grid_.axes[2].bins, image, row.z_first, row.z_last});
    }
    return lines;
  }

  /// The neighbors of one center in one line, image after image.
  void scan(std::int32_t self, int bz, const Line& line, Part& part) const {
    const Axis& z = grid_.axes[2];
    int first = bz + line.z_first, last = bz + line.z_last;
    if (!z.tiled) first = std::max(first, 0), last = std::min(last, z.bins - 1);
    if (first > last) return;
    Shift image = line.image;
    for (image[2] = floor_divide(first, z.bins); image[2] * z.bins <= last; ++image[2]) {
      const int base = image[2] * z.bins;
      const std::int32_t begin = line.start[std::max(first - base, 0)];
      const std::int32_t end = line.start[std::min(last - base, z.bins - 1) + 1];
      const bool has_self = image == Shift{} && begin <= self && self < end;
      compare(self, image, begin, has_self ? self : end, part);
      if (has_self) compare(self, image, self + 1, end, part);
    }
  }

  /// Appends the atoms of ranks [begin, end) whose images are within the cutoff of the center.
  void compare(std::int32_t self, const Shift& image, std::int32_t begin, std::int32_t end,
               Part& part) const {
    if (begin >= end) return;
    part.make_room(end - begin);
    const Vec3 c = Vec3{grid_.x[self], grid_.y[self], grid_.z[self]} - translation(image, grid_.lattice);
    const double *x = grid_.x.data(), *y = grid_.y.data(), *z = grid_.z.data();
    const double inner2 = inner_ * inner_, outer2 = outer_ * outer_;
    std::int32_t* found = part.found.data() + part.size;
    std::int32_t count = 0, certain = 0;
    for (std::int32_t k = begin; k < end; ++k) {
      const double dx = x[k] - c[0], dy = y[k] - c[1], dz = z[k] - c[2];
      const double d2 = dx * dx + dy * dy + dz * dz;
      found[count] = k;  // kept by advancing: no branch that cannot be predicted
      count += d2 < outer2;
      certain += d2 < inner2;
    }
    if (certain != count) count = keep_within(self, image, found, count);
    part.add(grid_.atom[self], image, count);
  }

  /// Some pair is so close to the cutoff that round-off could decide: the original positions do.
  std::int32_t keep_within(std::int32_t self, const Shift& image, std::int32_t* found,
                           std::int32_t count) const {
    std::int32_t kept = 0;
    for (std::int32_t n = 0; n < count; ++n) {
      const Shift shift = image + grid_.wrap[found[n]] - grid_.wrap[self];
      const Vec3 r =
          pair_vector(positions_, grid_.atom[self], grid_.atom[found[n]], shift, grid_.lattice.vectors);
      if (dot(r, r) < cutoff_ * cutoff_) found[kept++] = found[n];
    }
    return kept;
  }

  const Grid& grid_;
  Span<const double> positions_;
  double cutoff_, inner_, outer_;
  std::vector<Row> rows_;
};

/// Writes the pairs of a part to their places in the list.
void copy_to_list(const Grid& grid, const Part& part, NeighborList& list) {
  std::int32_t atom = -1;
  std::size_t to = 0, from = 0;
  for (const Run& run : part.runs) {
    if (run.atom != atom) to = list.offsets[run.atom];
    atom = run.atom;
    const Shift unwrap = run.image - grid.wrap[grid.rank[atom]];
    for (std::int32_t n = 0; n < run.count; ++n, ++to, ++from) {
      list.neighbors[to] = grid.atom[part.found[from]];
      list.shifts[to] = unwrap + grid.wrap[part.found[from]];
    }
  }
}

}  // namespace

void build_cell_list(Span<const double> positions, const Cell& cell, double cutoff, ThreadPool& threads,
                     NeighborList& list) {
  check_cutoff(cutoff);
  const std::size_t n = positions.size() / 3;
  const Grid grid = make_grid(positions, cell, cutoff, threads);
  const Search search(grid, positions, cutoff);
  std::vector<Part> parts(threads.size());
  list.offsets.assign(n + 1, 0);
  threads.split(n, [&](int thread, std::size_t first, std::size_t last) {
    Part& part = parts[thread];
    part.make_room(static_cast<std::size_t>(1.1 * grid.expected_pairs / threads.size()));
    search.find(first, last, part);
    for (const Run& run : part.runs) list.offsets[run.atom + 1] += run.count;
  });
  for (std::size_t i = 0; i < n; ++i) list.offsets[i + 1] += list.offsets[i];
  list.neighbors.resize(list.offsets[n]);
  list.shifts.resize(list.offsets[n]);
  threads.run([&](int thread) { copy_to_list(grid, parts[thread], list); });
}

}  // namespace nearsight
