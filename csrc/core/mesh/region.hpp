#pragma once
// Where the atoms of each rank are, and those of other ranks near them.
#include <vector>

#include "core/engine/ranks.hpp"
#include "core/mesh/periodic.hpp"

namespace nearsight {

/// The smallest brick of a periodic box around all atoms of a rank, wherever their images are: fractional
/// coordinates from `low` to `high`, across the end of the cell where high < low.
struct Region {
  Vec3 low{}, high{};
  bool empty = true;

  double length(int d) const { return high[d] - low[d] + (high[d] < low[d] ? 1.0 : 0.0); }
};

/// Fractional coordinates in [0, 1), and the lattice translation that leads there.
struct Wrapped {
  Vec3 fractions;
  Shift shift;
};
Wrapped wrap(Span<const double> positions, std::size_t i, const Box& box);
inline Vec3 fractions(Span<const double> positions, std::size_t i, const Box& box) {
  return wrap(positions, i, box).fractions;
}

/// [ranks]. Collective.
std::vector<Region> find_regions(Span<const double> positions, const Box& box, Ranks& ranks);

/// The atoms of a rank, followed by those of other ranks that they see. All members are collective.
class Surroundings {
 public:
  /// Chooses those of which an image may be within the cutoff of an own atom.
  void choose_near(double cutoff, Span<const double> positions, const Box& box,
                   const std::vector<Region>& regions, Ranks& ranks);
  /// Chooses those of all ranks.
  void choose_all(std::size_t own, Ranks& ranks);

  /// The rows of own atoms, `width` numbers for each, and then those of the others that were chosen.
  std::vector<double> collect(Span<const double> own, std::size_t width, Ranks& ranks) const;

 private:
  /// wanted(rank): indices of own atoms that it gets.
  template <class Wanted>
  void choose(Ranks& ranks, const Wanted& wanted);

  std::vector<std::size_t> sent_;           // own atoms, those for rank 0 first
  std::vector<std::size_t> given_, taken_;  // [ranks] atoms that are sent and received
};

/// The same of charges.
class ChargeSurroundings {
 public:
  /// Those of which an image may be within the cutoff of an own charge. The result is valid until the next
  /// call and as long as `own`.
  Charges within(double cutoff, const Charges& own, const Box& box, const std::vector<Region>& regions,
                 Ranks& ranks);

  /// The same ones as in the last call, where they are now.
  Charges again(const Charges& own, Ranks& ranks);

  /// Those of all ranks. Throws what check_charges throws.
  Charges all(const Charges& own, Ranks& ranks);

 private:
  Surroundings chosen_;
  std::vector<double> positions_, values_, widths_;
};

}  // namespace nearsight
