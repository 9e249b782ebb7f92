#pragma once
// Arguments that several bindings read.
#include <pybind11/numpy.h>

#include <array>
#include <string>

#include "core/engine/error.hpp"
#include "core/neighbors/neighbor_list.hpp"

namespace nearsight {

namespace py = pybind11;
using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

[[noreturn]] inline void wrong_shape(const char* name, const char* expected, const py::array& found) {
  throw Error(ErrorKind::argument, std::string(name) + " has shape " +
                                       py::str(found.attr("shape")).cast<std::string>() + ", but " +
                                       expected + " is expected: reshape it");
}

inline Span<const double> read_positions(const Doubles& positions) {
  if (positions.ndim() != 2 || positions.shape(1) != 3) wrong_shape("positions", "(n, 3)", positions);
  return {positions.data(), static_cast<std::size_t>(positions.size())};
}

/// Vectors of non-periodic directions are zero.
inline Cell read_cell(const Doubles& vectors, const std::array<bool, 3>& pbc) {
  if (vectors.ndim() != 2 || vectors.shape(0) != 3 || vectors.shape(1) != 3)
    wrong_shape("cell", "(3, 3)", vectors);
  Cell cell;
  cell.pbc = pbc;
  for (int k = 0; k < 9; ++k) cell.vectors[k] = pbc[k / 3] ? vectors.data()[k] : 0.0;
  return cell;
}

/// [3, 3] of the components xx, yy, zz, xy, xz, yz.
inline py::array_t<double> symmetric_matrix(const double* components) {
  constexpr int row[6] = {0, 1, 2, 0, 0, 1}, column[6] = {0, 1, 2, 1, 2, 2};
  py::array_t<double> matrix({3, 3});
  for (int a = 0; a < 6; ++a)
    matrix.mutable_at(row[a], column[a]) = matrix.mutable_at(column[a], row[a]) = components[a];
  return matrix;
}

}  // namespace nearsight
