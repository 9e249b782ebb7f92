#include "core/couple/charges.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "core/couple/molecules.hpp"
#include "core/engine/error.hpp"

namespace nearsight {
namespace {

constexpr double kRoundOff = 1e-6;  // of a total charge, e

class FixedCharges final : public ChargeRule {
 public:
  explicit FixedCharges(const ChargeRecord& record) : values_(record.values) {}

  int columns() const override { return 0; }
  bool is_additive() const override { return true; }

  /// A background that nobody asked for would be silently wrong.
  void start(const Coupled& system, Span<const double>, Ranks& ranks, Span<double> charges) override {
    const Molecules molecules(system);
    const std::size_t size = molecules.size();
    std::vector<double> sums(2 * size, 0.0);  // of charges, and of atoms
    for (std::size_t i = 0; i < charges.size(); ++i) {
      sums[molecules[i]] += charges[i] = values_[system.species[i]];
      sums[size + molecules[i]] += 1.0;
    }
    ranks.sum(sums);
    const auto& pbc = system.cell.pbc;
    const bool is_named = molecules.are_named(), is_open = !pbc[0] && !pbc[1] && !pbc[2];
    if (!is_named && !system.outside.total_charge && is_open) return;
    for (std::size_t m = 0; m < size; ++m) {
      const double expected = molecules.charge(m);
      if (is_named && sums[size + m] == 0.0) continue;
      if (std::abs(sums[m] - expected) <= kRoundOff * (1.0 + std::abs(sums[m]))) continue;
      std::ostringstream message;
      if (is_named)
        message << "the fixed charges of molecule number " << m << " add up to " << sums[m]
                << " e, but the charge that was given for it is " << expected
                << " e: check its atoms, or give that sum as its charge";
      else
        message << "the fixed charges of the atoms add up to " << sums[m] << " e, but "
                << (system.outside.total_charge ? "the total charge that was given is "
                                                : "a periodic system is taken to have ")
                << expected << " e: check the atoms, or give that sum as the total charge";
      throw Error(ErrorKind::argument, message.str());
    }
  }

  void pull(const Coupled&, int, Span<const double>, Span<const double>, Ranks&, Joined&) override {}

 private:
  std::vector<double> values_;
};

class ProjectedCharges final : public ChargeRule {
 public:
  explicit ProjectedCharges(const ChargeRecord& record)
      : channels_(record.channels), weighted_(record.weighted) {}

  int columns() const override { return channels_ + weighted_; }

  void start(const Coupled& system, Span<const double>, Ranks& ranks, Span<double> charges) override {
    const std::size_t n = system.species.size(), width = 1 + columns();
    shares_.assign(n, 1.0);
    slopes_.assign(n, 0.0);
    if (weighted_)
      for (std::size_t i = 0; i < n; ++i) {
        const double v = system.readouts[i * width + width - 1], small = std::exp(-std::abs(v));
        shares_[i] = std::max(v, 0.0) + std::log1p(small);
        slopes_[i] = (v > 0.0 ? 1.0 : small) / (1.0 + small);
      }
    molecules_ = Molecules(system);
    const std::size_t size = molecules_.size();
    std::vector<double> sums((channels_ + 1) * size, 0.0);  // of the readouts p, and of w
    double* const weights = sums.data() + channels_ * size;
    for (int c = 0; c < channels_; ++c)
      for (std::size_t i = 0; i < n; ++i)
        sums[c * size + molecules_[i]] += charges[c * n + i] = system.readouts[i * width + 1 + c];
    for (std::size_t i = 0; i < n; ++i) weights[molecules_[i]] += shares_[i];
    ranks.sum(sums);
    for (std::size_t i = 0; i < n; ++i) {
      const double sum = weights[molecules_[i]];
      shares_[i] /= sum;
      slopes_[i] /= sum;
    }
    missing_.resize(channels_ * size);
    for (int c = 0; c < channels_; ++c) {
      for (std::size_t m = 0; m < size; ++m)
        missing_[c * size + m] = (c ? 0.0 : molecules_.charge(m)) - sums[c * size + m];
      for (std::size_t i = 0; i < n; ++i)
        charges[c * n + i] += shares_[i] * missing_[c * size + molecules_[i]];
    }
  }

