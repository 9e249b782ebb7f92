#pragma once
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

namespace nearsight {

/// A growing array aligned for the widest vectors; growing loses the content.
template <class T>
class AlignedBuffer {
 public:
  T* resize(std::size_t size) {
    if (size > capacity_) {
      const std::size_t bytes = (std::max(size, capacity_ + capacity_ / 2) * sizeof(T) + 127) / 128 * 128;
      data_.reset(static_cast<T*>(std::aligned_alloc(128, bytes)));
      if (!data_) throw std::bad_alloc();
      capacity_ = bytes / sizeof(T);
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
