#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/couple/couple.hpp"
#include "core/engine/ranks.hpp"

namespace nearsight {

enum class ChargeKind { fixed, projected, equilibrated };

/// The `couple` object of kind coulomb, docs/file_format.md.
struct ChargeRecord {
  ChargeKind kind;
  int channels;                        // independent charges of each atom
  bool weighted;                       // a readout says where the missing charge goes
  std::vector<double> values, widths;  // by species: e, only of fixed charges; Å, or empty: points
  double rtol;                         // of the mesh
  std::vector<double> hardness;        // eV/e² by species, and when the solution is good enough; only of
  double residual;                     // equilibrated charges
};

/// Throws Error (file) for numbers that do not belong together.
ChargeRecord read_charge_record(const std::string& text, std::size_t num_species);

/// How the charges of the atoms come about, and what the energy's dependence on them means for the readouts.
/// Potentials are in V, outer ones those of what is not a charge of the system. All but what tells constants
/// is collective, in this order.
class ChargeRule {
 public:
  /// Writes the potentials at charges[atoms] that the others make.
  using Potentials = std::function<void(Span<const double> charges, Span<double> potentials)>;

  virtual ~ChargeRule() = default;

  /// Columns of the readouts, behind the one of the energy.
  virtual int columns() const = 0;
  /// Whether no readout enters.
  virtual bool is_additive() const { return false; }
  /// Whether ChargeRule::differentiate knows all that charges depend on.
  virtual bool has_born_charges() const { return true; }
  /// As Couple::memory.
  virtual int memory() const { return 0; }

  /// Writes charges[channels][atoms], e; of those that depend on each other what they are without, which is
  /// good enough to choose a mesh.
  virtual void start(const Coupled& system, Span<const double> outer, Ranks& ranks, Span<double> charges) = 0;

  /// Makes the charges those that depend on each other. Returns how many potentials it took beside the first
  /// ones.
  virtual int settle(const Coupled&, const Potentials&, Ranks&, Span<double>) { return 0; }

  /// Adds to the cotangents, and what charges have for an energy beside ½ q φ, for potentials[atoms] of a
  /// channel, with outer ones.
  virtual void pull(const Coupled& system, int channel, Span<const double> charges,
                    Span<const double> potentials, Ranks& ranks, Joined& joined) = 0;

  /// Adds to Joined::charge_cotangents and shares.
  virtual void differentiate(Joined&) const {}
};

/// q_i = a number of the species, no readout. start throws Error (argument) if they do not add up to the
/// total charge, or the charge of each molecule, or in a periodic system without one not to 0.
std::unique_ptr<ChargeRule> make_fixed_charges(const ChargeRecord& record);

/// q_ci = p_ci + w_i (Q_c - Σ_j p_cj) / Σ_j w_j with the readouts p, and w = ln(1 + exp v) of the readout v
/// if weighted, else 1; in the order p_1 … p_C, v. Q_0 is the total charge, Q_1 … are 0. Where molecules have
/// charges, sums are over each of them, and Q_0 is its charge.
std::unique_ptr<ChargeRule> make_projected_charges(const ChargeRecord& record);

}  // namespace nearsight
