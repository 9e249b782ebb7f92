#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "core/couple/equilibration.hpp"
#include "core/couple/polarization.hpp"
#include "core/engine/error.hpp"
#include "core/engine/warning.hpp"
#include "core/mesh/pme.hpp"

namespace nearsight {
namespace {

constexpr double kRoundOff = 1e-6;  // of a field

std::unique_ptr<ChargeRule> make_rule(const ChargeRecord& record, const std::vector<std::string>& species) {
  switch (record.kind) {
    case ChargeKind::fixed:
      return make_fixed_charges(record);
    case ChargeKind::equilibrated:
      return make_equilibrated_charges(record, species);
    default:
      return make_projected_charges(record);
  }
}

/// Potentials of equilibrated charges are those of a matrix that its own residual must not miss: in double.
bool is_single(const ChargeRecord& record, bool double_precision) {
  return !double_precision && record.kind != ChargeKind::equilibrated && record.rtol >= kFinestSingleMesh;
}

/// Local energies, and the electrostatics of charges that a rule makes:
///
///   E = Σ_i e_i + ½ Σ_c Σ_i q_ci φ_ci - Σ_i q_0i r_i · F
///
/// with an outer field F, and of equilibrated charges their own terms.
class ChargeCouple final : public Couple {
 public:
  ChargeCouple(ChargeRecord record, const std::vector<std::string>& species, const CoupleOptions& options)
      : record_(std::move(record)),
        rule_(make_rule(record_, species)),
        options_{record_.rtol,        {}, is_single(record_, options.double_precision), {}, options.device,
                 options.device_index} {}

  int columns() const override { return 1 + rule_->columns(); }
  bool is_local() const override { return false; }
  bool is_additive() const override { return rule_->is_additive(); }
  int channels() const override { return record_.channels; }
  bool has_born_charges() const override { return rule_->has_born_charges(); }
  int memory() const override { return rule_->memory(); }

  void evaluate(const Coupled& system, const Communicator& communicator, ThreadPool& threads,
                Joined& joined) override {
    if (communicator.size > 1 && !communicator.all_to_all)
      throw Error(
          ErrorKind::unsupported,
          "the electrostatics of a model's charges needs all_to_all of a host with several ranks: let the "
          "host lend it, or start one rank");
    Ranks ranks(communicator);
    take_field(system);
    const std::size_t n = num_atoms_ = system.species.size(), width = columns();
    widths_.clear();
    if (!record_.widths.empty())
      for (const int z : system.species) widths_.push_back(record_.widths[z]);
    charges_.resize(n * record_.channels);
    rule_->start(system, outer_, ranks, charges_);
    set_up(system, ranks, threads);
    const PmeTimes before = pme_->times();
    joined.steps = rule_->settle(
        system,
        [&](Span<const double> charges, Span<double> potentials) {
          pme_->find_potentials({system.positions, charges, widths_}, system.cell, threads, coulomb_);
          std::copy(coulomb_.potentials.begin(), coulomb_.potentials.end(), potentials.begin());
        },
        ranks, charges_);
    for (std::size_t i = 0; i < n; ++i) {
      std::fill_n(joined.cotangents.data() + i * width, width, 0.0);
      joined.cotangents[i * width] = 1.0;
      joined.energies[i] = system.readouts[i * width];
    }
    for (int channel = 0; channel < record_.channels; ++channel) add(channel, system, ranks, threads, joined);
    joined.times = pme_->times() - before;
    if (!joined.charge_cotangents) return;
    std::fill(joined.charge_cotangents.begin(), joined.charge_cotangents.end(), 0.0);
    std::fill(joined.shares.begin(), joined.shares.end(), 0.0);
    rule_->differentiate(joined);
  }

 private:
  Charges charges(int channel, const Coupled& system) const {
    return {system.positions, Span<const double>(charges_.data() + channel * num_atoms_, num_atoms_),
            widths_};
  }

  /// Charges that depend on the environment flow from atom to atom. Along a periodic direction the work of a
  /// field on them depends on the way, so that no energy belongs to it.
  void take_field(const Coupled& system) {
    free_ = open_directions(system.cell);
    field_ = system.outside.field;
    if (record_.kind != ChargeKind::fixed) {
      field_ = times(field_, free_);
      if (norm(system.outside.field - field_) > kRoundOff * norm(system.outside.field))
        throw Error(
            ErrorKind::unsupported,
            "the electric field has a component along a periodic direction, where it has an energy with "
            "fixed charges only: let it point along directions that are not periodic, in a slab along "
            "the normal");
    }
    outer_.resize(system.species.size());
    for (std::size_t i = 0; i < outer_.size(); ++i) outer_[i] = -dot(field_, point(system.positions, i));
  }

