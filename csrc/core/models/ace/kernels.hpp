#pragma once
// The hot loops of moment descriptors (SOAP, ACE), compiled once per instruction set; see shared/isa.hpp.
// Only plain structs and pointers cross this line.
#include "core/models/shared/harmonics.hpp"
#include "core/models/shared/isa.hpp"

namespace nearsight {
namespace ace {

constexpr int kMaxColumns = 512;  // radial functions of a neighbor, padded to runs for each l
/// Radial functions, neighbors, and centers in products come in runs of this many: one vector of the widest
/// instruction set.
template <class T>
constexpr int kRun = 64 / static_cast<int>(sizeof(T));

/// Moments A_nlm of one species of neighbors and the tables that they are made of. Rows of radial functions
/// are padded to runs for each l; moment (l, m, n) stands at first_moment[l] + (m + l) * kRun * runs[l] + n.
template <class T>
struct Shape {
  int l_max;
  int runs[kMaxL + 1];          // of radial functions of each l
  int first_column[kMaxL + 1];  // in a row of radial functions
  int first_moment[kMaxL + 1];
  int num_columns, num_moments;
  T inverse_step;  // of the radial tables, 1/Å
  HarmonicFactors<T> harmonics;
};

/// The neighbors of one center, sorted by species. Arrays are padded to whole runs.
template <class T>
struct Neighbors {
  int count;
  T *x, *y, *z, *inv_r;  // unit vector from the center, 1/Å
  T* place;              // within the interval of the radial table, 0 … 1
  const T** table;       // radial table of the pair of species at that interval: [2 knots][3][num_columns]
                         // value, slope and curvature per step and step²
  int* species;
  T *vx, *vy, *vz;  // gradients from reverse(), directions for tangent()
};

/// Node t of the products is the sum over its terms of c · node a · node b; see docs/file_format.md.
struct Product {
  int a, b;
  double c;
};
struct Products {
  int first_target, num_targets, num_nodes;
  const int* first;  // [num_targets + 1] first term of each target
  const Product* terms;
};

template <class T>
struct Kernels {
  /// Adds the moments of all neighbors to moments[species][num_moments].
  void (*moments)(const Shape<T>&, const Neighbors<T>&, T* moments);
  /// Writes dE/dr_ij to vx, vy, vz for adjoints[species][num_moments] = dE/dA.
  void (*reverse)(const Shape<T>&, const Neighbors<T>&, const T* adjoints);
  /// Adds the derivative of the moments along vx, vy, vz to tangents[species][num_moments].
  void (*tangent)(const Shape<T>&, const Neighbors<T>&, T* tangents);
  /// nodes[num_nodes][kRun]: 1 and the moments are given, the products are written.
  void (*products)(const Products&, T* nodes);
  /// adjoints[num_nodes][kRun]: those of the features are given, the others zero; completes all of them.
  void (*products_reverse)(const Products&, const T* nodes, T* adjoints);
  /// tangents[num_nodes][kRun]: those of 1 and the moments are given, the products' are written.
  void (*products_tangent)(const Products&, const T* nodes, T* tangents);
  /// Completes the adjoints as products_reverse does, and in curvatures, zeros before, the derivatives of
  /// Σ adjoint · tangent over the features by the nodes.
  void (*products_second)(const Products&, const T* nodes, const T* tangents, T* adjoints, T* curvatures);
  /// products_tangent for one center in all lanes: nodes[num_nodes].
  void (*products_tangents_of_one)(const Products&, const T* nodes, T* tangents);
};

template <class T>
const Kernels<T>& kernels();

}  // namespace ace
}  // namespace nearsight
