#include <cmath>
#include <nlohmann/json.hpp>

#include "core/couple/dispersion.hpp"
#include "core/engine/error.hpp"
#include "core/engine/units.hpp"

namespace nearsight {
namespace {

using nlohmann::json;

[[noreturn]] void damaged(const std::string& what) {
  throw Error(ErrorKind::file,
              "the model's dispersion has a damaged record (" + what + "): export the model again");
}

void check(const DispersionRecord& record, std::size_t num_species) {
  const auto require = [](bool right, const char* what) {
    if (!right) damaged(what);
  };
  require(record.radii.size() == num_species && record.r4r2.size() == num_species &&
              record.coordination.size() == num_species && record.c6.size() == num_species,
          "tables of other species than the model's");
  for (std::size_t a = 0; a < num_species; ++a) {
    require(record.radii[a] > 0 && record.r4r2[a] > 0 && !record.coordination[a].empty(),
            "a species without numbers");
    require(record.c6[a].size() == num_species, "tables of other species than the model's");
    for (std::size_t b = 0; b < num_species; ++b)
      require(record.c6[a][b].size() == record.coordination[a].size() * record.coordination[b].size(),
              "C6 of other references than the coordination numbers");
  }
  require(record.smoothing >= 0 && record.cutoff > record.smoothing &&
              record.coordination_cutoff > record.smoothing && std::isfinite(record.cutoff) &&
              std::isfinite(record.coordination_cutoff),
          "cutoffs that are not larger than the smoothing");
}

DispersionRecord read(const json& spec) {
  DispersionRecord record;
  record.functional = spec.at("functional");
  record.by_host = spec.at("added_by") == "host";
  record.s6 = spec.at("s6");
  record.s8 = spec.at("s8");
  record.a1 = spec.at("a1");
  record.a2 = spec.at("a2").get<double>() * kBohr;
  record.cutoff = spec.at("cutoff");
  record.coordination_cutoff = spec.at("coordination_cutoff");
  record.smoothing = spec.at("smoothing");
  record.radii = spec.at("radii").get<std::vector<double>>();
  for (const double number : spec.at("r4r2").get<std::vector<double>>())
    record.r4r2.push_back(number * kBohr);
  record.coordination = spec.at("coordination").get<std::vector<std::vector<double>>>();
  for (const json& row : spec.at("c6")) {
    auto& blocks = record.c6.emplace_back();
    for (const json& block : row) {
      auto& numbers = blocks.emplace_back();
      for (const json& line : block)
        for (const double number : line) numbers.push_back(number * kHartree * std::pow(kBohr, 6));
    }
  }
  return record;
}

}  // namespace

std::size_t DispersionRecord::references() const {
  std::size_t most = 0;
  for (const auto& numbers : coordination) most = std::max(most, numbers.size());
  return most;
}

DispersionRecord read_dispersion(const std::string& text, std::size_t num_species) {
  try {
    const json spec = json::parse(text);
    const std::string method = spec.at("method");
    if (method != "d3bj")
      throw Error(ErrorKind::unsupported, "the model's dispersion '" + method +
                                              "' is not known to this version (it knows d3bj): update "
                                              "nearsight");
    DispersionRecord record = read(spec);
    check(record, num_species);
    return record;
  } catch (const json::exception& e) {
    damaged(e.what());
  }
}

}  // namespace nearsight
