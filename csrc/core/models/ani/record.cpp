// The record of ANI's environment vectors in a model file.
#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"
#include "core/models/ani/ani.hpp"

namespace nearsight {
namespace ani {
namespace {

CutoffFunction cutoff_function_of(const std::string& name) {
  if (name == "cos") return CutoffFunction::cos;
  if (name == "exp") return CutoffFunction::exp;
  throw Error(ErrorKind::file,
              "cutoff function '" + name + "' is not known of ANI's vectors, expected cos or exp");
}

class Ani final : public Descriptor {
 public:
  explicit Ani(const Constants& constants) : constants_(constants) {}

  int num_features(int) const override { return constants_.num_features(); }
  std::unique_ptr<DescriptorWorkspace> make_workspace(bool double_precision) const override {
    if (double_precision) return std::make_unique<Workspace<double>>(constants_);
    return std::make_unique<Workspace<float>>(constants_);
  }

 private:
  Constants constants_;
};

}  // namespace

Constants read_constants(const std::string& text, int num_species) {
  const auto record = nlohmann::json::parse(text);
  const auto& radial = record.at("radial");
  const auto& angular = record.at("angular");
  Constants c;
  c.cutoff_function = cutoff_function_of(record.at("cutoff_function"));
  c.num_species = num_species;
  c.radial_cutoff = radial.at("cutoff");
  c.radial_eta = radial.at("eta");
  c.radial_shifts = radial.at("shifts").get<std::vector<double>>();
  c.angular_cutoff = angular.at("cutoff");
  c.angular_eta = angular.at("eta");
  c.zeta = angular.at("zeta");
  c.angular_shifts = angular.at("shifts").get<std::vector<double>>();
  c.angles = angular.at("angles").get<std::vector<double>>();
  return c;
}

std::unique_ptr<Descriptor> make_ani(const std::string& record, const std::vector<std::string>& species) {
  return std::make_unique<Ani>(read_constants(record, static_cast<int>(species.size())));
}

}  // namespace ani
}  // namespace nearsight
