#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "core/engine/span.hpp"
#include "core/engine/threads.hpp"

namespace nearsight {

/// Simulation cell: rows of `vectors` are the lattice vectors, Å. Rows of non-periodic directions are
/// ignored.
struct Cell {
  std::array<double, 9> vectors{};
  std::array<bool, 3> pbc{};
};

/// Full directed neighbor list, sorted by center: pair k of center i has r_ij = r_j - r_i + shift · cell.
/// Holds all pairs (also i with its own images) with |r_ij| < cutoff.
struct NeighborList {
  std::vector<std::int64_t> offsets;    // [num_atoms + 1]
  std::vector<std::int32_t> neighbors;  // [num_pairs] j
  std::vector<std::array<std::int32_t, 3>>
      shifts;  // [num_pairs] lattice translations, for unwrapped positions
};

/// Linked cells, O(N): any triclinic cell, any mix of periodic directions, cells smaller than the cutoff.
/// Throws Error (numeric) for a degenerate cell or positions that are not finite, (argument) for a bad
/// cutoff.
void build_cell_list(Span<const double> positions, const Cell& cell, double cutoff, ThreadPool& threads,
                     NeighborList& list);

/// The same by trying every image of every pair: the oracle in the tests.
void build_brute_force(Span<const double> positions, const Cell& cell, double cutoff, NeighborList& list);

/// A list with cutoff + skin that is kept until atoms have moved so far that a pair could be missing.
class VerletList {
 public:
  VerletList(double cutoff, double skin);

  /// The list for these positions; rebuilt when needed. It holds all pairs within the cutoff, and others up
  /// to cutoff + skin. Cell changes are followed without a rebuild while the affine strain leaves the skin
  /// intact.
  const NeighborList& update(Span<const double> positions, const Cell& cell, ThreadPool& threads);

  long num_builds() const { return num_builds_; }

 private:
  bool still_valid(Span<const double> positions, const Cell& cell) const;

  double cutoff_, skin_;
  NeighborList list_;
  Cell cell_;
  std::vector<double> positions_;
  bool valid_ = false;
  long num_builds_ = 0;
};

}  // namespace nearsight
