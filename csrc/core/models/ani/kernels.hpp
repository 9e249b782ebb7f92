#pragma once
// The hot loops of ANI's atomic environment vectors, compiled once per instruction set (see
// core/models/shared/isa.hpp). Only plain structs and pointers cross this line, so that no template of the
// standard library is instantiated there.
#include "core/models/shared/isa.hpp"

namespace nearsight {
namespace ani {

enum class CutoffFunction { cos, exp };

/// Radial functions ¼ exp(-eta (r - shift)²) fc, one for each shift.
template <class T>
struct RadialTerms {
  T eta;
  int num_shifts;
  const T* shifts;
};

/// Angular functions 2 ((1 + cos(θ - angle))/2)^zeta exp(-eta ((r_j + r_k)/2 - shift)²) fc_j fc_k, one for
/// each shift and angle; cos θ = 0.95 times the cosine between the two neighbors.
template <class T>
struct AngularTerms {
  T eta, zeta;
  int num_shifts, num_angles;
  const T *shifts, *cos_angles, *sin_angles;
};

/// Feature numbers: [species][radial shifts], then [pairs of species][angular shifts][angles], the pairs
/// being the upper triangle by rows.
template <class T>
struct Terms {
  CutoffFunction cutoff_function;
  int num_species;
  RadialTerms<T> radial;
  AngularTerms<T> angular;
};

/// Neighbors within one cutoff, sorted by species, one array per quantity. Padding lies beyond the cutoff.
template <class T>
struct Shell {
  T cutoff;
  int stride;            // padded number of neighbors
  const int* first;      // [species] start of a species, a multiple of kPad
  const int* count;      // [species]
  T *x, *y, *z, *r;      // [stride] given
  T *inv_r, *fc, *dfc;   // [stride] by prepare()
  T *gx, *gy, *gz, *gr;  // [stride] adjoints of the vector and of r; tangents of x, y, z and r
};

/// The neighborhood of one center, and room to work in.
template <class T>
struct Shells {
  Shell<T> radial, angular;
  T* sums;          // [functions of a group][kPad]
  T* angles;        // [2 * angles][kPad]
  T* pairs;         // [6][pair_stride]
  int pair_stride;  // pairs of angular neighbors, and kPad more
};

template <class T>
struct Kernels {
  /// Fills inv_r, fc and dfc.
  void (*prepare)(CutoffFunction, Shell<T>&);
  /// Adds to features. Sums over neighbors end in double: networks see small differences of them.
  void (*features)(const Terms<T>&, const Shells<T>&, double* features);
  /// Writes dE/d(neighbor vector) to gx, gy, gz (the radial part gr included) for the cotangents.
  void (*reverse)(const Terms<T>&, const Shells<T>&, const T* cotangents);
  /// Adds to tangents the directional derivative along the vectors that stand in gx, gy, gz.
  void (*tangent)(const Terms<T>&, const Shells<T>&, double* tangents);
};

/// The table of this machine.
template <class T>
const Kernels<T>& kernels();

}  // namespace ani
}  // namespace nearsight
