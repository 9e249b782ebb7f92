#include "core/engine/warning.hpp"

#include <cstdio>

namespace nearsight {

void warn(const std::string& message) {
  std::fprintf(stderr, "nearsight: warning: %s\n", message.c_str());
}

}  // namespace nearsight
