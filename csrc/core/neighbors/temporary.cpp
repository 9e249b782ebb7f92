// Replaced by the linked cells within the hour: orthogonal-ish brute force so that the hosts can be tried.
#include <algorithm>
#include <cmath>

#include "core/neighbors/neighbor_list.hpp"

namespace nearsight {
void build_cell_list(Span<const double> x, const Cell& cell, double cutoff, ThreadPool&, NeighborList& list) {
  const std::size_t n = x.size() / 3;
  const double* h = cell.vectors.data();
  int reach[3] = {0, 0, 0};
  for (int a = 0; a < 3; ++a)
    if (cell.pbc[a]) reach[a] = 3;
  list.offsets.assign(1, 0);
  list.neighbors.clear();
  list.shifts.clear();
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j)
      for (int a = -reach[0]; a <= reach[0]; ++a)
        for (int b = -reach[1]; b <= reach[1]; ++b)
          for (int c = -reach[2]; c <= reach[2]; ++c) {
            if (i == j && !a && !b && !c) continue;
            double r2 = 0;
            for (int k = 0; k < 3; ++k) {
              const double d = x[3 * j + k] - x[3 * i + k] + a * h[k] + b * h[3 + k] + c * h[6 + k];
              r2 += d * d;
            }
            if (r2 < cutoff * cutoff) {
              list.neighbors.push_back(static_cast<int>(j));
              list.shifts.push_back({a, b, c});
            }
          }
    list.offsets.push_back(static_cast<std::int64_t>(list.neighbors.size()));
  }
}
const NeighborList& VerletList::update(Span<const double> x, const Cell& cell, ThreadPool& threads) {
  build_cell_list(x, cell, cutoff_ + skin_, threads, list_);
  ++num_builds_;
  return list_;
}
}  // namespace nearsight
