#pragma once
// Last dense layers of readouts, in double.
#include <cstdint>

#include "cuda/device.hpp"

namespace nearsight {
namespace cuda {
namespace mace {

template <class T>
struct ReadoutWork {
  int rows, columns, inputs;
  bool is_hidden;  // inputs of the last layer are silu(x)
  const T* x;      // [rows][x_row], the first `inputs` of each row
  std::int64_t x_row;
  const double* weights;  // [inputs][columns]
  const double* scale;    // [columns]
};

/// What the first layer adds to the energy, the first column: species' energies and those of pairs.
struct Offsets {
  const std::int32_t* species;  // [rows]; null in later layers
  const double* shift;          // [species]
  const double* pair_energies;  // [rows]
};

/// Writes readouts[rows][columns] where there are offsets, else adds to them.
template <class T>
void read_out(const Stream& stream, const ReadoutWork<T>& work, const Offsets& offsets, double* readouts);

/// Adds the adjoints of x to of_x[rows][of_row], or with a hidden layer writes them, zero behind the inputs.
template <class T>
void read_out_reverse(const Stream& stream, const ReadoutWork<T>& work, const double* cotangents, T* of_x,
                      int of_row);

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
