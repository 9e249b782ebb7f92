#pragma once
#include <string>

namespace nearsight {

/// Writes one line to standard error. For what a user should know although the run goes on; the caller sees
/// to it that it is said once.
void warn(const std::string& message);

}  // namespace nearsight
