#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "core/couple/couple.hpp"
#include "core/engine/error.hpp"
#include "core/engine/warning.hpp"
#include "core/mesh/pme.hpp"

namespace nearsight {
namespace {

constexpr double kFinestSingle = 2e-6;  // of meshes in single precision
constexpr double kOutgrown = 0.1;       // change of a lattice vector from which on a mesh is chosen again
constexpr double kRoundOff = 1e-6;      // of a total charge, e

/// The `couple` object of kind coulomb, docs/file_format.md.
struct Record {
  bool fixed;                          // charges by species, else readouts
  int channels;                        // independent charges of each atom
  bool weighted;                       // a readout says where the missing charge goes
  std::vector<double> values, widths;  // by species: e, only of fixed charges; Å, or empty: points
  double rtol;
};

Record read_record(const std::string& text) {
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
  if (record.channels < 1 || (record.fixed && (record.channels > 1 || record.weighted)))
    throw Error(ErrorKind::file,
                "couple 'coulomb': channels must be at least 1, and fixed charges have one without weights: "
                "export the model again");
  return record;
}

/// Electrostatics of charges that are readouts of the model, or fixed numbers of the species:
///
///   E = Σ_i e_i + ½ Σ_c Σ_i q_ci φ_ci,   q_ci = p_ci + w_i (Q_c - Σ_j p_cj) / Σ_j w_j
///
/// with the readouts e, p and, if weighted, w. Q_0 is the total charge of the system, Q_1 … are 0. Fixed
/// charges are what they are. Readouts stand in the order e, p_1 … p_C, w.
class ChargeCouple final : public Couple {
 public:
  ChargeCouple(Record record, bool double_precision) : record_(std::move(record)) {
    single_ = !double_precision && record_.rtol >= kFinestSingle;
  }

  int columns() const override { return 1 + (record_.fixed ? 0 : record_.channels) + record_.weighted; }
  bool is_local() const override { return false; }
  int channels() const override { return record_.channels; }

  void evaluate(const Coupled& system, const AllSum& all_sum, ThreadPool& threads, Joined& joined) override {
    double ranks = 1.0;
    all_sum(Span<double>(&ranks, 1));
    if (ranks > 1.0)
      throw Error(ErrorKind::unsupported,
                  "electrostatics of a model's charges runs in one process only so far: start one rank");
    widths_.clear();
    if (!record_.widths.empty())
      for (const int z : system.species) widths_.push_back(record_.widths[z]);
    read_charges(system);
    const std::size_t n = system.species.size(), width = columns();
    for (std::size_t i = 0; i < n; ++i) {
      joined.cotangents[i * width] = 1.0;
      joined.energies[i] = system.readouts[i * width];
      if (record_.weighted) joined.cotangents[i * width + width - 1] = 0.0;
    }
    for (int channel = 0; channel < record_.channels; ++channel) add(channel, system, threads, joined);
  }

 private:
  const double* charges(int channel) const { return charges_.data() + channel * num_charges_; }

  void read_charges(const Coupled& system) {
    const std::size_t n = num_charges_ = system.species.size(), width = columns();
    charges_.resize(n * record_.channels);
    missing_.assign(record_.channels, 0.0);
    weights_.assign(n, 1.0);
    if (record_.fixed) {
      for (std::size_t i = 0; i < n; ++i) charges_[i] = record_.values[system.species[i]];
      return check_total(system);
    }
    if (record_.weighted)
      for (std::size_t i = 0; i < n; ++i) weights_[i] = system.readouts[i * width + width - 1];
    weight_sum_ = 0.0;
    for (const double w : weights_) weight_sum_ += w;
    for (int c = 0; c < record_.channels; ++c) {
      double* const q = charges_.data() + c * n;
      missing_[c] = c ? 0.0 : system.total_charge.value_or(0.0);
      for (std::size_t i = 0; i < n; ++i) missing_[c] -= q[i] = system.readouts[i * width + 1 + c];
      for (std::size_t i = 0; i < n; ++i) q[i] += weights_[i] * missing_[c] / weight_sum_;
    }
  }

