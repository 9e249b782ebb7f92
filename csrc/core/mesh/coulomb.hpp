#pragma once
#include <array>
#include <vector>

#include "core/engine/span.hpp"
#include "core/engine/threads.hpp"
#include "core/engine/units.hpp"
#include "core/neighbors/neighbor_list.hpp"

namespace nearsight {

/// e² / (4π ε0), eV Å.
constexpr double kCoulomb = kHartree * kBohr;

/// Point charges or Gaussians ρ_i(r) = q_i exp(-r² / 2σ_i²) / (2π σ_i²)^(3/2); a width of 0 is a point.
struct Charges {
  Span<const double> positions;  // [3n] Å, need not be wrapped
  Span<const double> values;     // [n] e
  Span<const double> widths;     // [n] σ Å, or empty: points

  std::size_t size() const { return values.size(); }
  double width(std::size_t i) const { return widths.empty() ? 0.0 : widths[i]; }
  double max_width() const;
  /// The first `count` of them.
  Charges first(std::size_t count) const;
};

/// Electrostatics of charges: E = ½ Σ q_i φ_i, without the interaction of a charge with itself. In a periodic
/// system the k = 0 term of the potential is zero, whatever the net charge: a neutralizing background.
struct Coulomb {
  double energy = 0;               // eV
  std::array<double, 6> virial{};  // -dE/dε at constant charges and widths, xx yy zz xy xz yz, eV
  std::vector<double> potentials;  // [n] φ_i = dE/dq_i, V
  std::vector<double> fields;      // [3n] -dφ_i/dr_i, V/Å; the force on i is q_i times its row

  /// n charges, everything zero.
  void clear(std::size_t n);
  /// Adds scale · v ⊗ v.
  void add_virial(double scale, const std::array<double, 3>& v);
  /// From e/Å to V, and the energy from the potentials; `charges` are those with results.
  void finish(const Charges& charges);
};

/// Where the time of evaluations went, s.
struct PmeTimes {
  double total = 0;
  double communication = 0;  // exchanges, with waiting for other ranks
  double pairs = 0;          // the short-ranged part, with its list
  double charges = 0;        // to the mesh and back
  double transforms = 0;
  long lists = 0;  // of pairs that were made

  PmeTimes operator-(const PmeTimes& before) const;
};

/// Throws Error (argument) for arrays of different lengths, charges that are not finite and widths that are
/// not finite or negative.
void check_charges(const Charges& charges);

/// Open systems: the sum over all pairs of the first `own` charges with all charges, of which those after
/// them are other ranks'; results are of the own ones, without `fields` potentials alone. Throws Error
/// (numeric) for atoms on top of each other, and what check_charges and check_positions throw.
void direct_sum(const Charges& charges, std::size_t own, bool fields, Coulomb& result);

}  // namespace nearsight
