#pragma once
#include <cstddef>

namespace nearsight {

/// Where an op of a host works: one of its devices, a stream of the host, and memory of the host's allocator
/// that lasts until the op ends.
class DeviceScope {
 public:
  virtual ~DeviceScope() = default;
  virtual int device() const = 0;
  virtual void* stream() const = 0;
  /// For 256 bytes at a time.
  virtual void* allocate(std::size_t bytes) = 0;
};

}  // namespace nearsight
