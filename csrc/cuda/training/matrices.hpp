#pragma once
// Products of matrices in double, of all members of a committee at once.
#include "cuda/training/work.hpp"

namespace nearsight {
namespace cuda {
namespace training {

/// Element (i, k) of a member is at data[i * row + k * column + m * member]. In columns from `end` on stands
/// `beyond`.
struct Matrix {
  const double* data;
  std::int64_t row, column, member;
  int end = 1 << 30;
  double beyond = 0.0;

  Matrix transposed() const { return {data, column, row, member}; }
};

/// c = Σ over `pairs` of a b, [rows][inner] times [inner][columns], + bias.
struct Multiplication {
  int rows, columns, inner, members;
  int pairs;
  Matrix a[2], b[2];
  const double* bias;  // of the columns, or null
  std::int64_t bias_member;
  bool add;  // to c
  double* c;
  std::int64_t c_row, c_member;
  /// Parts of the inner dimension, each with a c of its own from the last on.
  int splits;
  std::int64_t c_split;
};

void multiply(const Work& work, const Multiplication& product);

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
