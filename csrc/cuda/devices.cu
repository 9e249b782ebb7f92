// What devices of every kind have in common.
#include "core/engine/device.hpp"
#include "core/engine/error.hpp"
#include "cuda/runtime.hpp"

namespace nearsight {
namespace cuda {

int choose_device(int index, int count) {
  if (index == kCurrentDevice) return index;
  if (index >= count)
    throw Error(ErrorKind::argument, "GPU number " + std::to_string(index) +
                                         " was asked for, but this machine has " + std::to_string(count) +
                                         ", numbered from 0: choose one of them");
  return index < 0 ? 0 : index;
}

}  // namespace cuda
}  // namespace nearsight
