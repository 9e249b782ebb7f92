#pragma once
#include <memory>
#include <string>

#include "core/engine/potential.hpp"
#include "core/io/model_file.hpp"

namespace nearsight {
namespace mace {

/// Whether NEARSIGHT_RADIALS in the environment asks for radial functions that are evaluated for every edge,
/// an oracle. Throws Error (argument) for an unknown wish.
bool wants_analytic_radials();

/// Message passing. Null, with the reason, for a model that the engine has no code for. Throws Error (file).
/// The file must outlive the potential.
std::unique_ptr<Potential> make_mace(const ModelFile& file, std::string& reason);

}  // namespace mace
}  // namespace nearsight
