#pragma once
#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"
#include "core/io/model_file.hpp"

namespace nearsight {

/// Calls body(); throws Error (file) in place of what a damaged record makes the JSON reader throw.
template <class Body>
auto reading(const ModelFile& file, const Body& body) {
  try {
    return body();
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorKind::file,
                "'" + file.path + "' has damaged hyperparameters (" + e.what() + "): export it again");
  }
}

}  // namespace nearsight
