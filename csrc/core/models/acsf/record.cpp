// The record of symmetry functions in a model file.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"
#include "core/models/acsf/acsf.hpp"

namespace nearsight {
namespace acsf {
namespace {

using nlohmann::json;

constexpr double kRadian = 3.14159265358979323846 / 180.0;

Falling falling_of(const std::string& name, int count, const char* what) {
  const char* const names[] = {"poly1", "poly2", "poly3", "poly4",           "exp",
                               "hard",  "cos",   "tanh3", "tanh3_normalized"};
  std::string known;
  for (int k = 0; k < count; ++k) {
    if (name == names[k]) return static_cast<Falling>(k);
    known += (k ? ", " : "") + std::string(names[k]);
  }
  throw Error(ErrorKind::file, std::string(what) + " '" + name + "' is not known, expected one of " + known);
}

Falling core_of(const json& record) {
  return falling_of(record.at("core"), 5, "core function");
}

/// Reads the functions of one center species.
class Reader {
 public:
  Reader(const std::vector<std::string>& species, int center) : species_(species), center_(center) {}

  SymmetryFunction read(const json& record) const {
    const std::string kind = record.at("kind");
    const std::string kinds[] = {"radial",         "angular_narrow", "angular_wide",
                                 "compact_radial", "compact_narrow", "compact_wide"};
    const auto found = std::find(std::begin(kinds), std::end(kinds), kind);
    if (found == std::end(kinds))
      throw Error(ErrorKind::file, "symmetry function kind '" + kind +
                                       "' is not known, expected radial, angular_narrow, angular_wide, "
                                       "compact_radial, compact_narrow or compact_wide");
    const auto number = found - std::begin(kinds);
    SymmetryFunction f{};
    f.center = center_;
    f.radial = number % 3 == 0;
    f.narrow = number % 3 == 1;
    f.neighbors = neighbors(record, f.radial);
    f.cutoff = record.at("cutoff");
    f.prefactor = 1.0;
    if (number < 3)
      gaussian(record, f);
    else
      compact(record, f);
    return f;
  }

 private:
  static void gaussian(const json& record, SymmetryFunction& f) {
    f.shape.eta = record.at("eta");
    f.shape.shift = record.at("r_shift");
    if (f.radial) return;
    const double zeta = record.at("zeta");
    f.term.lambda = record.at("lambda");
    f.term.zeta = zeta;
    f.term.integer_zeta =
        zeta == std::floor(zeta) && zeta >= 1.0 && zeta <= 256.0 ? static_cast<int>(zeta) : 0;
    f.prefactor = std::exp2(1.0 - zeta);
  }

  static void compact(const json& record, SymmetryFunction& f) {
    const double inner = record.at("inner");
    f.shape.compact = true;
    f.shape.core = core_of(record);
    f.shape.asymmetric = record.at("asymmetric");
    f.shape.middle = 0.5 * (inner + f.cutoff);
    f.shape.inverse_half_width = 2.0 / (f.cutoff - inner);
    if (f.radial) return;
    const double left = record.at("angle").at(0), right = record.at("angle").at(1);
    f.term.compact = true;
    f.term.core = f.shape.core;
    f.term.middle = 0.5 * (left + right) * kRadian;
    f.term.inverse_half_width = 2.0 / ((right - left) * kRadian);
  }

  std::vector<SymmetryFunction::Neighbors> neighbors(const json& record, bool radial) const {
    std::vector<int> named;
    for (const auto& symbol : record.at("neighbors")) named.push_back(number_of(symbol));
    std::vector<SymmetryFunction::Neighbors> result;
    if (!record.contains("weights")) {
      const auto pair = std::minmax(named.at(0), named.at(radial ? 0 : 1));
      result.push_back({pair.first, pair.second, 1.0});
      return result;
    }
    const auto weights = record.at("weights").get<std::vector<double>>();
    for (std::size_t a = 0; a < named.size(); ++a)
      for (std::size_t b = a; b < (radial ? a + 1 : named.size()); ++b) {
        const auto pair = std::minmax(named[a], named[b]);
        result.push_back({pair.first, pair.second, radial ? weights.at(a) : weights.at(a) * weights.at(b)});
      }
    return result;
  }

  int number_of(const std::string& symbol) const {
    for (std::size_t k = 0; k < species_.size(); ++k)
      if (species_[k] == symbol) return static_cast<int>(k);
    throw Error(ErrorKind::file, "a symmetry function names the species '" + symbol +
                                     "', which is not in the model's list: export the model again");
  }

  const std::vector<std::string>& species_;
  int center_;
};

class Acsf final : public Descriptor {
 public:
  Acsf(const Definition& d, int num_species)
      : mixed_(d.functions, num_species, d.cutoff_function),
        double_(d.functions, num_species, d.cutoff_function) {}

  int num_features(int species) const override { return double_.num_features(species); }
  std::unique_ptr<DescriptorWorkspace> make_workspace(bool double_precision) const override {
    if (double_precision) return std::make_unique<Workspace<double>>(double_);
    return std::make_unique<Workspace<float>>(mixed_);
  }
  std::size_t tile() const override { return 8; }

 private:
  Functions<float> mixed_;
  Functions<double> double_;
};

}  // namespace

Definition read_definition(const std::string& text, const std::vector<std::string>& species) {
  const json record = json::parse(text);
  Definition d;
  for (std::size_t center = 0; center < species.size(); ++center) {
    const Reader reader(species, static_cast<int>(center));
    for (const auto& function : record.at("symmetry_functions").at(species[center]))
      d.functions.push_back(reader.read(function));
  }
  const Falling kind = falling_of(record.at("cutoff_function"), 9, "cutoff function");
  const bool is_tanh = kind == Falling::tanh3 || kind == Falling::tanh3_normalized;
  d.cutoff_function = {kind, is_tanh ? 0.0 : record.at("inner_fraction").get<double>()};
  return d;
}

std::unique_ptr<Descriptor> make_acsf(const std::string& record, const std::vector<std::string>& species) {
  return std::make_unique<Acsf>(read_definition(record, species), static_cast<int>(species.size()));
}

}  // namespace acsf
}  // namespace nearsight
