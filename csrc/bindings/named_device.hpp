#pragma once
#include <string>

#include "core/engine/device.hpp"
#include "core/engine/error.hpp"

/// "cpu", "cuda" or "cuda:1".
struct NamedDevice {
  nearsight::Device device = nearsight::Device::cpu;
  int index = -1;

  explicit NamedDevice(const std::string& name) {
    using namespace nearsight;
    if (name == "cpu") return;
    const std::string number = name.rfind("cuda:", 0) == 0 ? name.substr(5) : "";
    const bool is_number =
        !number.empty() && number.size() < 4 && number.find_first_not_of("0123456789") == std::string::npos;
    if (name != "cuda" && !is_number)
      throw Error(ErrorKind::argument, "device is '" + name + "', expected cpu, cuda or cuda:N");
    device = Device::cuda;
    if (is_number) index = std::stoi(number);
  }
};
