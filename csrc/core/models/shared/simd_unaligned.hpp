#pragma once
// Vectors at any address, for kernels that read tensors of others; internal linkage as in simd.hpp.
#include "core/models/shared/simd.hpp"

namespace nearsight {
namespace {
namespace simd {

template <class T>
struct Unaligned {
  typedef T vec __attribute__((vector_size(NEARSIGHT_VECTOR_BYTES), aligned(alignof(T)), may_alias));
};
template <class T>
inline Vec<T> load_anywhere(const T* p) {
  return *reinterpret_cast<const typename Unaligned<T>::vec*>(p);
}
template <class T>
inline void store_anywhere(T* p, Vec<T> v) {
  *reinterpret_cast<typename Unaligned<T>::vec*>(p) = v;
}

}  // namespace simd
}  // namespace
}  // namespace nearsight
