#include "core/models/descriptor.hpp"

#include <limits>
#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"
#include "core/models/acsf/acsf.hpp"
#include "core/models/ani/ani.hpp"

namespace nearsight {

Span<const Range> DescriptorWorkspace::active() const {
  static const Range all[] = {{0, std::numeric_limits<int>::max()}};
  return {all, 1};
}

std::unique_ptr<Descriptor> make_descriptor(const std::string& record,
                                            const std::vector<std::string>& species, const Tensors& tensors) {
  using nlohmann::json;
  try {
    const json values = json::parse(record);
    const std::string kind = values.at("kind");
    if (kind == "acsf") return acsf::make_acsf(record, species);
    if (kind == "ani") return ani::make_ani(record, species);
    throw Error(ErrorKind::file, tensors.origin + ": descriptor kind '" + kind +
                                     "' is not known, expected acsf or ani: update nearsight");
  } catch (const json::exception& e) {
    throw Error(ErrorKind::file,
                tensors.origin + " has a damaged descriptor (" + e.what() + "): export it again");
  }
}

}  // namespace nearsight
