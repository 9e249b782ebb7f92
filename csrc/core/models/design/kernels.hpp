#pragma once
// The hot loop of assembling design rows, compiled once per instruction set; see shared/isa.hpp.
#include "core/models/shared/isa.hpp"

namespace nearsight {
namespace design {

/// What one center adds to the rows of its frame; `columns` of each row belong to its species.
template <class T>
struct Contribution {
  int num_edges, columns;
  long stride;          // of all rows
  const T* vectors;     // [edges][3]
  const T* jacobian;    // [3 * edges][columns]
  const int* neighbor;  // [edges] atom
  int atom;
  T* forces;  // [3 * atoms][stride]
  T* virial;  // [6][stride]
};

template <class T>
struct Kernels {
  void (*add)(const Contribution<T>&);
};

template <class T>
const Kernels<T>& kernels();

}  // namespace design
}  // namespace nearsight
