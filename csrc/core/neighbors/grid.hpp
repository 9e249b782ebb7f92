#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "core/neighbors/cell.hpp"

namespace nearsight {

/// One direction of the grid, in fractional coordinates of the completed cell.
struct Axis {
  double origin = 0, extent = 1;  // atoms lie in [origin, origin + extent] after wrapping
  bool tiled = false;  // images continue at either end; false: nothing within the cutoff beyond the ends
  int bins = 1;
};

/// Atoms moved into one cell and sorted by bin; the last axis runs fastest, so that neighboring bins along it
/// are neighboring memory. Arrays are indexed by rank, the place in that order, unless noted.
struct Grid {
  Lattice lattice;
  std::array<Axis, 3> axes;
  std::vector<std::int32_t> start;  // [bins + 1] first atom of each bin
  std::vector<double> x, y, z;      // wrapped positions, Å
  std::vector<Shift> wrap;          // lattice translation that wrapped the atom
  std::vector<std::int32_t> atom;   // rank -> atom
  std::vector<std::int32_t> rank;   // atom -> rank
  std::vector<std::int32_t> bin;    // atom -> bin
  double expected_pairs = 0;        // of a homogeneous system of this density
  double round_off = 0;             // Å; bound on the error of distances between wrapped positions

  std::size_t num_atoms() const { return atom.size(); }
};

/// Throws what check_positions and complete throw, and Error (argument) if the list would be absurdly long.
Grid make_grid(Span<const double> positions, const Cell& cell, double cutoff, ThreadPool& threads);

}  // namespace nearsight
