#include "torch_ops/device.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "core/engine/error.hpp"

namespace nearsight {
namespace {

/// A torch without CUDA does not have this function, so it is looked up when the first op comes.
using CurrentStream = AOTITorchError(std::int32_t, void**);
CurrentStream* current_stream() {
  constexpr auto name = "aoti_torch_get_current_cuda_stream";
  static void* const found = [] {
    void* const of_torch = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    void* const address = of_torch ? dlsym(of_torch, name) : nullptr;
    return address ? address : dlsym(RTLD_DEFAULT, name);
  }();
  if (!found)
    throw Error(ErrorKind::unsupported,
                "a training op was called with tensors of a GPU, but this torch has no " + std::string(name) +
                    ": install torch with CUDA, 2.9 or newer, or train on the CPU");
  return reinterpret_cast<CurrentStream*>(found);
}

void check_emulation() {
  const char* const wanted = std::getenv("NEARSIGHT_CUDA");
  if (!wanted || std::string(wanted) != "emulated")
    throw Error(ErrorKind::argument,
                "ops of nearsight_device take tensors of the CPU only in tests, with NEARSIGHT_CUDA=emulated "
                "in the environment: call those of nearsight");
}

}  // namespace

TorchScope::TorchScope(const Tensor& tensor) {
  aoti_torch_get_device_type(tensor.get(), &type_);
  aoti_torch_get_device_index(tensor.get(), &index_);
  if (type_ == aoti_torch_device_type_cpu()) {
    check_emulation();
    index_ = 0;
  } else if (current_stream()(index_, &stream_) != 0) {
    throw Error(ErrorKind::internal,
                "torch did not give its current stream of GPU " + std::to_string(index_));
  }
}

void* TorchScope::allocate(std::size_t bytes) {
  const std::int64_t size = static_cast<std::int64_t>(bytes), stride = 1;
  AtenTensorHandle made = nullptr;
  if (aoti_torch_empty_strided(1, &size, &stride, aoti_torch_dtype_uint8(), type_, index_, &made) != 0)
    throw Error(ErrorKind::numeric, "torch has no " + std::to_string(bytes >> 20) +
                                        " MiB of memory left on the device: take smaller batches");
  memory_.emplace_back(made);
  void* const memory = memory_.back().data_ptr();
  // What tests would find as results that nobody wrote.
  if (type_ == aoti_torch_device_type_cpu()) std::memset(memory, 0xff, bytes);
  return memory;
}

}  // namespace nearsight
