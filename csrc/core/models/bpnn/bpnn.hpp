#pragma once
#include <memory>
#include <string>

#include "core/engine/potential.hpp"
#include "core/io/model_file.hpp"

namespace nearsight {

/// What a file's hyperparameters say.
struct BpnnRecord {
  std::string descriptor, descriptor_kind, networks;  // records in JSON, and the kind of the first
  int members, columns;                               // of the networks: columns of each member
  bool has_small_networks;                            // which stay in double also in mixed precision
};

/// Throws Error (file), or what JSON readers throw.
BpnnRecord read_bpnn(const ModelFile& file);

/// Descriptor and networks (architectures bpnn and linear). The file must outlive it; throws Error (file).
std::unique_ptr<Potential> make_bpnn(const ModelFile& file);

}  // namespace nearsight
