// The record and tensors of a moment descriptor in a model file.
#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"
#include "core/models/ace/ace.hpp"

namespace nearsight {
namespace ace {
namespace {

using nlohmann::json;

[[noreturn]] void fail(const Tensors& tensors, const std::string& what) {
  throw Error(ErrorKind::file,
              tensors.origin + " has a damaged descriptor (" + what + "): export the model again");
}

/// A number that must be whole and within [0, limit).
int index_of(double value, int limit, const Tensors& tensors, const std::string& name) {
  if (!(value >= 0 && value < limit) || value != static_cast<int>(value))
    fail(tensors, "'" + name + "' holds " + std::to_string(value) + ", expected a whole number from 0 to " +
                      std::to_string(limit - 1));
  return static_cast<int>(value);
}

void read_radial(const json& record, const Tensors& tensors, Definition& d) {
  d.cutoff = record.at("cutoff");
  d.radial_counts = record.at("radial_counts").get<std::vector<int>>();
  d.radial_first = record.at("radial_first").get<std::vector<int>>();
  d.table_of = record.at("table_of").get<std::vector<int>>();
  const WeightTensor& radial = tensors.at("descriptor.radial");
  if (radial.shape.size() != 4 || radial.shape[1] < 2 || radial.shape[2] != 3)
    fail(tensors, "'descriptor.radial' is not [tables, knots, 3, functions]");
  d.num_tables = static_cast<int>(radial.shape[0]);
  d.num_knots = static_cast<int>(radial.shape[1]);
  d.num_functions = static_cast<int>(radial.shape[3]);
  d.radial = radial.values;
  const int num_l = static_cast<int>(d.radial_counts.size());
  if (num_l < 1 || num_l > kMaxL + 1 || d.radial_first.size() != d.radial_counts.size())
    fail(tensors, "radial_counts and radial_first need one number for each l up to " + std::to_string(kMaxL) +
                      " at most");
  for (int l = 0; l < num_l; ++l)
    if (d.radial_counts[l] < 1 || d.radial_first[l] < 0 ||
        d.radial_first[l] + d.radial_counts[l] > d.num_functions)
      fail(tensors, "the radial functions of l = " + std::to_string(l) + " are outside 'descriptor.radial'");
  if (d.table_of.size() != static_cast<std::size_t>(d.num_species) * d.num_species)
    fail(tensors, "table_of needs a number for each pair of species");
  for (const int table : d.table_of) index_of(table, d.num_tables, tensors, "table_of");
}

void read_products(const Tensors& tensors, Definition& d) {
  const WeightTensor& rows = tensors.at("descriptor.products");
  if (rows.shape.size() != 2 || rows.shape[1] != 4) fail(tensors, "'descriptor.products' is not [terms, 4]");
  int next = 1 + d.channels * d.moments_per_channel();
  for (std::size_t t = 0; t < rows.shape[0]; ++t) {
    const double* const row = rows.values.data() + 4 * t;
    if (t == 0 || row[0] != row[-4]) {
      if (row[0] != next++) fail(tensors, "the targets of 'descriptor.products' do not count up");
      d.first_term.push_back(static_cast<int>(t));
    }
    d.terms.push_back({index_of(row[1], next - 1, tensors, "descriptor.products"),
                       index_of(row[2], next - 1, tensors, "descriptor.products"), row[3]});
  }
  d.first_term.push_back(static_cast<int>(rows.shape[0]));
  for (const double node : tensors.at("descriptor.features").values)
    d.features.push_back(index_of(node, next, tensors, "descriptor.features"));
}

class Ace final : public Descriptor {
 public:
  Ace(const std::string& record, int num_species, const Tensors& tensors)
      : definition_(read_definition(record, num_species, tensors)),
        mixed_(definition_),
        double_(definition_) {}

  int num_features(int) const override { return static_cast<int>(definition_.features.size()); }
  std::unique_ptr<DescriptorWorkspace> make_workspace(bool double_precision) const override {
    if (double_precision) return std::make_unique<Workspace<double>>(double_);
    return std::make_unique<Workspace<float>>(mixed_);
  }
  std::size_t tile() const override { return 16; }

 private:
  Definition definition_;
  Tables<float> mixed_;
  Tables<double> double_;
};

}  // namespace

Definition read_definition(const std::string& text, int num_species, const Tensors& tensors) {
  const json record = json::parse(text);
  Definition d{};
  d.num_species = num_species;
  d.normalize = record.at("normalize");
  read_radial(record, tensors, d);
  const std::size_t species = num_species;
  d.channels = num_species;
  if (const WeightTensor* const mixing = tensors.find("descriptor.mixing")) {
    d.channels = static_cast<int>(mixing->shape.at(0));
    d.mixing = tensors.at("descriptor.mixing", {mixing->shape.at(0), species}).values;
  }
  d.center = tensors.at("descriptor.center", {species, static_cast<std::size_t>(d.radial_counts[0])}).values;
  read_products(tensors, d);
  return d;
}

std::unique_ptr<Descriptor> make_ace(const std::string& record, const std::vector<std::string>& species,
                                     const Tensors& tensors) {
  return std::make_unique<Ace>(record, static_cast<int>(species.size()), tensors);
}

}  // namespace ace
}  // namespace nearsight
