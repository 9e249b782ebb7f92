#pragma once
// The hot loops of message passing, compiled once per instruction set; see shared/isa.hpp. Only plain structs
// and pointers cross this line. Channels are innermost, padded to kPad; edges of one receiver lie in arrays
// padded to whole runs.
#include <cstddef>

#include "core/models/shared/harmonics.hpp"
#include "core/models/shared/isa.hpp"

namespace nearsight {
namespace mace {

constexpr int kMaxHarmonics = 16;  // l <= 3
constexpr int kMaxFeatureL = 2, kMaxMessageL = 3;
constexpr int kMaxPhi = (2 * kMaxFeatureL + 1) * (2 * kMaxMessageL + 1);  // of one path
template <class T>
constexpr int kRun = 64 / static_cast<int>(sizeof(T));
constexpr int kJet = 3;  // numbers that a radial function has at a knot: value, slope, curvature

/// Knots of radial functions: knot k lies at r = shape s / (1 - s) with s = start + k / per_step.
struct KnotScale {
  double first, shape, start, per_step;  // Å, Å
  int intervals;
};

/// The edges of one receiver: arrays [stride], of which `count` are edges.
template <class T>
struct Edges {
  int count, stride;
  double* vectors[3];        // Å
  double* r;                 // Å
  int* knots;                // before the distance
  T *x, *y, *z;              // unit vectors
  T* inv_r;                  // 1/Å
  T* weights;                // [4 kJet][stride] of interpolation, see hermite_weights()
  const T* const* tables;    // [count] knot of the first function
  const T* const* features;  // [count] of the neighbors
  T* const* adjoints;        // [count] dE/d(feature), added to
  T* harmonics;              // [kMaxHarmonics][stride]
  T* harmonic_adjoints;      // [kMaxHarmonics][stride]
  T* slopes;                 // [stride] dE/dr at fixed direction
  T *gx, *gy, *gz;           // gradient
};

/// Row of a table of couplings.
template <class T>
struct Row {
  int phi, y;
  T coefficient;
};

/// One path and one receiver. With n1 = 2 l1 + 1 and n3 = 2 l3 + 1 components.
template <class T>
struct PathWork {
  const Edges<T>* edges;
  int channels;                 // padded
  std::ptrdiff_t table_offset;  // of the path's functions, [kJet][channels] at each knot
  int feature_offset;           // of the irrep's components, [n1][channels]
  const Row<T>* rows;           // couplings, phi counted from 0
  int num_rows, num_phi;        // n3 n1
  T* phi;                       // [n3 n1][stride]; in reverse room for their adjoints behind them
  T* sums;                      // [n3][sums_stride] A, or its adjoints
  int sums_stride;
};

/// Neighbors first … last - 1 of one species, for the first layer: M[lm][function].
template <class T>
struct MomentWork {
  const Edges<T>* edges;
  int first, last;
  int num_harmonics, functions;  // padded
  T* moments[kMaxHarmonics];     // row of each harmonic, or its adjoints
};

/// Polynomials of the components of a message as trees: an output is Σ_a m_a (w_a + Σ_b m_b (w_ab + Σ_c m_c
/// w_abc)). A node's children are consecutive in the next list.
struct Node {
  int factor, weight;  // component; number of the weight, -1: 0
  int first, last;     // children
};
struct Polynomials {
  int num_inputs, num_outputs;
  const int* first_root;  // [num_outputs + 1]
  const Node *roots, *middles, *leaves;
};
/// Atoms of one species; component c of atom n is at data[offset[c] + n * stride[c]].
template <class T>
struct Components {
  T* data;
  const int* offset;
  const int* stride;
};
template <class T>
struct ProductWork {
  const Polynomials* polynomials;
  const T* weights;  // [channels / kPad][num_weights][kPad]
  int num_weights, channels, first_atom, last_atom;
  Components<T> inputs, outputs, input_adjoints;  // of the outputs the values, in reverse the adjoints
};

template <class T>
struct Kernels {
  /// Writes distances, directions, knots and weights from the vectors. Weights are those of a place between
  /// two knots, or of the first of them (at_knots): then the table has a knot for every edge.
  void (*geometry)(const KnotScale&, bool at_knots, const Edges<T>&);
  void (*harmonics)(const HarmonicFactors<T>&, const Edges<T>&);
  /// Writes the gradient from the adjoints of the harmonics and the slopes.
  void (*gradients)(const HarmonicFactors<T>&, const Edges<T>&);
  /// Writes A; adds to the adjoints of features, harmonics and distances. [l1][l3]
  void (*path)(int l1, int l3, const PathWork<T>&);
  void (*path_reverse)(int l1, int l3, const PathWork<T>&);
  void (*moments)(const MomentWork<T>&);
  void (*moments_reverse)(const MomentWork<T>&);
  void (*products)(const ProductWork<T>&);
  void (*products_reverse)(const ProductWork<T>&);
};

template <class T>
const Kernels<T>& kernels();

}  // namespace mace
}  // namespace nearsight
