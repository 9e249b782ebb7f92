#pragma once
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace nearsight {

/// Memory for std::free, null if there is none. Much of it is asked for in large pages: tables and features
/// are read in no order, and each small page would cost a walk through the tables of addresses.
inline void* aligned_memory(std::size_t bytes) {
  constexpr std::size_t kLine = 128, kLargePage = 2 << 20;
  const std::size_t unit = bytes < 2 * kLargePage ? kLine : kLargePage;
  const std::size_t whole = (bytes + unit - 1) / unit * unit;
  void* const memory = std::aligned_alloc(unit, whole);
#if defined(MADV_HUGEPAGE)
  if (memory && unit == kLargePage) madvise(memory, whole, MADV_HUGEPAGE);  // a wish; without it all works
#endif
  return memory;
}

/// A growing array aligned for the widest vectors; growing loses the content.
template <class T>
class AlignedBuffer {
 public:
  T* resize(std::size_t size) {
    if (size > capacity_) {
      const std::size_t capacity = std::max(size, capacity_ + capacity_ / 2);
      data_.reset(static_cast<T*>(aligned_memory(capacity * sizeof(T))));
      if (!data_) throw std::bad_alloc();
      capacity_ = capacity;
    }
    size_ = size;
    return data_.get();
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t k) { return data_.get()[k]; }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0, capacity_ = 0;
};

}  // namespace nearsight
