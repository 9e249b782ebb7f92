#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

#include "core/engine/device.hpp"
#include "core/engine/error.hpp"
#include "cuda/runtime.hpp"

namespace nearsight {
namespace cuda {
namespace {

std::string version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

std::string gibibytes(std::size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f GiB", static_cast<double>(bytes) / (1 << 30));
  return text;
}

[[noreturn]] void fail(cudaError_t status, const char* where) {
  throw Error(ErrorKind::internal, std::string("CUDA failed in ") + where + ": " +
                                       cudaGetErrorString(status) +
                                       "; run once more with CUDA_LAUNCH_BLOCKING=1, and report it");
}

void check(cudaError_t status, const char* where) {
  if (status != cudaSuccess) fail(status, where);
}

cudaStream_t of(const Stream& stream) {
  return static_cast<cudaStream_t>(stream.handle());
}

bool poisons() {
  static const bool wanted = std::getenv("NEARSIGHT_CUDA_POISON") != nullptr;
  return wanted;
}

}  // namespace

int num_devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    if (driver > 0)
      throw Error(ErrorKind::unsupported, "the NVIDIA driver of this machine knows CUDA " + version(driver) +
                                              ", but nearsight was built with CUDA " +
                                              version(CUDART_VERSION) +
                                              ": update the driver, or use device cpu");
    throw Error(
        ErrorKind::unsupported,
        "device cuda was asked for, but this machine has no NVIDIA driver: install it, or use device cpu");
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0))
    throw Error(ErrorKind::unsupported,
                "device cuda was asked for, but the NVIDIA driver finds no GPU: check nvidia-smi and "
                "CUDA_VISIBLE_DEVICES, or use device cpu");
  check(status, "the search for GPUs");
  return count;
}

int use_device(int index) {
  const int chosen = choose_device(index, num_devices());
  if (chosen == kCurrentDevice) return chosen;
  const cudaError_t status = cudaSetDevice(chosen);
  if (status == cudaErrorMemoryAllocation)
    throw Error(ErrorKind::numeric, "GPU " + std::to_string(chosen) +
                                        " has no free memory even to begin with: end what else runs on it");
  check(status, "the choice of a GPU");
  return chosen;
}

DeviceGuard::DeviceGuard(int index) : now_(index) {
  check(cudaGetDevice(&before_), "the question for the present GPU");
  if (before_ != now_) check(cudaSetDevice(now_), "the choice of a GPU");
}

DeviceGuard::~DeviceGuard() {
  if (before_ != now_) cudaSetDevice(before_);
}

std::string describe_device(int index) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "the description of a GPU");
  int driver = 0;
  check(cudaDriverGetVersion(&driver), "the version of the driver");
  return std::string(properties.name) + ", " + gibibytes(properties.totalGlobalMem) + ", driver of CUDA " +
         version(driver);
}

Memory device_memory() {
  Memory memory{};
  check(cudaMemGetInfo(&memory.free, &memory.total), "the look at free memory");
  return memory;
}

Stream::Stream() {
  cudaStream_t made = nullptr;
  check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "the creation of a stream");
  handle_ = made;
}

Stream::~Stream() {
  if (owned_) cudaStreamDestroy(static_cast<cudaStream_t>(handle_));
}

void Stream::synchronize() const {
  check(cudaStreamSynchronize(of(*this)), "a kernel");
}

void Stream::wait_for(void* of_host) const {
  cudaEvent_t event;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "the creation of an event");
  const cudaError_t recorded = cudaEventRecord(event, static_cast<cudaStream_t>(of_host));
  const cudaError_t waits = recorded ? recorded : cudaStreamWaitEvent(of(*this), event, 0);
  cudaEventDestroy(event);  // as soon as it has happened
  check(waits, "the wait for the host's stream");
}

void* allocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // clears it
    const Memory now = device_memory();
    throw Error(ErrorKind::numeric, "the GPU has " + gibibytes(now.free) + " of " + gibibytes(now.total) +
                                        " free, and this system needs " + gibibytes(bytes) +
                                        " more: use more GPUs, or a smaller system");
  }
  check(status, "an allocation");
  if (poisons()) check(cudaMemset(memory, 0xff, bytes), "the poisoning of memory");
  return memory;
}

void release(void* memory) noexcept {
  if (memory) cudaFree(memory);
}

void* allocate_pinned(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  void* memory = nullptr;
  check(cudaMallocHost(&memory, bytes), "an allocation of pinned memory");
  return memory;
}

void release_pinned(void* memory) noexcept {
  if (memory) cudaFreeHost(memory);
}

void copy_to_device(const Stream& stream, void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, of(stream)), "a copy to the GPU");
}
void copy_to_host(const Stream& stream, void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, of(stream)), "a copy from the GPU");
}
void copy_on_device(const Stream& stream, void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, of(stream)), "a copy on the GPU");
}
void fill_bytes(const Stream& stream, void* memory, int byte, std::size_t bytes) {
  check(cudaMemsetAsync(memory, byte, bytes, of(stream)), "the filling of memory");
}

double measure_seconds(const Stream& stream, const std::function<void()>& work) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "the creation of an event");
  check(cudaEventCreate(&end), "the creation of an event");
  check(cudaEventRecord(begin, of(stream)), "an event");
  work();
  check(cudaEventRecord(end, of(stream)), "an event");
  check(cudaEventSynchronize(end), "a kernel");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, begin, end), "the reading of a clock");
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return 1e-3 * milliseconds;
}

void allow_shared(const void* kernel, std::size_t bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "the request for shared memory");
}

void check_launch() {
  check(cudaGetLastError(), "the start of a kernel");
}

}  // namespace cuda
}  // namespace nearsight
