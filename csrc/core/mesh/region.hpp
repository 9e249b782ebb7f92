#pragma once
// Where the charges of each rank are, and those of other ranks near them.
#include <vector>

#include "core/engine/ranks.hpp"
#include "core/mesh/periodic.hpp"

namespace nearsight {

/// The smallest brick of a periodic box around all charges of a rank, wherever their images are: fractional
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
Wrapped wrap(const Charges& charges, std::size_t i, const Box& box);
inline Vec3 fractions(const Charges& charges, std::size_t i, const Box& box) {
  return wrap(charges, i, box).fractions;
}

/// [ranks]. Collective.
std::vector<Region> find_regions(const Charges& charges, const Box& box, Ranks& ranks);

/// The charges of a rank, followed by those of other ranks that they see.
class Surroundings {
 public:
  /// Those of which an image may be within the cutoff of an own charge. Collective. The result is valid until
  /// the next call and as long as `own`.
  Charges within(double cutoff, const Charges& own, const Box& box, const std::vector<Region>& regions,
                 Ranks& ranks);

  /// The same ones as in the last call, where they are now.
  Charges again(const Charges& own, Ranks& ranks);

  /// Those of all ranks. Collective. Throws what check_charges throws.
  Charges all(const Charges& own, Ranks& ranks);

 private:
  /// wanted(rank): indices of own charges that it gets.
  template <class Wanted>
  Charges exchange(const Charges& own, Ranks& ranks, const Wanted& wanted);

  std::vector<std::size_t> sent_;           // own charges, those for rank 0 first
  std::vector<std::size_t> given_, taken_;  // [ranks] numbers that are sent and received
  std::vector<double> positions_, values_, widths_;
};

}  // namespace nearsight
