#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/io/tensors.hpp"

namespace nearsight {

/// What docs/file_format.md describes: metadata and raw weights of a model file, read without libtorch.
struct ModelFile {
  std::string path;
  std::string metadata;  // text of nearsight.json
  std::string architecture;
  std::string hyperparameters;  // JSON text
  std::string couple;           // JSON text
  std::string dispersion;       // JSON text, empty without
  std::vector<std::string> species;
  std::vector<double> reference_energies;  // [species] eV
  double cutoff = 0.0;                     // Å
  int num_interactions = 1;
  struct Readout {
    std::string name;
    int columns;
  };
  std::vector<Readout> readouts;
  bool native = false;
  Tensors weights;                                         // empty unless native
  std::map<std::string, std::vector<std::string>> labels;  // of the features of each species; may be missing

  int num_columns() const;
};

/// Newest format_version that this library reads.
constexpr int kFormatVersion = 2;

/// Throws Error (file) with one sentence for a missing, truncated, corrupted, foreign or newer file.
ModelFile read_model_file(const std::string& path);

}  // namespace nearsight
