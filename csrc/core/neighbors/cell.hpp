#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include "core/engine/span.hpp"
#include "core/neighbors/neighbor_list.hpp"

namespace nearsight {

using Vec3 = std::array<double, 3>;
using Mat3 = std::array<double, 9>;  // row-major
using Shift = std::array<std::int32_t, 3>;

inline Vec3 operator+(const Vec3& a, const Vec3& b) {
  return {a[0] + b[0], a[1] + b[1], a[2] + b[2]};
}
inline Vec3 operator-(const Vec3& a, const Vec3& b) {
  return {a[0] - b[0], a[1] - b[1], a[2] - b[2]};
}
inline Vec3 operator*(double s, const Vec3& a) {
  return {s * a[0], s * a[1], s * a[2]};
}
inline double dot(const Vec3& a, const Vec3& b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}
inline Shift operator+(const Shift& a, const Shift& b) {
  return {a[0] + b[0], a[1] + b[1], a[2] + b[2]};
}
inline Shift operator-(const Shift& a, const Shift& b) {
  return {a[0] - b[0], a[1] - b[1], a[2] - b[2]};
}
double norm(const Vec3& a);
Vec3 cross(const Vec3& a, const Vec3& b);
inline Vec3 row(const Mat3& m, int k) {
  return {m[3 * k], m[3 * k + 1], m[3 * k + 2]};
}
inline Vec3 point(Span<const double> positions, std::size_t i) {
  return {positions[3 * i], positions[3 * i + 1], positions[3 * i + 2]};
}

/// v · m, with v as a row.
inline Vec3 times(const Vec3& v, const Mat3& m) {
  return {v[0] * m[0] + v[1] * m[3] + v[2] * m[6], v[0] * m[1] + v[1] * m[4] + v[2] * m[7],
          v[0] * m[2] + v[1] * m[5] + v[2] * m[8]};
}
Mat3 product(const Mat3& a, const Mat3& b);
double determinant(const Mat3& m);
Mat3 inverse(const Mat3& m);

/// A cell whose non-periodic rows are replaced by unit vectors orthogonal to all others.
struct Lattice {
  Mat3 vectors;
  Mat3 inverse;  // fractional coordinates are r · inverse; along a non-periodic direction they are Å
  Vec3 heights;  // distance between opposite faces, Å
  std::array<bool, 3> pbc;
};

/// The vector of a lattice translation, Å.
inline Vec3 translation(const Shift& shift, const Lattice& lattice) {
  return times(Vec3{double(shift[0]), double(shift[1]), double(shift[2])}, lattice.vectors);
}

/// Throws Error (numeric) if a lattice vector of a periodic direction is not finite, or if the cell is
/// thinner than a thousandth of the cutoff in a periodic direction (flat cells, zero vectors, cells in the
/// wrong unit).
Lattice complete(const Cell& cell, double cutoff);

/// r_j - r_i + shift · cell. The one formula that decides whether a pair is inside the cutoff: exactly odd
/// under (i, j, S) -> (j, i, -S), so lists are symmetric to the last bit.
inline Vec3 pair_vector(Span<const double> positions, std::size_t i, std::size_t j, const Shift& shift,
                        const Mat3& vectors) {
  Vec3 r;
  for (int c = 0; c < 3; ++c) {
    const double image = shift[0] * vectors[c] + shift[1] * vectors[3 + c] + shift[2] * vectors[6 + c];
    r[c] = (positions[3 * j + c] - positions[3 * i + c]) + image;
  }
  return r;
}

/// Throws Error (argument) for a cutoff that is not positive and finite.
void check_cutoff(double cutoff);

/// Throws Error (numeric) naming the first atom whose position is not finite or absurdly far away; returns
/// the largest absolute coordinate.
double check_positions(Span<const double> positions, const Lattice& lattice);

}  // namespace nearsight
