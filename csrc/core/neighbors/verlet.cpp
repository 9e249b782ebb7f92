#include <cmath>
#include <sstream>

#include "core/engine/error.hpp"
#include "core/neighbors/cell.hpp"

namespace nearsight {
namespace {

constexpr Mat3 kIdentity{1, 0, 0, 0, 1, 0, 0, 0, 1};

/// F = I + old⁻¹ (now - old): takes the periodic lattice vectors of `old` to those of `now` and changes
/// nothing else.
Mat3 deformation(const Lattice& old, const Cell& now) {
  Mat3 change{};
  for (int a = 0; a < 3; ++a)
    for (int c = 0; c < 3 && old.pbc[a]; ++c)
      change[3 * a + c] = now.vectors[3 * a + c] - old.vectors[3 * a + c];
  Mat3 f = product(old.inverse, change);
  for (int k = 0; k < 9; ++k) f[k] += kIdentity[k];
  return f;
}

double distance_from_identity(const Mat3& m) {
  double sum = 0;
  for (int k = 0; k < 9; ++k) sum += (m[k] - kIdentity[k]) * (m[k] - kIdentity[k]);
  return std::sqrt(sum);
}

}  // namespace

Skin::Skin(double cutoff, double skin) : cutoff_(cutoff), skin_(skin) {
  check_cutoff(cutoff);
  if (skin >= 0 && std::isfinite(skin)) return;
  std::ostringstream message;
  message << "the Verlet skin is " << skin
          << " Å, but it must be finite and not negative: give a skin in Å, or 0 for a "
          << "new list at every call";
  throw Error(ErrorKind::argument, message.str());
}

void Skin::start(Span<const double> positions, const Cell& cell) {
  positions_.assign(positions.begin(), positions.end());
  cell_ = cell;
  valid_ = skin_ > 0;
}

// The cell moves every atom from R0 to R0·F; delta = R - R0·F is what is left. A pair that is now at r was at
// r0 = (r - (delta_j - delta_i))·F⁻¹, so |r0| <= (|r| + 2 max|delta|)·|F⁻¹|, and |F⁻¹| <= 1 + |F⁻¹ - I|.
// Every pair with |r| < cutoff was therefore in the list if (cutoff + 2 max|delta|)·(1 + |F⁻¹ - I|) <= cutoff
// + skin. Comparisons are written so that NaN asks for a rebuild, which then names the culprit.
std::optional<Motion> allowed_motion(double cutoff, double reach, const Cell& old, const Cell& now) {
  if (now.pbc != old.pbc) return std::nullopt;
  const Mat3 f = deformation(complete(old, reach), now);
  const double stretch = 1.0 + distance_from_identity(inverse(f));
  const double allowed = 0.5 * (reach / stretch - cutoff);
  if (!(allowed >= 0)) return std::nullopt;
  return Motion{f, allowed};
}

bool Skin::holds(Span<const double> positions, const Cell& cell) const {
  if (!valid_ || positions.size() != positions_.size()) return false;
  const auto motion = allowed_motion(cutoff_, reach(), cell_, cell);
  if (!motion) return false;
  for (std::size_t i = 0; i < positions_.size() / 3; ++i) {
    const Vec3 affine = times(point(positions_, i), motion->deformation);
    const Vec3 delta = point(positions, i) - affine;
    if (!(dot(delta, delta) <= motion->allowed * motion->allowed)) return false;
  }
  return true;
}

const NeighborList& VerletList::update(Span<const double> positions, const Cell& cell, ThreadPool& threads) {
  if (!skin_.holds(positions, cell)) {
    skin_.stop();  // a build that throws leaves no list behind
    build_cell_list(positions, cell, skin_.reach(), threads, list_);
    skin_.start(positions, cell);
    ++num_builds_;
  }
  return list_;
}

}  // namespace nearsight
