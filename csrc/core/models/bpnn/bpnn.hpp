#pragma once
#include <memory>

#include "core/engine/potential.hpp"
#include "core/io/model_file.hpp"

namespace nearsight {

/// Descriptor and networks (architectures bpnn and linear). The file must outlive it; throws Error (file).
std::unique_ptr<Potential> make_bpnn(const ModelFile& file);

}  // namespace nearsight
