#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>
#include <vector>

#include "core/couple/couple.hpp"
#include "core/couple/polarization.hpp"
#include "core/engine/error.hpp"
#include "core/engine/warning.hpp"
#include "core/mesh/pme.hpp"

namespace nearsight {
namespace {

constexpr double kRoundOff = 1e-6;  // of a total charge, e, and of a field

/// The `couple` object of kind coulomb, docs/file_format.md.
struct Record {
  bool fixed;                          // charges by species, else readouts
  int channels;                        // independent charges of each atom
  bool weighted;                       // a readout says where the missing charge goes
  std::vector<double> values, widths;  // by species: e, only of fixed charges; Å, or empty: points
  double rtol;
};

Record read_record(const std::string& text, std::size_t num_species) {
  const auto spec = nlohmann::json::parse(text);
  Record record{spec.at("charges") == "fixed",
                spec.value("channels", 1),
                spec.value("weighted", false),
                {},
                {},
                spec.at("rtol")};
  if (record.fixed) record.values = spec.at("values").get<std::vector<double>>();
  if (spec.contains("widths") && !spec["widths"].is_null())
    record.widths = spec["widths"].get<std::vector<double>>();
  const auto fit = [&](const std::vector<double>& values) { return values.size() == num_species; };
  const bool counted =
      record.fixed ? fit(record.values) && record.channels == 1 && !record.weighted : record.channels >= 1;
  if (!counted || !(record.widths.empty() || fit(record.widths)))
    throw Error(
        ErrorKind::file,
        "couple 'coulomb' wants at least one channel, of fixed charges exactly one without weights, and "
        "values and widths for each species: export the model again");
  return record;
}

/// Electrostatics of charges that are readouts of the model, or fixed numbers of the species:
///
///   E = Σ_i e_i + ½ Σ_c Σ_i q_ci φ_ci - Σ_i q_0i r_i · F,   q_ci = p_ci + w_i (Q_c - Σ_j p_cj) / Σ_j w_j
///
/// with the readouts e and p, and w = ln(1 + exp v) of the readout v if weighted, else 1. Q_0 is the total
/// charge of the system, Q_1 … are 0. Fixed charges are what they are. F is an outer field. Readouts stand in
/// the order e, p_1 … p_C, v.
class ChargeCouple final : public Couple {
 public:
  ChargeCouple(Record record, bool double_precision)
      : record_(std::move(record)),
        options_{record_.rtol, {}, !double_precision && record_.rtol >= kFinestSingleMesh} {}

  int columns() const override { return 1 + (record_.fixed ? 0 : record_.channels) + record_.weighted; }
  bool is_local() const override { return false; }
  bool is_additive() const override { return record_.fixed; }
  int channels() const override { return record_.channels; }

  void evaluate(const Coupled& system, const Communicator& ranks, ThreadPool& threads,
                Joined& joined) override {
    take_field(system);
    if (ranks.size > 1 && !ranks.all_to_all)
      throw Error(
          ErrorKind::unsupported,
          "the electrostatics of a model's charges needs all_to_all of a host with several ranks: let the "
          "host lend it, or start one rank");
    const std::size_t n = num_atoms_ = system.species.size(), width = columns();
    widths_.clear();
    if (!record_.widths.empty())
      for (const int z : system.species) widths_.push_back(record_.widths[z]);
    charges_.resize(n * record_.channels);
    if (record_.fixed)
      take_fixed_charges(system, ranks);
    else
      project_charges(system, ranks);
    for (std::size_t i = 0; i < n; ++i) {
      std::fill_n(joined.cotangents.data() + i * width, width, 0.0);
      joined.cotangents[i * width] = 1.0;
      joined.energies[i] = system.readouts[i * width];
    }
    set_up(system, ranks, threads);
    for (int channel = 0; channel < record_.channels; ++channel) add(channel, system, ranks, threads, joined);
    if (joined.charge_cotangents) differentiate_charges(joined);
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
    if (record_.fixed) return;
    field_ = times(field_, free_);
    if (norm(system.outside.field - field_) > kRoundOff * norm(system.outside.field))
      throw Error(
          ErrorKind::unsupported,
          "the electric field has a component along a periodic direction, where it has an energy with "
          "fixed charges only: let it point along directions that are not periodic, in a slab along "
          "the normal");
  }

  /// A background that nobody asked for would be silently wrong.
  void take_fixed_charges(const Coupled& system, const Communicator& ranks) {
    double sum = 0.0;
    for (std::size_t i = 0; i < num_atoms_; ++i) sum += charges_[i] = record_.values[system.species[i]];
    ranks.all_sum({&sum, 1});
    const auto& pbc = system.cell.pbc;
    if (!system.outside.total_charge && !pbc[0] && !pbc[1] && !pbc[2]) return;
    const double expected = system.outside.total_charge.value_or(0.0);
    if (std::abs(sum - expected) <= kRoundOff * (1.0 + std::abs(sum))) return;
    std::ostringstream message;
    message << "the fixed charges of the atoms add up to " << sum << " e, but "
            << (system.outside.total_charge ? "the total charge that was given is "
                                            : "a periodic system is taken to have ")
            << expected << " e: check the atoms, or give that sum as the total charge";
    throw Error(ErrorKind::argument, message.str());
  }

