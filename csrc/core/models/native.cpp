// The architectures that the core evaluates without libtorch.
#include "core/engine/model.hpp"
#include "core/models/bpnn/bpnn.hpp"
#include "core/models/mace/mace.hpp"
#include "core/models/none/none.hpp"
#include "core/models/reading.hpp"

namespace nearsight {

std::unique_ptr<Potential> make_native_potential(const ModelFile& file, std::string& reason) {
  return reading(file, [&]() -> std::unique_ptr<Potential> {
    if (file.architecture == "bpnn" || file.architecture == "linear") return make_bpnn(file);
    if (file.architecture == "mace") return mace::make_mace(file, reason);
    if (file.architecture == "none") return make_none();
    return nullptr;
  });
}

}  // namespace nearsight
