#pragma once
#include <vector>

#include "core/engine/device_scope.hpp"
#include "cuda/runtime.hpp"

namespace nearsight {
namespace cuda {
namespace training {

/// An op at work: its device, stream and memory.
class Work {
 public:
  explicit Work(DeviceScope& scope) : stream(scope.stream()), scope_(scope), guard_(scope.device()) {}

  const Stream stream;

  template <class T>
  T* take(std::size_t count) {
    return count ? static_cast<T*>(scope_.allocate(count * sizeof(T))) : nullptr;
  }
  template <class T>
  T* take_filled(std::size_t count, int byte) {
    T* const memory = take<T>(count);
    if (count) fill_bytes(stream, memory, byte, count * sizeof(T));
    return memory;
  }
  /// A copy on the device of a small table; the host's may go at once, as pageable memory does.
  template <class T>
  const T* copied(const T* table, std::size_t count) {
    T* const memory = take<T>(count);
    if (count) copy_to_device(stream, memory, table, count * sizeof(T));
    return memory;
  }
  template <class T>
  const T* copied(const std::vector<T>& table) {
    return copied(table.data(), table.size());
  }

 private:
  DeviceScope& scope_;
  DeviceGuard guard_;
};

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
