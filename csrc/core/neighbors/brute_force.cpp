#include <cmath>

#include "core/neighbors/cell.hpp"

namespace nearsight {

void build_brute_force(Span<const double> positions, const Cell& cell, double cutoff, NeighborList& list) {
  check_cutoff(cutoff);
  const Lattice lattice = complete(cell, cutoff);
  check_positions(positions, lattice);
  const std::size_t num_atoms = positions.size() / 3;
  list.offsets.assign(1, 0);
  list.neighbors.clear();
  list.shifts.clear();
  for (std::size_t i = 0; i < num_atoms; ++i) {
    for (std::size_t j = 0; j < num_atoms; ++j) {
      // Planes of images are `height` apart: only these translations can bring j into reach of i.
      const Vec3 fraction = times(pair_vector(positions, i, j, Shift{}, lattice.vectors), lattice.inverse);
      Shift first{}, last{};
      for (int a = 0; a < 3; ++a) {
        if (!lattice.pbc[a]) continue;
        const double reach = cutoff / lattice.heights[a] + 1e-3;
        first[a] = static_cast<std::int32_t>(std::ceil(-fraction[a] - reach));
        last[a] = static_cast<std::int32_t>(std::floor(-fraction[a] + reach));
      }
      Shift s;
      for (s[0] = first[0]; s[0] <= last[0]; ++s[0])
        for (s[1] = first[1]; s[1] <= last[1]; ++s[1])
          for (s[2] = first[2]; s[2] <= last[2]; ++s[2]) {
            const Vec3 r = pair_vector(positions, i, j, s, lattice.vectors);
            const bool itself = i == j && s == Shift{};
            if (itself || dot(r, r) >= cutoff * cutoff) continue;
            list.neighbors.push_back(static_cast<std::int32_t>(j));
            list.shifts.push_back(s);
          }
    }
    list.offsets.push_back(static_cast<std::int64_t>(list.neighbors.size()));
  }
}

}  // namespace nearsight
