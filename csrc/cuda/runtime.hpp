#pragma once
// Devices, streams and memory; kernels and their hosts know no other CUDA calls than these.
#include <cstddef>
#include <functional>
#include <string>
#include <utility>

#include "core/engine/span.hpp"

namespace nearsight {
namespace cuda {

/// How many devices there are. Throws Error (unsupported) where CUDA cannot be used at all: no driver, one
/// that is too old, no device.
int num_devices();

/// Makes `index` the device of this thread's further calls, a negative one the first; returns its number.
/// kCurrentDevice leaves the thread as it is. Throws Error (argument) for a device that is not there.
int use_device(int index);

/// The number of the device that `index` names among `count`, or kCurrentDevice; for use_device().
int choose_device(int index, int count);

/// A device for as long as this lives; then that of before again.
class DeviceGuard {
 public:
  explicit DeviceGuard(int index);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0, now_;
};

/// "NVIDIA H200, 139.8 GiB, driver 580.65 (CUDA 13.0)".
std::string describe_device(int index);

struct Memory {
  std::size_t free, total;  // bytes
};
Memory device_memory();

/// Work in order. The host's stream, or one of its own.
class Stream {
 public:
  Stream();
  explicit Stream(void* of_host) : handle_(of_host), owned_(false) {}
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void* handle() const { return handle_; }
  /// Waits until everything is done. Throws Error (internal) with what went wrong on the device.
  void synchronize() const;
  /// What is queued from now on begins after all that is queued on a stream of the host.
  void wait_for(void* of_host) const;

 private:
  void* handle_ = nullptr;
  bool owned_ = true;
};

/// Throws Error (numeric) with a sentence about the card's memory where it has not enough.
void* allocate(std::size_t bytes);
void release(void* memory) noexcept;
/// Host memory that copies need not stage.
void* allocate_pinned(std::size_t bytes);
void release_pinned(void* memory) noexcept;

void copy_to_device(const Stream& stream, void* to, const void* from, std::size_t bytes);
void copy_to_host(const Stream& stream, void* to, const void* from, std::size_t bytes);
void copy_on_device(const Stream& stream, void* to, const void* from, std::size_t bytes);
void fill_bytes(const Stream& stream, void* memory, int byte, std::size_t bytes);

/// How long queued work takes on the device, s. Waits for it.
double measure_seconds(const Stream& stream, const std::function<void()>& work);

/// For launch().
void allow_shared(const void* kernel, std::size_t bytes);
void check_launch();

/// Memory that grows, of the device or pinned; growing loses the contents. With NEARSIGHT_CUDA_POISON in the
/// environment new memory holds NaN, and resize() makes it so again.
template <class T, void* (*Allocate)(std::size_t), void (*Release)(void*) noexcept>
class Growing {
 public:
  Growing() = default;
  explicit Growing(std::size_t size) { resize(size); }
  ~Growing() { Release(data_); }
  Growing(Growing&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  Growing& operator=(Growing&& other) noexcept {
    std::swap(data_, other.data_), std::swap(size_, other.size_), std::swap(capacity_, other.capacity_);
    return *this;
  }

  T* resize(std::size_t size) {
    if (size > capacity_) {
      Release(std::exchange(data_, nullptr));
      // A little more for systems whose numbers of atoms and neighbors change from step to step.
      const std::size_t wanted = capacity_ ? size + size / 8 : size;
      size_ = capacity_ = 0;
      data_ = static_cast<T*>(Allocate(wanted * sizeof(T)));
      capacity_ = wanted;
    }
    size_ = size;
    return data_;
  }
  T* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  Span<T> span() const { return {data_, size_}; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0, capacity_ = 0;
};

template <class T>
class Buffer : public Growing<T, allocate, release> {
 public:
  using Growing<T, allocate, release>::Growing;

  void upload(const Stream& stream, Span<const T> from) {
    this->resize(from.size());
    if (!from.empty()) copy_to_device(stream, this->data(), from.data(), from.size() * sizeof(T));
  }
  /// `to` is there after Stream::synchronize().
  void download(const Stream& stream, Span<T> to) const {
    if (!to.empty()) copy_to_host(stream, to.data(), this->data(), to.size() * sizeof(T));
  }
  T* clear(const Stream& stream, std::size_t size) {
    this->resize(size);
    if (size) fill_bytes(stream, this->data(), 0, size * sizeof(T));
    return this->data();
  }
};

template <class T>
using Pinned = Growing<T, allocate_pinned, release_pinned>;

}  // namespace cuda
}  // namespace nearsight
