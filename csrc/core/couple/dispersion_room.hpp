#pragma once
// What the sums of D3 share, here and on a GPU.
#include "core/couple/dispersion_kernels.hpp"
#include "core/mesh/periodic.hpp"

namespace nearsight {
namespace d3 {

constexpr double kSkin = 1.0;       // Å, of lists
constexpr double kSharpness = 4.0;  // k3 of D3
constexpr double kEdge = 1e-12;

/// The cell of a system, periodic in any directions, as one that is periodic in three: along open directions
/// there is room for the atoms and so much vacuum that their images are out of reach.
class Surrounding {
 public:
  /// Collective. Throws what complete and check_positions throw.
  Surrounding(Span<const double> positions, const Cell& cell, double reach, Ranks& ranks);

  Box box(const Cell& cell) const;

 private:
  double reach_;
  Vec3 heights_;  // along open directions, Å
};

/// A step is so far inside that pairs exactly at the cutoff, as in crystals, do not depend on round-off.
template <class T>
Window<T> make_window(double cutoff, double smoothing) {
  if (smoothing == 0) return {T(cutoff * cutoff), T(cutoff * cutoff * (1.0 - kEdge)), T(kStep)};
  const double start = cutoff - smoothing, length = cutoff * cutoff - start * start;
  return {T(cutoff * cutoff), T(start * start), T(1.0 / length)};
}

}  // namespace d3
}  // namespace nearsight
