#include "core/models/bpnn/ranges.hpp"

#include <algorithm>
#include <cmath>

namespace nearsight {
namespace {

/// What a feature may lie outside of its range by round-off of single precision, relative to its size and to
/// what the networks' scale makes one.
constexpr double kRounding = 1e-5;

}  // namespace

FeatureRanges read_ranges(const ModelFile& file, const std::vector<int>& num_features) {
  FeatureRanges r;
  r.first.assign(num_features.size(), -1);
  for (std::size_t s = 0; s < num_features.size(); ++s) {
    const std::string& symbol = file.species[s];
    const std::size_t count = num_features[s];
    if (!file.weights.find(symbol + ".min")) continue;
    const auto& minimum = file.weights.at(symbol + ".min", {count}).values;
    const auto& maximum = file.weights.at(symbol + ".max", {count}).values;
    const auto& scale = file.weights.at(symbol + ".scale", {count}).values;
    const auto labels = file.labels.find(symbol);
    const bool labelled = labels != file.labels.end() && labels->second.size() == count;
    r.first[s] = static_cast<int>(r.features.size());
    for (std::size_t n = 0; n < count; ++n) {
      r.features.push_back({static_cast<int>(s), labelled ? labels->second[n] : std::to_string(n + 1),
                            minimum[n], maximum[n]});
      const double size = std::max(std::abs(minimum[n]), std::abs(maximum[n]));
      const double margin = kRounding * (size + (scale[n] != 0.0 ? 1.0 / std::abs(scale[n]) : 0.0));
      r.lowest.push_back(minimum[n] - margin);
      r.highest.push_back(maximum[n] + margin);
    }
  }
  return r;
}

}  // namespace nearsight
