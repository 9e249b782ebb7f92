#pragma once
#include <vector>

#include "cuda/runtime.hpp"

namespace nearsight {
namespace cuda {

/// Constants of a model in device memory; they stay where they are as long as this lives.
class Tables {
 public:
  /// Null for none.
  template <class T>
  const T* keep(const Stream& stream, Span<const T> values) {
    if (values.empty()) return nullptr;
    buffers_.emplace_back();
    buffers_.back().resize(values.size() * sizeof(T));
    copy_to_device(stream, buffers_.back().data(), values.data(), values.size() * sizeof(T));
    return reinterpret_cast<const T*>(buffers_.back().data());
  }
  template <class T>
  const T* keep(const Stream& stream, const std::vector<T>& values) {
    return keep(stream, Span<const T>(values));
  }

 private:
  std::vector<Buffer<unsigned char>> buffers_;
};

}  // namespace cuda
}  // namespace nearsight
