#pragma once
// What all ops share of the LibTorch stable ABI: one binary for torch 2.9 and newer.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include "core/engine/span.hpp"

#if !__has_include(<torch/headeronly/version.h>)
namespace torch::stable::detail {
using ::to;  // torch 2.9 has it in the global namespace
}
#endif

namespace nearsight {

using torch::stable::Tensor;

template <class T>
T argument(StableIValue value) {
  return torch::stable::detail::to<T>(value);
}

/// The numbers of a contiguous tensor, whose type the caller knows.
template <class T>
Span<T> span_of(const Tensor& tensor) {
  return {static_cast<T*>(tensor.data_ptr()), static_cast<std::size_t>(tensor.numel())};
}

}  // namespace nearsight