  /// A background that nobody asked for would be silently wrong.
  void check_total(const Coupled& system) const {
    double sum = 0.0;
    for (const double q : charges_) sum += q;
    const auto& pbc = system.cell.pbc;
    const bool periodic = pbc[0] || pbc[1] || pbc[2];
    if (!periodic && !system.total_charge) return;
    const double expected = system.total_charge.value_or(0.0);
    if (std::abs(sum - expected) <= kRoundOff * (1.0 + std::abs(sum))) return;
    std::ostringstream message;
    message << "the fixed charges of the atoms add up to " << sum << " e, but "
            << (system.total_charge ? "the total charge that was given is "
                                    : "a periodic system is taken to have ")
            << expected << " e: check the atoms, or give that sum as the total charge";
    throw Error(ErrorKind::argument, message.str());
  }

  bool outgrown(const Cell& cell) const {
    if (meshes_.empty() || num_set_up_ != num_charges_ || cell.pbc != cell_.pbc) return true;
    for (int a = 0; a < 3; ++a) {
      if (!cell.pbc[a]) continue;
      double change = 0.0, length = 0.0;
      for (int c = 0; c < 3; ++c) {
        change += std::pow(cell.vectors[3 * a + c] - cell_.vectors[3 * a + c], 2);
        length += std::pow(cell_.vectors[3 * a + c], 2);
      }
      if (change > kOutgrown * kOutgrown * length) {
        warn(
            "a lattice vector has changed by more than a tenth since the mesh of electrostatics was chosen: "
            "it is "
            "chosen again, and the energy jumps by about the error that was asked for");
        return true;
      }
    }
    return false;
  }

  Pme& mesh(int channel, const Charges& values, const Cell& cell, ThreadPool& threads) {
    if (channel == 0 && outgrown(cell)) {
      meshes_.clear();
      meshes_.resize(record_.channels);
      cell_ = cell;
      num_set_up_ = num_charges_;
    }
    auto& found = meshes_[channel];
    const bool silent =
        found && found->parameters().order == 0 &&
        std::any_of(values.values.begin(), values.values.end(), [](double q) { return q != 0.0; });
    if (!found || silent)
      found = std::make_unique<Pme>(values, cell, PmeOptions{record_.rtol, {}, single_}, threads);
    return *found;
  }

  void add(int channel, const Coupled& system, ThreadPool& threads, Joined& joined) {
    const std::size_t n = num_charges_, width = columns(), channels = record_.channels;
    const double* const q = charges(channel);
    const Charges values{system.positions, Span<const double>(q, n), widths_};
    mesh(channel, values, system.cell, threads).evaluate(values, system.cell, threads, coulomb_);
    double mean = 0.0;  // of the potential, by the weights
    for (std::size_t i = 0; i < n; ++i) mean += weights_[i] * coulomb_.potentials[i];
    mean /= weight_sum_;
    for (std::size_t i = 0; i < n; ++i) {
      const double potential = coulomb_.potentials[i];
      joined.energies[i] += 0.5 * q[i] * potential;
      joined.electrostatic += 0.5 * q[i] * potential;
      if (!record_.fixed) joined.cotangents[i * width + 1 + channel] = potential - mean;
      if (record_.weighted)
        joined.cotangents[i * width + width - 1] += missing_[channel] / weight_sum_ * (potential - mean);
      if (joined.forces)
        for (int c = 0; c < 3; ++c) joined.forces[3 * i + c] += q[i] * coulomb_.fields[3 * i + c];
      if (joined.charges) joined.charges[i * channels + channel] = q[i];
      if (joined.potentials) joined.potentials[i * channels + channel] = potential;
    }
    for (int a = 0; a < 6; ++a) joined.virial[a] += coulomb_.virial[a];
  }

  Record record_;
  bool single_;
  std::size_t num_charges_ = 0, num_set_up_ = 0;
  std::vector<double> charges_, missing_, weights_, widths_;
  double weight_sum_ = 1.0;
  Cell cell_;  // of the meshes
  std::vector<std::unique_ptr<Pme>> meshes_;
  Coulomb coulomb_;
};

}  // namespace

std::unique_ptr<Couple> make_coulomb(const std::string& spec, bool double_precision) {
  return std::make_unique<ChargeCouple>(read_record(spec), double_precision);
}

}  // namespace nearsight