  void project_charges(const Coupled& system, const Communicator& ranks) {
    const std::size_t n = num_atoms_, width = columns();
    shares_.assign(n, 1.0);
    slopes_.assign(n, 0.0);
    if (record_.weighted)
      for (std::size_t i = 0; i < n; ++i) {
        const double v = system.readouts[i * width + width - 1], small = std::exp(-std::abs(v));
        shares_[i] = std::max(v, 0.0) + std::log1p(small);
        slopes_[i] = (v > 0.0 ? 1.0 : small) / (1.0 + small);
      }
    std::vector<double> sums(record_.channels + 1, 0.0);  // of the readouts p, and of w
    for (int c = 0; c < record_.channels; ++c)
      for (std::size_t i = 0; i < n; ++i) sums[c] += charges_[c * n + i] = system.readouts[i * width + 1 + c];
    for (const double w : shares_) sums.back() += w;
    ranks.all_sum(sums);
    const double sum = sums.back();
    missing_.resize(record_.channels);
    for (int c = 0; c < record_.channels; ++c) {
      missing_[c] = (c ? 0.0 : system.outside.total_charge.value_or(0.0)) - sums[c];
      for (std::size_t i = 0; i < n; ++i) charges_[c * n + i] += shares_[i] / sum * missing_[c];
    }
    for (std::size_t i = 0; i < n; ++i) {
      shares_[i] /= sum;
      slopes_[i] /= sum;
    }
  }

  /// One mesh for all channels, chosen for the one with the largest charges.
  void set_up(const Coupled& system, const Communicator& ranks, ThreadPool& threads) {
    std::vector<double> sums(record_.channels + 1, 0.0);  // of squares, and of atoms
    for (int c = 0; c < record_.channels; ++c)
      for (const double q : charges(c, system).values) sums[c] += q * q;
    sums.back() = static_cast<double>(num_atoms_);
    ranks.all_sum(sums);
    const double atoms = sums.back();
    sums.pop_back();
    const auto largest = std::max_element(sums.begin(), sums.end()) - sums.begin();
    const Charges some = charges(static_cast<int>(largest), system);
    if (pme_ && pme_->fits(some, system.cell)) return;
    if (pme_ && num_set_up_ == atoms && ranks.rank == 0 && !std::exchange(warned_, true))
      warn(
          "the cell has changed by more than a tenth since the mesh of the electrostatics was chosen: it is "
          "chosen again, now and whenever that happens, and the energy jumps by about the error asked for");
    pme_ = std::make_unique<Pme>(some, system.cell, options_, threads, ranks);
    num_set_up_ = atoms;
  }

  void add(int channel, const Coupled& system, const Communicator& ranks, ThreadPool& threads,
           Joined& joined) {
    const std::size_t width = columns(), channels = record_.channels;
    const Charges q = charges(channel, system);
    const PmeTimes before = pme_->times();
    pme_->evaluate(q, system.cell, threads, coulomb_);
    joined.times.total += pme_->times().total - before.total;
    joined.times.communication += pme_->times().communication - before.communication;
    joined.times.transforms += pme_->times().transforms - before.transforms;
    for (std::size_t i = 0; i < num_atoms_; ++i) {
      const double inner = coulomb_.potentials[i];
      const double outer = channel == 0 ? -dot(field_, point(system.positions, i)) : 0.0;
      const double energy = q.values[i] * (0.5 * inner + outer);
      joined.energies[i] += energy;
      joined.electrostatic += energy;
      for (int a = 0; a < 3; ++a) joined.forces[3 * i + a] += q.values[i] * coulomb_.fields[3 * i + a];
      joined.charges[i * channels + channel] = q.values[i];
      joined.potentials[i * channels + channel] = coulomb_.potentials[i] = inner + outer;
    }
    if (channel == 0) push(q, joined);
    for (int a = 0; a < 6; ++a) joined.virial[a] += coulomb_.virial[a];
    if (record_.fixed) return;
    double mean = 0.0;  // of the potential: what all charges lose if one readout grows
    for (std::size_t i = 0; i < num_atoms_; ++i) mean += shares_[i] * coulomb_.potentials[i];
    ranks.all_sum({&mean, 1});
    for (std::size_t i = 0; i < num_atoms_; ++i) {
      const double potential = coulomb_.potentials[i] - mean;
      joined.cotangents[i * width + 1 + channel] = potential;
      if (record_.weighted)
        joined.cotangents[i * width + width - 1] += missing_[channel] * slopes_[i] * potential;
    }
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

  void differentiate_charges(Joined& joined) const {
    const std::size_t width = columns();
    std::fill(joined.charge_cotangents.begin(), joined.charge_cotangents.end(), 0.0);
    std::fill(joined.shares.begin(), joined.shares.end(), 0.0);
    if (record_.fixed) return;
    for (std::size_t i = 0; i < num_atoms_; ++i) {
      joined.charge_cotangents[i * width + 1] = 1.0;
      if (record_.weighted) joined.charge_cotangents[i * width + width - 1] = missing_[0] * slopes_[i];
      joined.shares[i] = shares_[i];
    }
  }

  Record record_;
  PmeOptions options_;
  std::size_t num_atoms_ = 0;
  double num_set_up_ = 0;                // of all ranks
  std::vector<double> charges_;          // [channels][atoms] e
  std::vector<double> missing_;          // [channels] what the projection adds, e
  std::vector<double> shares_, slopes_;  // [atoms] w_i / Σw, and dw_i/dv_i / Σw
  std::vector<double> widths_;           // [atoms] Å, or empty
  Vec3 field_{};                         // V/Å
  Mat3 free_{};                          // projects on the directions that are not periodic
  std::unique_ptr<Pme> pme_;
  bool warned_ = false;
  Coulomb coulomb_;
};

}  // namespace

std::unique_ptr<Couple> make_coulomb(const std::string& spec, std::size_t num_species,
                                     bool double_precision) {
  return std::make_unique<ChargeCouple>(read_record(spec, num_species), double_precision);
}

}  // namespace nearsight
