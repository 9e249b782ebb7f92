#include "core/neighbors/cell.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "core/engine/error.hpp"

namespace nearsight {
namespace {

constexpr double kFarthest = 1e9;   // Å; beyond it round-off would reach the distances themselves
constexpr double kMostCells = 1e8;  // cells between the origin and an atom, so that shifts fit 32 bits
constexpr double kThinnest = 1e-3;  // height of a periodic cell over the cutoff

std::string text(const Vec3& v) {
  std::ostringstream out;
  out << "(" << v[0] << ", " << v[1] << ", " << v[2] << ")";
  return out.str();
}

Vec3 unit(const Vec3& v) {
  return (1.0 / norm(v)) * v;
}

/// A unit vector orthogonal to v.
Vec3 orthogonal(const Vec3& v) {
  int smallest = 0;
  for (int k = 1; k < 3; ++k)
    if (std::abs(v[k]) < std::abs(v[smallest])) smallest = k;
  Vec3 axis{};
  axis[smallest] = 1.0;
  return unit(cross(v, axis));
}

void set_row(Mat3& m, int k, const Vec3& v) {
  for (int c = 0; c < 3; ++c) m[3 * k + c] = v[c];
}

void fill_open_rows(Mat3& m, const std::array<bool, 3>& pbc) {
  const int periodic = pbc[0] + pbc[1] + pbc[2];
  if (periodic == 0) {
    m = {1, 0, 0, 0, 1, 0, 0, 0, 1};
  } else if (periodic == 1) {
    const int a = pbc[0] ? 0 : pbc[1] ? 1 : 2, b = (a + 1) % 3, c = (a + 2) % 3;
    set_row(m, b, orthogonal(row(m, a)));
    set_row(m, c, unit(cross(row(m, a), row(m, b))));
  } else if (periodic == 2) {
    const int a = !pbc[0] ? 0 : !pbc[1] ? 1 : 2;
    set_row(m, a, unit(cross(row(m, (a + 1) % 3), row(m, (a + 2) % 3))));
  }
}

}  // namespace

double norm(const Vec3& a) {
  return std::sqrt(dot(a, a));
}

Vec3 cross(const Vec3& a, const Vec3& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

Mat3 product(const Mat3& a, const Mat3& b) {
  Mat3 ab;
  for (int k = 0; k < 3; ++k) set_row(ab, k, times(row(a, k), b));
  return ab;
}

double determinant(const Mat3& m) {
  return dot(row(m, 0), cross(row(m, 1), row(m, 2)));
}

Mat3 inverse(const Mat3& m) {
  const double scale = 1.0 / determinant(m);
  Mat3 result;
  for (int k = 0; k < 3; ++k) {
    const Vec3 column = scale * cross(row(m, (k + 1) % 3), row(m, (k + 2) % 3));
    for (int r = 0; r < 3; ++r) result[3 * r + k] = column[r];
  }
  return result;
}

Lattice complete(const Cell& cell, double cutoff) {
  for (int k = 0; k < 3; ++k) {
    const Vec3 v = row(cell.vectors, k);
    if (cell.pbc[k] && !(std::abs(v[0]) + std::abs(v[1]) + std::abs(v[2]) < kFarthest))
      throw Error(ErrorKind::numeric,
                  "cell vector " + std::to_string(k) + " is " + text(v) +
                      " Å, but vectors of periodic directions must be finite and below 1e9 Å: "
                      "correct the cell, or make the direction non-periodic");
  }
  Lattice lattice{cell.vectors, {}, {}, cell.pbc};
  fill_open_rows(lattice.vectors, cell.pbc);
  const double volume = std::abs(determinant(lattice.vectors));
  for (int k = 0; k < 3; ++k) {
    const Vec3 normal = cross(row(lattice.vectors, (k + 1) % 3), row(lattice.vectors, (k + 2) % 3));
    lattice.heights[k] = volume / norm(normal);
    if (cell.pbc[k] && !(lattice.heights[k] >= kThinnest * cutoff)) {
      std::ostringstream message;
      message << "the cell is " << (lattice.heights[k] > 0 ? lattice.heights[k] : 0.0)
              << " Å thick along periodic direction " << k
              << " (volume over opposite face), but it must be at least " << kThinnest * cutoff
              << " Å (a thousandth of the cutoff): give independent lattice vectors in Å, or make "
              << "the direction non-periodic";
      throw Error(ErrorKind::numeric, message.str());
    }
  }
  lattice.inverse = inverse(lattice.vectors);
  return lattice;
}

void check_cutoff(double cutoff) {
  if (cutoff > 0 && cutoff <= std::numeric_limits<float>::max()) return;
  std::ostringstream message;
  message << "the neighbor cutoff is " << cutoff
          << " Å, but it must be positive and finite: give a cutoff in Å";
  throw Error(ErrorKind::argument, message.str());
}

double check_positions(Span<const double> positions, const Lattice& lattice) {
  double limit = kFarthest;
  for (int k = 0; k < 3; ++k)
    if (lattice.pbc[k]) limit = std::min(limit, kMostCells * lattice.heights[k]);
  double largest = 0;
  for (std::size_t k = 0; k < positions.size(); ++k) {
    if (!(std::abs(positions[k]) <= limit)) {
      const std::size_t atom = k / 3;
      std::ostringstream message;
      message << "atom " << atom << " is at " << text(point(positions, atom))
              << " Å, but positions must be finite and within " << limit
              << " Å of the origin: correct the input, or "
              << "use a smaller time step if a simulation has blown up";
      throw Error(ErrorKind::numeric, message.str());
    }
    largest = std::max(largest, std::abs(positions[k]));
  }
  return largest;
}

}  // namespace nearsight
