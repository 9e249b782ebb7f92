#pragma once
#include <vector>

#include "core/models/acsf/acsf.hpp"
#include "core/models/shared/range.hpp"
#include "cuda/models/acsf/shapes.hpp"
#include "cuda/models/shared/tables.hpp"

namespace nearsight {
namespace cuda {
namespace acsf {

using nearsight::acsf::AngularFunction;
using nearsight::acsf::MomentFunction;
using nearsight::acsf::RadialFunction;

// Core's groups of functions, with places in arrays for pointers. Kernels reach every array through a
// parameter, which tells the compiler that it is not shared memory.

/// Shells of a center species are in ascending order.
template <class T>
struct ShellTable {
  Cutoff<T> cutoff;
  Range shapes;   // of angular functions
  int first_row;  // of Problem::values and slopes, of the first shape
};

struct RadialTable {
  int shell, species;
  Range functions;
};

/// The functions of an angular group with the same shape.
struct ShapeUse {
  int shape, row;  // row: of Problem::values and slopes
  Range functions;
};

struct AngularTable {
  int shell, species1, species2;
  bool narrow, compact_terms, compact_shapes;
  Range uses, terms, functions;
};

struct MomentTable {
  int shell, row, degree;  // row: of Problem::values and slopes
  Range functions;
};

/// Monomials up to a degree, core's function for kernels.
__host__ __device__ constexpr int num_monomials(int degree) {
  return (degree + 1) * (degree + 2) * (degree + 3) / 6;
}
/// Number of x^a y^b z^c, by degree.
__host__ __device__ constexpr int monomial_place(int a, int b, int c) {
  const int rest = b + c;
  return num_monomials(a + rest - 1) + rest * (rest + 1) / 2 + c;
}
struct Monomial {
  int a, b, c, degree;
  double multinomial;  // n! / (a! b! c!)
};

struct CenterTable {
  int num_features;
  Range shells, radial, angular, moments;
};

template <class T>
struct FunctionTables {
  const CenterTable* centers;  // [species]
  const ShellTable<T>* shells;
  const Shape<T>* shapes;
  const RadialTable* radial;
  const RadialFunction<T>* radial_functions;
  const AngularTable* angular;
  const ShapeUse* uses;
  const Term<T>* terms;
  const AngularFunction<T>* angular_functions;  // their term is a number within the group
  const MomentTable* moments;
  const MomentFunction* moment_functions;
  const Monomial* monomials;  // [core's kMaxMonomials]
};

/// Room that a warp needs at most, in numbers.
struct Room {
  int features = 0;
  int functions = 0;  // of a group, or of a part of it
  int terms = 0;      // of a group
  int moments = 0;    // of all species, monomials and the sum of squares
  bool has_pairs = false;
};

constexpr int kMostFunctions = nearsight::acsf::kMaxFunctions;  // that are summed at a time

/// The tables of all center species in device memory.
template <class T>
class FunctionSet {
 public:
  FunctionSet(const Stream& stream, const nearsight::acsf::Functions<T>& functions);

  const FunctionTables<T>& tables() const { return device_; }
  const Room& room() const { return room_; }
  int num_rows() const { return num_rows_; }
  int num_features(int species) const { return num_features_[species]; }
  /// [species][shells], Å.
  const std::vector<std::vector<double>>& radii() const { return radii_; }

 private:
  using Center = typename nearsight::acsf::Functions<T>::Center;
  struct Lists;
  void add(const Center& center, Lists& lists);

  Tables tables_;
  FunctionTables<T> device_{};
  std::vector<std::vector<double>> radii_;
  std::vector<int> num_features_;
  Room room_;
  int num_rows_ = 0;  // of values and slopes of the center species that has most
};

}  // namespace acsf
}  // namespace cuda
}  // namespace nearsight
