#pragma once
#include <vector>

#include "core/engine/potential.hpp"
#include "core/io/model_file.hpp"

namespace nearsight {

/// The features of each species whose ranges in the training set are in the file, one after the other.
struct FeatureRanges {
  std::vector<Feature> features;
  std::vector<double> lowest, highest;  // the ranges with room for round-off
  std::vector<int> first;               // [species] number of its first feature, -1 without ranges
};

/// Throws Error (file) for ranges of other sizes than num_features[species].
FeatureRanges read_ranges(const ModelFile& file, const std::vector<int>& num_features);

}  // namespace nearsight
