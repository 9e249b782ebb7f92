#pragma once
#include <memory>

#include "core/engine/potential.hpp"

namespace nearsight {

/// Architecture `none`: all readouts are 0, for a model that is nothing but its dispersion.
std::unique_ptr<Potential> make_none();

}  // namespace nearsight
