#pragma once
// The hot loops of symmetry functions, compiled once per instruction set (see core/models/shared/isa.hpp).
// Only plain structs and pointers cross this line, so that no template of the standard library is
// instantiated there.
//
// Every function is a sum over neighbors j of w(r_ij), or over pairs of them of P(cos θ) w(r_ij) w(r_ik), of
// the narrow ones times w(r_jk). The kernels know radial shapes w and angular terms P, and functions that
// pair one of these with one of those.
#include "core/models/shared/isa.hpp"

namespace nearsight {
namespace acsf {

constexpr int kMaxFunctions = 64;  // angular functions per group, and so at most as many shapes and terms

/// Falls from 1 at the inner radius to 0 at the radius; `poly1` to `exp` are core functions too.
enum class Falling { poly1, poly2, poly3, poly4, exp, hard, cos, tanh3, tanh3_normalized };

template <class T>
struct Cutoff {
  Falling kind;
  T radius, inverse_width;  // 1 / (radius - inner radius)
};

/// w(r): a Gaussian times the shell's cutoff function, or a core function of |r - middle| / half width.
template <class T>
struct Shape {
  bool compact;
  T eta, shift;                  // Gaussian
  T middle, inverse_half_width;  // compact
  Falling core;
  bool asymmetric;
};

/// P(c): (1 + lambda c)^zeta, or a core function of |θ - middle| / half width.
template <class T>
struct Term {
  bool compact;
  T lambda, zeta;
  int integer_zeta;              // 0: zeta is not a whole number up to 256
  T middle, inverse_half_width;  // compact, radians
  Falling core;
};

/// Neighbors within one cutoff, sorted by species, one array per quantity. Padding entries lie beyond the
/// cutoff, far from each other; all their shapes are zero.
template <class T>
struct Shell {
  Cutoff<T> cutoff;
  int stride;        // padded number of neighbors
  const int* first;  // [species] start of a species, a multiple of kPad
  const int* count;  // [species]
  int num_shapes;    // of the angular functions
  const Shape<T>* shapes;
  T *x, *y, *z, *r;             // [stride] given
  T *inverse_r, *ux, *uy, *uz;  // [stride] by prepare(): 1 / r, the unit vector
  T *value, *slope;             // [num_shapes][stride] w and w' / (w r), also by prepare()
  T *cut, *cut_slope;           // [stride] the cutoff function f and f' / f
  T *gx, *gy, *gz, *gr;         // [stride] adjoints: dE/dr_ij without its part gr along r_ij. Tangents: a
                                // direction, and its part along the unit vector
};

/// Functions of one neighbor species: features[out] += factor * sum over neighbors of the shape.
template <class T>
struct RadialFunction {
  Shape<T> shape;
  T factor;
  int out;
};
template <class T>
struct RadialGroup {
  int shell, species, num_functions;
  const RadialFunction<T>* functions;
};

/// features[out] += factor * sum over pairs of neighbors of one shape (number within the group) and one term.
template <class T>
struct AngularFunction {
  int shape, term;
  T factor;
  int out;
};

/// Functions of one pair of neighbor species, which share their triplets; sorted by shape.
template <class T>
struct AngularGroup {
  int shell, species1, species2;
  bool narrow;
  bool common_slope;   // w'/(w r) at r_jk differs between shapes by constants only: Gaussians without a shift
  bool compact_terms;  // functions of θ; others are of cos θ
  int num_shapes, num_terms, num_functions;
  const int* shapes;  // [num_shapes] numbers of the shell's
  const Term<T>* terms;
  const AngularFunction<T>* functions;
};

constexpr int kMaxDegree = 8;  // zeta up to which wide functions are evaluated through moments
constexpr int num_monomials(int degree) {
  return (degree + 1) * (degree + 2) * (degree + 3) / 6;
}
constexpr int kMaxMonomials = num_monomials(kMaxDegree);
constexpr int kMomentStride = kMaxMonomials + 4;  // monomials, the sum of squares, and room

/// features[out] += Σ_n powers[n] Σ_jk w_j w_k cos^n θ over pairs of neighbors of two species. If these are
/// the same, `self` = Σ_n powers[n] is what the pairs j = k give.
struct MomentFunction {
  int species1, species2, degree, out;
  double powers[kMaxDegree + 1], self;
};

/// Wide functions of one shape and all species, which share its moments.
template <class T>
struct MomentGroup {
  int shell, shape, degree, num_species, num_functions;
  const MomentFunction* functions;
};

/// All functions of one center species.
template <class T>
struct CenterFunctions {
  int num_features, num_radial, num_angular, num_moment;
  const RadialGroup<T>* radial;
  const AngularGroup<T>* angular;
  const MomentGroup<T>* moment;
};

/// The triplets of one group at one center, in the order of a loop over j and blocks of k: those with
/// r_jk below the cutoff, packed. forward() fills what reverse() reads.
template <class T>
struct Triplets {
  bool swapped;           // j runs over species2
  int count;              // padded with entries of zero value
  int stride;             // of the arrays
  unsigned short* masks;  // [blocks] which lanes of a block count
  T* angle;               // [stride] cos θ, or θ if terms are compact
  T* angle_slope;         // [stride] dθ/dcos θ if terms are compact
  T* far;                 // narrow: [stride] if common_slope, else [num_shapes][stride]: w'/(w r) at r_jk
  T* value;               // [num_shapes][stride] product of the shapes
  T* scratch;             // [2 * num_terms + num_shapes + 2][stride], shared by all groups
};

/// What forward() leaves for reverse().
template <class T>
struct Kept {
  T* radial_slopes;       // w'/r [function][stride of its shell], one radial group after another
  Triplets<T>* triplets;  // of each angular group
  double* moments;        // [moment group][2 * species][kMomentStride]
};

template <class T>
struct Kernels {
  /// Fills what Shell says, and clears the adjoints.
  void (*prepare)(Shell<T>&);
  /// features[num_features] of the center. Sums over neighbors end in double: networks see small differences
  /// of them.
  void (*forward)(const CenterFunctions<T>&, const Shell<T>* shells, const Kept<T>& kept, double* features);
  /// Leaves what forward() leaves for reverse(), without features.
  void (*remember)(const CenterFunctions<T>&, const Shell<T>* shells, const Kept<T>& kept);
  /// Adds dE/dr_ij to gx, gy, gz for cotangents[num_features], after forward().
  void (*reverse)(const CenterFunctions<T>&, Shell<T>* shells, int num_shells, const Kept<T>& kept,
                  const T* cotangents);
  /// tangents[num_features] = derivative of the features along the direction in gx, gy, gz.
  void (*tangent)(const CenterFunctions<T>&, Shell<T>* shells, int num_shells, const Kept<T>& kept,
                  double* tangents);
};

/// The table of this machine.
template <class T>
const Kernels<T>& kernels();

}  // namespace acsf
}  // namespace nearsight
