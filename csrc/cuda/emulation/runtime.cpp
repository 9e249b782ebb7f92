// A device that is the host. NEARSIGHT_EMULATED_DEVICES says how many there are (1), and
// NEARSIGHT_EMULATED_BYTES how much memory can be had (all).
#include "cuda/runtime.hpp"

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

#include "core/engine/device.hpp"
#include "core/engine/error.hpp"

namespace nearsight {
namespace cuda {
namespace {

long long number(const char* name, long long otherwise) {
  const char* const text = std::getenv(name);
  return text ? std::atoll(text) : otherwise;
}

}  // namespace

int num_devices() {
  const int count = static_cast<int>(number("NEARSIGHT_EMULATED_DEVICES", 1));
  if (count > 0) return count;
  throw Error(ErrorKind::unsupported, "there are no emulated devices");
}

int use_device(int index) {
  return choose_device(index, num_devices());
}

DeviceGuard::DeviceGuard(int index) : now_(index) {}
DeviceGuard::~DeviceGuard() = default;

std::string describe_device(int) {
  return "emulated on the CPU, for tests";
}

Memory device_memory() {
  const auto all = static_cast<std::size_t>(number("NEARSIGHT_EMULATED_BYTES", 1LL << 40));
  return {all, all};
}

Stream::Stream() = default;
Stream::~Stream() = default;
void Stream::synchronize() const {}
void Stream::wait_for(void*) const {}

void* allocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  void* memory = bytes <= device_memory().free ? std::aligned_alloc(256, (bytes + 255) / 256 * 256) : nullptr;
  if (!memory) throw Error(ErrorKind::numeric, "the emulated GPU has no " + std::to_string(bytes) + " bytes");
  std::memset(memory, 0xff, bytes);
  return memory;
}
void release(void* memory) noexcept {
  std::free(memory);
}
void* allocate_pinned(std::size_t bytes) {
  return allocate(bytes);
}
void release_pinned(void* memory) noexcept {
  release(memory);
}

void copy_to_device(const Stream&, void* to, const void* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}
void copy_to_host(const Stream&, void* to, const void* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}
void copy_on_device(const Stream&, void* to, const void* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}
void fill_bytes(const Stream&, void* memory, int byte, std::size_t bytes) {
  std::memset(memory, byte, bytes);
}
double measure_seconds(const Stream&, const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}
void allow_shared(const void*, std::size_t) {}
void check_launch() {}

}  // namespace cuda
}  // namespace nearsight