  /// One mesh for all channels, chosen for the one with the largest charges.
  void set_up(const Coupled& system, Ranks& ranks, ThreadPool& threads) {
    std::vector<double> sums(record_.channels + 1, 0.0);  // of squares, and of atoms
    for (int c = 0; c < record_.channels; ++c)
      for (const double q : charges(c, system).values) sums[c] += q * q;
    sums.back() = static_cast<double>(num_atoms_);
    ranks.sum(sums);
    const double atoms = sums.back();
    sums.pop_back();
    const auto largest = std::max_element(sums.begin(), sums.end()) - sums.begin();
    const Charges some = charges(static_cast<int>(largest), system);
    if (pme_ && pme_->fits(some, system.cell)) return;
    if (pme_ && num_set_up_ == atoms && ranks.rank() == 0 && !std::exchange(warned_, true))
      warn(
          "the cell has changed by more than a tenth since the mesh of the electrostatics was chosen: it is "
          "chosen again, now and whenever that happens, and the energy jumps by about the error asked for");
    pme_ = std::make_unique<Pme>(some, system.cell, options_, threads, ranks.communicator());
    num_set_up_ = atoms;
  }

  void add(int channel, const Coupled& system, Ranks& ranks, ThreadPool& threads, Joined& joined) {
    const std::size_t channels = record_.channels;
    const Charges q = charges(channel, system);
    pme_->evaluate(q, system.cell, threads, coulomb_);
    for (std::size_t i = 0; i < num_atoms_; ++i) {
      const double inner = coulomb_.potentials[i], outer = channel == 0 ? outer_[i] : 0.0;
      const double energy = q.values[i] * (0.5 * inner + outer);
      joined.energies[i] += energy;
      joined.electrostatic += energy;
      for (int a = 0; a < 3; ++a) joined.forces[3 * i + a] += q.values[i] * coulomb_.fields[3 * i + a];
      joined.charges[i * channels + channel] = q.values[i];
      joined.potentials[i * channels + channel] = coulomb_.potentials[i] = inner + outer;
    }
    if (channel == 0) push(q, joined);
    for (int a = 0; a < 6; ++a) joined.virial[a] += coulomb_.virial[a];
    rule_->pull(system, channel, q.values, coulomb_.potentials, ranks, joined);
  }

  /// Forces of the field at constant charges, and their virial. Where only the image of an atom would say how
  /// far it is from the origin, along periodic directions, it has none.
  void push(const Charges& q, Joined& joined) const {
    for (std::size_t i = 0; i < num_atoms_; ++i) {
      const Vec3 force = q.values[i] * field_, r = times(point(q.positions, i), free_);
      for (int a = 0; a < 3; ++a) {
        joined.forces[3 * i + a] += force[a];
        joined.virial[a] += r[a] * force[a];
      }
      joined.virial[3] += 0.5 * (r[0] * force[1] + r[1] * force[0]);
      joined.virial[4] += 0.5 * (r[0] * force[2] + r[2] * force[0]);
      joined.virial[5] += 0.5 * (r[1] * force[2] + r[2] * force[1]);
    }
  }

  ChargeRecord record_;
  std::unique_ptr<ChargeRule> rule_;
  PmeOptions options_;
  std::size_t num_atoms_ = 0;
  double num_set_up_ = 0;        // of all ranks
  std::vector<double> charges_;  // [channels][atoms] e
  std::vector<double> outer_;    // [atoms] potential of the field, V
  std::vector<double> widths_;   // [atoms] Å, or empty
  Vec3 field_{};                 // V/Å
  Mat3 free_{};                  // projects on the directions that are not periodic
  std::unique_ptr<Pme> pme_;
  bool warned_ = false;
  Coulomb coulomb_;
};

}  // namespace

std::unique_ptr<Couple> make_coulomb(const std::string& spec, const std::vector<std::string>& species,
                                     const CoupleOptions& options) {
  return std::make_unique<ChargeCouple>(read_charge_record(spec, species.size()), species, options);
}

}  // namespace nearsight