  void pull(const Coupled& system, int channel, Span<const double>, Span<const double> potentials,
            Ranks& ranks, Joined& joined) override {
    const std::size_t n = system.species.size(), width = 1 + columns();
    std::vector<double> means(molecules_.size(), 0.0);  // what all charges lose if one readout grows
    for (std::size_t i = 0; i < n; ++i) means[molecules_[i]] += shares_[i] * potentials[i];
    ranks.sum(means);
    const double* const missing = missing_.data() + channel * molecules_.size();
    for (std::size_t i = 0; i < n; ++i) {
      const int m = molecules_[i];
      const double potential = potentials[i] - means[m];
      joined.cotangents[i * width + 1 + channel] = potential;
      if (weighted_) joined.cotangents[i * width + width - 1] += missing[m] * slopes_[i] * potential;
    }
  }

  void differentiate(Joined& joined) const override {
    const std::size_t width = 1 + columns();
    for (std::size_t i = 0; i < shares_.size(); ++i) {
      joined.charge_cotangents[i * width + 1] = 1.0;
      if (weighted_) joined.charge_cotangents[i * width + width - 1] = missing_[molecules_[i]] * slopes_[i];
      joined.shares[i] = shares_[i];
    }
  }

 private:
  int channels_;
  bool weighted_;
  Molecules molecules_;
  std::vector<double> missing_;          // [channels][molecules] what the projection adds, e
  std::vector<double> shares_, slopes_;  // [atoms] w_i / Σw, and dw_i/dv_i / Σw, sums over the molecule
};

}  // namespace

ChargeRecord read_charge_record(const std::string& text, std::size_t num_species) {
  const auto spec = nlohmann::json::parse(text);
  const std::string charges = spec.at("charges");
  const auto kind = charges == "fixed"          ? ChargeKind::fixed
                    : charges == "equilibrated" ? ChargeKind::equilibrated
                                                : ChargeKind::projected;
  ChargeRecord record{
      kind, spec.value("channels", 1), spec.value("weighted", false), {}, {}, spec.at("rtol"), {}, 0.0};
  if (kind == ChargeKind::fixed) record.values = spec.at("values").get<std::vector<double>>();
  if (spec.contains("widths") && !spec["widths"].is_null())
    record.widths = spec["widths"].get<std::vector<double>>();
  if (kind == ChargeKind::equilibrated) {
    record.hardness = spec.at("hardness").get<std::vector<double>>();
    record.residual = spec.at("residual");
  }
  const auto fit = [&](const std::vector<double>& values) { return values.size() == num_species; };
  const bool single = record.channels == 1 && !record.weighted;
  const bool counted = kind == ChargeKind::projected      ? record.channels >= 1
                       : kind == ChargeKind::equilibrated ? single && fit(record.hardness)
                                                          : single && fit(record.values);
  const bool gaussian = fit(record.widths) && std::all_of(record.widths.begin(), record.widths.end(),
                                                          [](double width) { return width > 0.0; });
  if (!counted ||
      !(kind == ChargeKind::equilibrated ? gaussian : record.widths.empty() || fit(record.widths)))
    throw Error(
        ErrorKind::file,
        "couple 'coulomb' wants at least one channel, of fixed and equilibrated charges exactly one without "
        "weights, values or hardness and widths for each species, of equilibrated charges widths above 0: "
        "export the model again");
  return record;
}

std::unique_ptr<ChargeRule> make_fixed_charges(const ChargeRecord& record) {
  return std::make_unique<FixedCharges>(record);
}

std::unique_ptr<ChargeRule> make_projected_charges(const ChargeRecord& record) {
  return std::make_unique<ProjectedCharges>(record);
}

}  // namespace nearsight
