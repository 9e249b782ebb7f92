#pragma once
// The hot loops of symmetry functions, compiled once per instruction set (see core/models/shared/isa.hpp).
// Only plain structs and pointers cross this line, so that no template of the standard library is
// instantiated there.
#include "core/models/shared/isa.hpp"

namespace nearsight {
namespace acsf {

enum class CutoffFunction { cos, tanh3, poly1, poly2, poly3, poly4 };

constexpr int kMaxRadial = 32;    // radial functions per group
constexpr int kMaxTerms = 16;     // angular terms per group
constexpr int kMaxExponents = 8;  // radial exponents per group

/// Neighbors within one cutoff, sorted by species, one array per quantity. Padding entries have zero weight.
template <class T>
struct Shell {
  T cutoff;
  int num_species;
  int stride;        // padded number of neighbors
  const int* first;  // [num_species] start of a species, a multiple of kPad
  const int* count;  // [num_species]
  int num_exponents;
  const T *eta, *shift;  // [num_exponents]
  T *x, *y, *z, *r;      // [stride] given
  T *inv_r, *fc, *dfc;   // [stride] by prepare()
  T *weight, *dweight;   // [num_exponents][stride] exp(-eta (r - shift)^2) fc and its derivative
  T *gx, *gy, *gz, *gr;  // [stride] adjoints of the vector and of r; tangents of x, y, z and r
};

/// G2 functions of one neighbor species.
template <class T>
struct RadialGroup {
  int shell, species, num_functions;
  const T *eta, *shift;
  const int* out;  // [num_functions] feature number
};

/// (1 + lambda cos)^zeta
template <class T>
struct AngularTerm {
  T lambda, zeta;
  int integer_zeta;  // 0: zeta is not an integer up to 256
  bool new_base;     // lambda differs from the term before
};

/// G4 (narrow) or G5 functions of one pair of neighbor species: all terms times all exponents.
template <class T>
struct AngularGroup {
  int shell, species1, species2;
  bool narrow;
  int num_exponents, num_terms;
  const int* exponent;  // [num_exponents] index into the shell's
  const AngularTerm<T>* terms;
  const T* prefactor;  // [num_terms] 2^(1 - zeta)
  const int* out;      // [num_exponents][num_terms] feature number, -1: not wanted
};

/// All functions of one center species.
template <class T>
struct CenterFunctions {
  CutoffFunction cutoff_function;
  int num_features, num_shells, num_radial, num_angular;
  const RadialGroup<T>* radial;
  const AngularGroup<T>* angular;
};

template <class T>
struct Kernels {
  /// Fills inv_r, fc, dfc, weight, dweight; clears the adjoints.
  void (*prepare)(CutoffFunction, Shell<T>&);
  /// features[num_features] of the center. Sums over neighbors end in double: networks see small differences
  /// of them.
  void (*features)(const CenterFunctions<T>&, const Shell<T>* shells, double* features);
  /// Adds dE/d(neighbor vector) to gx, gy, gz (the radial part gr included) for cotangents[num_features].
  void (*reverse)(const CenterFunctions<T>&, Shell<T>* shells, const T* cotangents);
  /// tangents[num_features] = directional derivative along the vectors that stand in gx, gy, gz.
  void (*tangent)(const CenterFunctions<T>&, Shell<T>* shells, double* tangents);
};

/// The table of this machine.
template <class T>
const Kernels<T>& kernels();

}  // namespace acsf
}  // namespace nearsight
