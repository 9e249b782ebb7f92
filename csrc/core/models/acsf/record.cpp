// The record of symmetry functions in a model file.
#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"
#include "core/models/acsf/acsf.hpp"

namespace nearsight {
namespace acsf {
namespace {

using nlohmann::json;

CutoffFunction cutoff_function_of(const std::string& name) {
  const char* const names[] = {"cos", "tanh3", "poly1", "poly2", "poly3", "poly4"};
  for (int k = 0; k < 6; ++k)
    if (name == names[k]) return static_cast<CutoffFunction>(k);
  throw Error(ErrorKind::file,
              "cutoff function '" + name + "' is not known, expected cos, tanh3 or poly1 to poly4");
}

SymmetryFunction::Kind kind_of(const std::string& name) {
  if (name == "radial") return SymmetryFunction::radial;
  if (name == "angular_narrow") return SymmetryFunction::angular_narrow;
  if (name == "angular_wide") return SymmetryFunction::angular_wide;
  throw Error(ErrorKind::file, "symmetry function kind '" + name +
                                   "' is not known, expected radial, angular_narrow or angular_wide");
}

int species_number(const std::vector<std::string>& species, const std::string& symbol) {
  for (std::size_t k = 0; k < species.size(); ++k)
    if (species[k] == symbol) return static_cast<int>(k);
  throw Error(ErrorKind::file, "a symmetry function names the species '" + symbol +
                                   "', which is not in the model's list: export the model again");
}

SymmetryFunction read_function(const json& record, int center, const std::vector<std::string>& species) {
  SymmetryFunction f{};
  f.kind = kind_of(record.at("kind"));
  f.center = center;
  const bool radial = f.kind == SymmetryFunction::radial;
  const auto& neighbors = record.at("neighbors");
  f.neighbor1 = species_number(species, neighbors.at(0));
  f.neighbor2 = radial ? -1 : species_number(species, neighbors.at(1));
  f.eta = record.at("eta");
  f.shift = record.at("r_shift");
  f.cutoff = record.at("cutoff");
  if (!radial) {
    f.lambda = record.at("lambda");
    f.zeta = record.at("zeta");
  }
  return f;
}

class Acsf final : public Descriptor {
 public:
  Acsf(const std::vector<SymmetryFunction>& functions, int num_species, CutoffFunction cutoff_function)
      : mixed_(functions, num_species, cutoff_function), double_(functions, num_species, cutoff_function) {}

  int num_features(int species) const override { return double_.num_features(species); }
  std::unique_ptr<DescriptorWorkspace> make_workspace(bool double_precision) const override {
    if (double_precision) return std::make_unique<Workspace<double>>(double_);
    return std::make_unique<Workspace<float>>(mixed_);
  }

 private:
  Functions<float> mixed_;
  Functions<double> double_;
};

}  // namespace

std::unique_ptr<Descriptor> make_acsf(const std::string& text, const std::vector<std::string>& species) {
  const json record = json::parse(text);
  std::vector<SymmetryFunction> functions;
  for (std::size_t center = 0; center < species.size(); ++center)
    for (const auto& function : record.at("symmetry_functions").at(species[center]))
      functions.push_back(read_function(function, static_cast<int>(center), species));
  return std::make_unique<Acsf>(functions, static_cast<int>(species.size()),
                                cutoff_function_of(record.at("cutoff_function")));
}

}  // namespace acsf
}  // namespace nearsight
