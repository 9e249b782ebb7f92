#pragma once
#include <cstdint>

#include "core/engine/span.hpp"

namespace nearsight {

/// The edges of some centers, sorted by center: r_ij = r_j - r_i, only |r_ij| < cutoff, Å.
/// Atom numbers are those of the host's domain; ghosts and atoms outside the model (species -1) never are
/// rows.
struct Graph {
  Span<const int> species;           // [atoms of the domain]
  Span<const int> centers;           // [centers] atom; the first num_rows are owned, ghost centers follow
  std::size_t num_rows = 0;          // rows of the readouts
  Span<const std::int64_t> offsets;  // [centers + 1] first edge of each center
  Span<const int> neighbors;         // [edges] atom j
  Span<const double> vectors;        // [3 * edges]

  std::size_t num_edges() const { return neighbors.size(); }
};

}  // namespace nearsight
