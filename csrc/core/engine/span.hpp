#pragma once
#include <cstddef>
#include <type_traits>
#include <vector>

namespace nearsight {

/// A pointer and a length; std::span for C++17. A null span stands for "not wanted".
template <class T>
class Span {
 public:
  Span() = default;
  Span(T* data, std::size_t size) : data_(data), size_(size) {}
  template <class U, class = std::enable_if_t<std::is_convertible<U (*)[], T (*)[]>::value>>
  Span(const Span<U>& other) : data_(other.data()), size_(other.size()) {}
  template <class U, class = std::enable_if_t<std::is_convertible<U (*)[], T (*)[]>::value>>
  Span(std::vector<U>& v) : data_(v.data()), size_(v.size()) {}
  template <class U, class = std::enable_if_t<std::is_convertible<const U (*)[], T (*)[]>::value>>
  Span(const std::vector<U>& v) : data_(v.data()), size_(v.size()) {}

  T* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  explicit operator bool() const { return data_ != nullptr; }
  T& operator[](std::size_t k) const { return data_[k]; }
  T* begin() const { return data_; }
  T* end() const { return data_ + size_; }
  Span subspan(std::size_t first, std::size_t count) const { return Span(data_ + first, count); }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace nearsight
