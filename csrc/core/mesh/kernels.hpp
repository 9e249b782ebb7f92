#pragma once
// The hot loop over pairs, compiled once per instruction set (see core/models/shared/isa.hpp).
#include "core/models/shared/isa.hpp"

namespace nearsight {
namespace mesh {

/// erfc(α r) / r and its derivative over r, for `count` squared distances: a multiple of kPad, arrays aligned
/// to 64 bytes.
template <class T>
struct Kernels {
  void (*screened)(int count, T alpha, const T* r2, T* values, T* slopes);
};
template <class T>
const Kernels<T>& kernels();
template <>
const Kernels<double>& kernels<double>();

}  // namespace mesh
}  // namespace nearsight
