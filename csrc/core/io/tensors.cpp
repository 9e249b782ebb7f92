#include "core/io/tensors.hpp"

#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"

namespace nearsight {
namespace {

using nlohmann::json;

std::string shape_text(const std::vector<std::size_t>& shape) {
  std::string text = "[";
  for (std::size_t k = 0; k < shape.size(); ++k) text += (k ? ", " : "") + std::to_string(shape[k]);
  return text + "]";
}

}  // namespace

/// safetensors: 8 bytes length (little endian), a JSON header, then the tensors' bytes.
Tensors read_safetensors(const std::string& origin, const std::string& bytes) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorKind::file, origin + " has damaged weights: " + what + "; export the model again");
  };
  std::uint64_t header_size = 0;
  if (bytes.size() < 8) fail("the header is missing");
  for (int k = 0; k < 8; ++k) header_size |= std::uint64_t(static_cast<unsigned char>(bytes[k])) << (8 * k);
  if (header_size > bytes.size() - 8) fail("the header is cut off");
  const std::size_t data = 8 + header_size;
  Tensors tensors{origin, {}};
  const json header = json::parse(bytes.begin() + 8, bytes.begin() + data);
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    if (entry.at("dtype") != "F64") fail("tensor '" + name + "' is not float64");
    WeightTensor tensor;
    tensor.shape = entry.at("shape").get<std::vector<std::size_t>>();
    const std::size_t begin = entry.at("data_offsets").at(0), end = entry.at("data_offsets").at(1);
    std::size_t count = 1;
    for (const auto n : tensor.shape) count *= n;
    if (end < begin || end > bytes.size() - data || end - begin != count * sizeof(double))
      fail("tensor '" + name + "' is cut off");
    tensor.values.resize(count);
    std::memcpy(tensor.values.data(), bytes.data() + data + begin, end - begin);
    tensors.by_name.emplace(name, std::move(tensor));
  }
  return tensors;
}

const WeightTensor* Tensors::find(const std::string& name) const {
  const auto found = by_name.find(name);
  return found == by_name.end() ? nullptr : &found->second;
}

const WeightTensor& Tensors::at(const std::string& name) const {
  if (const WeightTensor* const tensor = find(name)) return *tensor;
  throw Error(ErrorKind::file, origin + " lacks the weights '" + name + "': export the model again");
}

const WeightTensor& Tensors::at(const std::string& name, const std::vector<std::size_t>& shape) const {
  const WeightTensor& tensor = at(name);
  if (tensor.shape != shape)
    throw Error(ErrorKind::file, origin + ": weights '" + name + "' have shape " + shape_text(tensor.shape) +
                                     ", expected " + shape_text(shape) + ": export the model again");
  return tensor;
}

}  // namespace nearsight
