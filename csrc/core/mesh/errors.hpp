#pragma once
// Estimates of the errors of forces.
#include <array>

#include "core/mesh/region.hpp"
#include "core/mesh/spline.hpp"

namespace nearsight {

constexpr int kMinOrder = 4;  // of B-splines

/// What error estimates know of the charges of all ranks.
struct ChargeSize {
  double num_charges = 0;
  double squares = 0;  // Σ q², e²
  double fourths = 0;  // Σ q⁴, e⁴
  double width = 0;    // the largest, Å
};

/// Collective.
ChargeSize measure(const Charges& charges, Ranks& ranks);

/// Error of forces from pairs beyond the cutoff, eV/Å: Kolafa and Perram, Mol. Simul. 9, 351 (1992).
double short_range_error(const ChargeSize& size, const Box& box, double alpha, double cutoff);

/// Error of forces from the mesh, eV/Å: the root mean square over independent places of the charges, to
/// leading orders of aliasing; with the force of a charge on itself.
double mesh_error(const ChargeSize& size, const Box& box, double alpha, int order,
                  const std::array<int, 3>& mesh);

/// The same for meshes that are fine against the box: there it is a function of α times the spacing, of which
/// this is a table.
class FineMeshErrors {
 public:
  FineMeshErrors();

  /// The coarsest spacing, Å, with an error of at most `error`, eV/Å.
  double spacing(const ChargeSize& size, const Box& box, double alpha, int order, double error) const;

 private:
  static constexpr int kPlaces = 64;
  struct Errors {
    double pairs, own;  // at α = 1/Å: of unit charges on each other, times √V, and of each on itself
  };

  std::array<std::array<Errors, kPlaces>, kMaxOrder - kMinOrder + 1> tables_;
};

/// Å, from which the spacing of a mesh is looked for.
inline double coarsest_spacing(double alpha) {
  return 1.5 / alpha;
}

}  // namespace nearsight
