#pragma once
#include <map>
#include <string>
#include <vector>

namespace nearsight {

/// A tensor of the raw weights, in double and C order.
struct WeightTensor {
  std::vector<std::size_t> shape;
  std::vector<double> values;
};

/// Named tensors; `origin` is how messages call the place that they come from.
struct Tensors {
  std::string origin;
  std::map<std::string, WeightTensor> by_name;

  /// Null if there is no such tensor.
  const WeightTensor* find(const std::string& name) const;
  /// Throws Error (file) if there is no such tensor.
  const WeightTensor& at(const std::string& name) const;
  /// Throws Error (file) if there is no such tensor or its shape is another.
  const WeightTensor& at(const std::string& name, const std::vector<std::size_t>& shape) const;
};

/// The bytes of a safetensors file with float64 tensors; throws Error (file) for a damaged one.
Tensors read_safetensors(const std::string& origin, const std::string& bytes);

}  // namespace nearsight
