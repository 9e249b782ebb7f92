#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/engine/span.hpp"
#include "core/engine/threads.hpp"

namespace nearsight {

/// Simulation cell: rows of `vectors` are the lattice vectors, Å; those of non-periodic directions are
/// ignored.
struct Cell {
  std::array<double, 9> vectors{};
  std::array<bool, 3> pbc{};
};

/// Full directed neighbor list, sorted by center: pair k of center i has r_ij = r_j - r_i + shift · cell.
/// Holds all pairs (also i with its own images) with |r_ij| < cutoff, and with (i, j, S) always (j, i, -S).
/// Within a center neighbors come in the order of the bins that hold them: the same for any number of
/// threads, but not sorted by index, and another one when atoms have moved to other bins.
struct NeighborList {
  std::vector<std::int64_t> offsets;                // [num_atoms + 1]
  std::vector<std::int32_t> neighbors;              // [num_pairs] j
  std::vector<std::array<std::int32_t, 3>> shifts;  // [num_pairs] translations, for positions as given
};

/// Linked cells, O(N): any triclinic cell, any mix of periodic directions, cells smaller than the cutoff.
/// Vacuum wider than the cutoff is skipped, in periodic directions too. Throws Error (numeric) for a flat
/// cell or positions that are not finite or absurdly far away, (argument) for a cutoff that is not positive
/// and finite or gives more than 2^32 pairs.
void build_cell_list(Span<const double> positions, const Cell& cell, double cutoff, ThreadPool& threads,
                     NeighborList& list);

/// The same by trying every image of every pair: the oracle in the tests.
void build_brute_force(Span<const double> positions, const Cell& cell, double cutoff, NeighborList& list);

/// How a list that was made for another cell is followed: a pair within the cutoff now is in the list while
/// no atom is further than `allowed`, Å, from its former position · deformation.
struct Motion {
  std::array<double, 9> deformation;
  double allowed;
};
/// Nothing where the cells alone rule it out.
std::optional<Motion> allowed_motion(double cutoff, double reach, const Cell& old, const Cell& now);

/// Tells how long a list that was made with cutoff + skin holds all pairs within the cutoff.
class Skin {
 public:
  /// skin 0: not at all. Throws Error (argument) for a bad cutoff or a negative skin.
  Skin(double cutoff, double skin);

  double reach() const { return cutoff_ + skin_; }

  /// A list was made for these.
  void start(Span<const double> positions, const Cell& cell);
  /// There is no list.
  void stop() { valid_ = false; }
  /// Whether it holds all pairs now: until atoms have moved so far that one could be missing. A changing cell
  /// is followed while its strain, with what atoms have moved on top of it, leaves the skin intact.
  bool holds(Span<const double> positions, const Cell& cell) const;

 private:
  double cutoff_, skin_;
  Cell cell_;
  std::vector<double> positions_;
  bool valid_ = false;
};

/// A list with cutoff + skin that is kept while it holds all pairs.
class VerletList {
 public:
  /// skin 0: a new list at every update. Throws what Skin throws.
  VerletList(double cutoff, double skin) : skin_(cutoff, skin) {}

  /// The list for these positions; rebuilt when needed. It holds all pairs within the cutoff and others up to
  /// about cutoff + skin. Throws as build_cell_list does.
  const NeighborList& update(Span<const double> positions, const Cell& cell, ThreadPool& threads);

  long num_builds() const { return num_builds_; }

 private:
  Skin skin_;
  NeighborList list_;
  long num_builds_ = 0;
};

}  // namespace nearsight
