#pragma once
// The hot loops over pairs, compiled once per instruction set (see core/models/shared/isa.hpp).
#include "core/models/shared/isa.hpp"

namespace nearsight {
namespace pairs {

/// Charges whose sums stand in the lanes of vectors: a cache line of numbers.
template <class T>
constexpr int kBlock = 64 / sizeof(T);

constexpr int kChunk = 128;  // charges that a block meets at a time: their sums are in T, sums of these not
constexpr int kMostTerms = 64;     // of a series
constexpr double kClosest = 1e-3;  // Å, below which pairs have no meaning

/// A polynomial in t = 2 r² / r_c² - 1, and its derivative by r over r. What lies beyond the cutoff counts 0.
template <class T>
struct Series {
  T cutoff2, scale;  // r_c², 2 / r_c²
  int terms;
  T value[kMostTerms], slope[kMostTerms];  // of t^n
};

/// Positions and the rest of some charges, an array for each; aligned to 64 bytes.
template <class T>
struct Places {
  T *x, *y, *z;
  T* charge;
  T* width2;  // squares of widths
};

/// What the charges of a block sum up, [kBlock] each.
enum Sum { potential, field_x, field_y, field_z, xx, yy, zz, xy, xz, yz, met, kNumSums };

template <class T>
using SumFunction = void (*)(const Series<T>& series, const Places<T>& block, int count,
                             const Places<T>& others, T (*sums)[kBlock<T>]);
template <class T>
using CoefficientFunction = void (*)(const Series<T>& series, const Places<T>& block, int count,
                                     const Places<T>& others, T (*coefficients)[kBlock<T>], T* met);

template <class T>
struct Kernels {
  /// erfc(α r) / r and its derivative over r, for `count` squared distances: a multiple of kPad, arrays
  /// aligned to 64 bytes.
  void (*screened)(int count, T alpha, const T* r2, T* values, T* slopes);

  /// Sums over `count` others, a multiple of 4, of v = 1 / r - series, the field -v' and r v' times the
  /// direction twice; `met` counts those that are closer than kClosest, which give nothing.
  SumFunction<T> sum_points;
  /// The same of Gaussians: v = erf(r / √(2 width2)) / r - series with the sum of both squared widths.
  SumFunction<T> sum_gaussians;
  /// Writes v[other][charge of the block] of these sums, for potentials of several charges at the same
  /// places, and met[kBlock]; charges of others are not read.
  CoefficientFunction<T> coefficients_of_points, coefficients_of_gaussians;
  /// sums[charge of the block] = Σ coefficients charges, over `count` others.
  void (*apply)(int count, const T (*coefficients)[kBlock<T>], const T* charges, T* sums);

  /// Writes which of the places [first, last) are within `reach` of a charge of the block; returns how many.
  int (*find_near)(const Places<T>& block, T reach, const double* const places[3], const double origin[3],
                   int first, int last, int* found);

  /// to[k] = from[numbers[k]] - origin
  void (*collect)(int count, const int* numbers, const double* from, double origin, T* to);
};
template <class T>
const Kernels<T>& kernels();
template <>
const Kernels<float>& kernels<float>();
template <>
const Kernels<double>& kernels<double>();

}  // namespace pairs
}  // namespace nearsight
