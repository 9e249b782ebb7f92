#include "core/io/model_file.hpp"

#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"
#include "core/io/zip.hpp"

namespace nearsight {
namespace {

using nlohmann::json;

void fill(ModelFile& file, const json& meta) {
  file.architecture = meta.at("architecture");
  file.hyperparameters = meta.at("hyperparameters").dump();
  file.couple = meta.at("couple").dump();
  if (meta.contains("dispersion")) file.dispersion = meta.at("dispersion").dump();
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
    if (version < kFormatVersion)
      throw Error(ErrorKind::file, "'" + path + "' has format version " + std::to_string(version) +
                                       ", older than any that this nearsight reads (" +
                                       std::to_string(kFormatVersion) +
                                       "): export the model again from its run directory");
    fill(file, meta);
    std::string weights;
    if (file.native) {
      if (!zip.read("/extra/weights.safetensors", weights))
        throw Error(ErrorKind::file,
                    "'" + path + "' has no weights.safetensors inside: export the model again");
      file.weights = read_safetensors("'" + path + "'", weights);
      std::string labels;
      if (zip.read("/extra/labels.json", labels)) json::parse(labels).get_to(file.labels);
    }
  } catch (const json::exception& e) {
    throw Error(ErrorKind::file,
                "'" + path + "' has damaged metadata (" + e.what() + "): export the model again");
  }
  return file;
}

}  // namespace nearsight
