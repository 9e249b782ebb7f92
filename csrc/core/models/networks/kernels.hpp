#pragma once
// The hot loops of dense networks, compiled once per instruction set (see core/models/shared/isa.hpp). Only
// plain structs and pointers cross this line, so that no template of the standard library is instantiated
// there.
#include "core/models/shared/isa.hpp"

namespace nearsight {
namespace networks {

enum class Activation {
  linear,
  tanh,
  silu,
  logistic,
  reversed_logistic,
  softplus,
  relu,
  gaussian,
  cos,
  exp_negative,
  square
};

template <class T>
struct Kernels {
  /// c[rows, columns] = a[rows, inner] b[inner, columns] + bias; columns and all leading dimensions padded.
  void (*multiply)(int rows, int inner, int columns, const T* a, int lda, const T* b, int ldb, const T* bias,
                   T* c, int ldc);
  /// z -> activation(z), derivative; count padded.
  void (*activate)(Activation, int count, T* z, T* derivative);
};

/// The table of this machine.
template <class T>
const Kernels<T>& kernels();

}  // namespace networks
}  // namespace nearsight
