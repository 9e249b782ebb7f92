#pragma once
// The hot loops of dense networks, compiled once per instruction set (see core/models/shared/isa.hpp). Only
// plain structs and pointers cross this line, so that no template of the standard library is instantiated
// there.
#include "core/models/shared/isa.hpp"
#include "core/models/shared/range.hpp"

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
  square,
  celu,
  gelu
};

/// c = a b + bias, or c += a b, then c *= factor; see the members. b is stored in panels of kPad columns:
/// [panels][inner][kPad]. It may have more rows and panels than take part.
template <class T>
struct Product {
  int rows;
  const T* a;  // [rows][lda]; its columns are, one after the other, the rows of b that `runs` names
  int lda;
  const Range* runs;
  int num_runs;
  const T* b;
  int inner;          // rows of b
  const int* panels;  // the panels of b that make the columns of c; null: 0, 1, …
  int num_panels;
  const T* bias;  // [all columns of b], or null
  bool add;       // to what stands in c
  T* c;           // [rows][ldc]
  int ldc;
  const T* factor;  // [rows][ldc], or null
};

template <class T>
struct Kernels {
  void (*multiply)(const Product<T>&);
  /// z -> activation(z), derivative; count padded.
  void (*activate)(Activation, int count, T* z, T* derivative);
  /// z -> activation(z), first and second derivative; count padded.
  void (*activate_twice)(Activation, int count, T* z, T* derivative, T* second);
};

/// The table of this machine.
template <class T>
const Kernels<T>& kernels();

}  // namespace networks
}  // namespace nearsight
