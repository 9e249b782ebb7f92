#include "core/models/descriptor.hpp"

#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"
#include "core/models/acsf/acsf.hpp"

namespace nearsight {

std::unique_ptr<Descriptor> make_descriptor(const std::string& record,
                                            const std::vector<std::string>& species, const Tensors& tensors) {
  using nlohmann::json;
  try {
    const json values = json::parse(record);
    const std::string kind = values.at("kind");
    if (kind == "acsf") return acsf::make_acsf(record, species);
    throw Error(ErrorKind::file, tensors.origin + ": descriptor kind '" + kind +
                                     "' is not known, expected acsf: update nearsight");
  } catch (const json::exception& e) {
    throw Error(ErrorKind::file,
                tensors.origin + " has a damaged descriptor (" + e.what() + "): export it again");
  }
}

}  // namespace nearsight
