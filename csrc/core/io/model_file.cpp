#include "core/io/model_file.hpp"

#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"
#include "core/io/zip.hpp"

namespace nearsight {
namespace {

using nlohmann::json;

std::string shape_text(const std::vector<std::size_t>& shape) {
  std::string text = "[";
  for (std::size_t k = 0; k < shape.size(); ++k) text += (k ? ", " : "") + std::to_string(shape[k]);
  return text + "]";
}

/// safetensors: 8 bytes length (little endian), a JSON header, then the tensors' bytes.
std::map<std::string, WeightTensor> read_safetensors(const std::string& path, const std::string& bytes) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorKind::file, "'" + path + "' has damaged weights: " + what + "; export the model again");
  };
  std::uint64_t header_size = 0;
  if (bytes.size() < 8) fail("the header is missing");
  for (int k = 0; k < 8; ++k) header_size |= std::uint64_t(static_cast<unsigned char>(bytes[k])) << (8 * k);
  if (header_size > bytes.size() - 8) fail("the header is cut off");
  const std::size_t data = 8 + header_size;
  std::map<std::string, WeightTensor> tensors;
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
    tensors.emplace(name, std::move(tensor));
  }
  return tensors;
}

void fill(ModelFile& file, const json& meta) {
  file.architecture = meta.at("architecture");
  file.hyperparameters = meta.at("hyperparameters").dump();
  file.couple = meta.at("couple").dump();
  file.species = meta.at("species").get<std::vector<std::string>>();
  file.cutoff = meta.at("cutoff");
  file.num_interactions = meta.at("num_interactions");
  for (const auto& r : meta.at("readouts")) file.readouts.push_back({r.at("name"), r.at("columns")});
  for (const auto& symbol : file.species)
    file.reference_energies.push_back(meta.at("reference_energies").value(symbol, 0.0));
  file.native = meta.value("native", false);
  const json units = meta.at("units");
  if (units.at("length") != "angstrom" || units.at("energy") != "eV")
    throw Error(ErrorKind::file, "'" + file.path + "' is in units " + units.dump() +
                                     ", expected angstrom and eV: export the model again in these units");
  if (file.species.empty() || !(file.cutoff > 0.0) || file.num_interactions < 1 || file.readouts.empty())
    throw Error(ErrorKind::file,
                "'" + file.path +
                    "' has metadata that cannot be right: species, cutoff, num_interactions and "
                    "readouts must be given and positive");
}

}  // namespace

int ModelFile::num_columns() const {
  int columns = 0;
  for (const auto& r : readouts) columns += r.columns;
  return columns;
}

const WeightTensor& ModelFile::weight(const std::string& name, const std::vector<std::size_t>& shape) const {
  const auto found = weights.find(name);
  if (found == weights.end())
    throw Error(ErrorKind::file, "'" + path + "' lacks the weights '" + name + "': export the model again");
  if (found->second.shape != shape)
    throw Error(ErrorKind::file, "'" + path + "': weights '" + name + "' have shape " +
                                     shape_text(found->second.shape) + ", expected " + shape_text(shape) +
                                     ": export the model again");
  return found->second;
}

ModelFile read_model_file(const std::string& path) {
  const ZipReader zip(path);
  ModelFile file;
  file.path = path;
  if (!zip.read("/extra/nearsight.json", file.metadata))
    throw Error(ErrorKind::file,
                "'" + path +
                    "' is not a nearsight model: it has no nearsight.json inside (a TorchScript file "
                    "of another program?); write it with `nearsight export`");
  try {
    const json meta = json::parse(file.metadata);
    if (meta.value("format", "") != "nearsight")
      throw Error(ErrorKind::file,
                  "'" + path + "' is not a nearsight model: its nearsight.json says otherwise");
    const int version = meta.at("format_version");
    if (version > kFormatVersion)
      throw Error(ErrorKind::file, "'" + path + "' has format version " + std::to_string(version) +
                                       ", this nearsight " NEARSIGHT_VERSION " reads up to " +
                                       std::to_string(kFormatVersion) + ": update nearsight");
    fill(file, meta);
    std::string weights;
    if (file.native) {
      if (!zip.read("/extra/weights.safetensors", weights))
        throw Error(ErrorKind::file,
                    "'" + path + "' has no weights.safetensors inside: export the model again");
      file.weights = read_safetensors(path, weights);
    }
  } catch (const json::exception& e) {
    throw Error(ErrorKind::file,
                "'" + path + "' has damaged metadata (" + e.what() + "): export the model again");
  }
  return file;
}

}  // namespace nearsight
