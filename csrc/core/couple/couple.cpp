#include "core/couple/couple.hpp"

#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"

namespace nearsight {

std::unique_ptr<Couple> make_couple(const std::string& json, const std::vector<std::string>& species,
                                    const CoupleOptions& options) {
  try {
    const auto spec = nlohmann::json::parse(json);
    const std::string kind = spec.at("kind");
    if (kind == "sum") return make_sum(spec.value("members", 1));
    if (kind == "eigenstate") return make_eigenstate(spec.at("states"), spec.at("state"));
    if (kind == "coulomb") return make_coulomb(json, species, options);
    throw Error(
        ErrorKind::unsupported,
        "the model's couple '" + kind +
            "' is not known to this version (it knows sum, eigenstate and coulomb): update nearsight");
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorKind::file, std::string("the model's couple has a damaged record (") + e.what() +
                                     "): export the model again");
  }
}

}  // namespace nearsight
