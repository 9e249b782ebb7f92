#pragma once
// Ops on tensors of a GPU: torch's current stream and its memory. This library knows no CUDA: kernels are
// those of libnearsight_cuda.so, which the core opens.
#include <vector>

#include "core/engine/device_scope.hpp"
#include "torch_ops/stable.hpp"

namespace nearsight {

/// Where the op of a tensor works. In CPU tensors it takes those of tests with NEARSIGHT_CUDA=emulated.
class TorchScope : public DeviceScope {
 public:
  /// Throws Error (unsupported) where this torch or this build has no CUDA.
  explicit TorchScope(const Tensor& tensor);

  int device() const override { return index_; }
  void* stream() const override { return stream_; }
  void* allocate(std::size_t bytes) override;

 private:
  std::int32_t type_ = 0, index_ = 0;
  void* stream_ = nullptr;
  std::vector<Tensor> memory_;
};

}  // namespace nearsight
