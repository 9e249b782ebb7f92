#pragma once
#include <algorithm>

#include "cuda/runtime.hpp"

namespace nearsight {
namespace cuda {

/// Numbers of the host and their copy on the device.
template <class T>
class Mirror {
 public:
  /// Returns whether they have changed: only then they travel.
  bool update(const Stream& stream, Span<const T> now) {
    if (now.size() == host_.size() && std::equal(now.begin(), now.end(), host_.data())) return false;
    std::copy(now.begin(), now.end(), host_.resize(now.size()));
    device_.upload(stream, {host_.data(), host_.size()});
    return true;
  }
  const T* data() const { return device_.data(); }
  std::size_t size() const { return host_.size(); }

 private:
  Pinned<T> host_;
  Buffer<T> device_;
};

}  // namespace cuda
}  // namespace nearsight
