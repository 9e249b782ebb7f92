#include "core/couple/polarization.hpp"

#include "core/engine/edges.hpp"

namespace nearsight {

Mat3 open_directions(const Cell& cell) {
  const int directions = cell.pbc[0] + cell.pbc[1] + cell.pbc[2];
  if (directions == 0) return {1, 0, 0, 0, 1, 0, 0, 0, 1};
  Mat3 projection{};
  if (directions != 2) return projection;
  const int open = !cell.pbc[0] ? 0 : !cell.pbc[1] ? 1 : 2;
  const Vec3 normal = cross(row(cell.vectors, (open + 1) % 3), row(cell.vectors, (open + 2) % 3));
  const double scale = 1.0 / dot(normal, normal);
  for (int a = 0; a < 3; ++a)
    for (int b = 0; b < 3; ++b) projection[3 * a + b] = scale * normal[a] * normal[b];
  return projection;
}

void add_born_charges(const MovingCharges& moving, const Cell& cell, Span<double> born_charges) {
  const std::size_t rows = moving.owned.size();
  if (rows == 0) return;
  const std::size_t channels = moving.charges.size() / rows;
  const Mat3 free = open_directions(cell);
  Vec3 center{};
  Mat3 sum{};  // of the flows
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t i = moving.owned[row];
    center = center + moving.shares[row] * point(moving.positions, i);
    for (int k = 0; k < 9; ++k) sum[3 * kCentroidRow[k] + kCentroidColumn[k]] += moving.flows[9 * i + k];
  }
  // Along periodic directions there is no center: every atom takes its share of the mean.
  const Mat3 of_center = product(free, sum);
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t i = moving.owned[row];
    double* const born = born_charges.data() + 9 * i;
    const Vec3 distance = times(point(moving.positions, i) - center, free);
    for (int k = 0; k < 9; ++k) born[3 * kCentroidRow[k] + kCentroidColumn[k]] += moving.flows[9 * i + k];
    for (int a = 0; a < 3; ++a) {
      born[4 * a] += moving.charges[row * channels];
      for (int b = 0; b < 3; ++b)
        born[3 * a + b] -= distance[a] * moving.gradients[3 * i + b] +
                           moving.shares[row] * (sum[3 * a + b] - of_center[3 * a + b]);
    }
  }
}

}  // namespace nearsight
