#include "core/couple/dispersion_room.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace nearsight {
namespace d3 {

Surrounding::Surrounding(Span<const double> positions, const Cell& cell, double reach, Ranks& ranks)
    : reach_(reach) {
  const Lattice lattice = complete(cell, reach);
  check_positions(positions, lattice);
  std::array<double, 6> ends;
  ends.fill(-1e300);
  for (std::size_t i = 0; i < positions.size() / 3; ++i)
    for (int d = 0; d < 3; ++d) {
      const double height = dot(point(positions, i), row(lattice.vectors, d));
      ends[d] = std::max(ends[d], height);
      ends[3 + d] = std::max(ends[3 + d], -height);
    }
  const std::vector<double> all = ranks.gather({ends.data(), ends.size()});
  for (std::size_t k = 0; k < all.size(); ++k) ends[k % 6] = std::max(ends[k % 6], all[k]);
  for (int d = 0; d < 3; ++d) heights_[d] = reach + std::max(0.0, ends[d] + ends[3 + d]);
}

Box Surrounding::box(const Cell& cell) const {
  const Lattice lattice = complete(cell, reach_);
  Box box{};
  box.vectors = lattice.vectors;
  for (int k = 0; k < 9; ++k)
    if (!cell.pbc[k / 3]) box.vectors[k] *= heights_[k / 3];
  box.inverse = inverse(box.vectors);
  box.volume = std::abs(determinant(box.vectors));
  return box;
}

}  // namespace d3
}  // namespace nearsight
