#pragma once
// The hot loops of training equivariant message passing, compiled once per instruction set; see
// shared/isa.hpp. Only plain structs and pointers cross this line. Channels come in whole runs: one vector of
// the widest instruction set.
#include <cstddef>
#include <cstdint>

#include "core/models/shared/isa.hpp"

namespace nearsight {
namespace equivariant {

template <class T>
constexpr int kRun = 64 / static_cast<int>(sizeof(T));
constexpr int kMaxL = 6;
constexpr int kMaxHarmonics = (kMaxL + 1) * (kMaxL + 1);

/// Edges by center. Edges of a center that are the first of their pair come first, at middles[i] the others
/// begin; both edges of a pair share the radial functions.
struct Neighborhoods {
  std::int64_t num_atoms, num_edges, num_pairs;
  const std::int64_t *offsets, *middles;  // [num_atoms + 1], [num_atoms]
  const std::int64_t* places;             // [num_atoms] row of each atom in features
  const std::int32_t *neighbors, *pairs;  // [num_edges]
};

/// A path: irrep 1 of the sources, Φ [s3][s1], irrep 3 of the sums. Places count numbers of type T.
struct Path {
  int component, s1, s3, phi;           // first component of irrep 1, first element of Φ
  std::int64_t source, source_atom;     // sources: component 0, from atom to atom
  std::int64_t sum, sum_atom, sum_row;  // sums: m3 = 0, from atom to atom, from m3 to m3
};

/// A coupling: Φ[phi] has this much of Y[harmonic].
struct Coupling {
  int phi, harmonic;
  double value;
};

/// Sums A = f(u, R, Y) over the edges, the arguments of f and what its derivatives need. R, of each pair, are
/// values with their slopes, the derivatives by the distance. Null pointers stand for zeros or "not wanted".
template <class T>
struct Convolution {
  Neighborhoods graph;
  int channels, components, num_paths, num_harmonics, num_phi, num_couplings;
  const Path* paths;
  const Coupling* couplings;
  const T* dense;  // couplings as [num_harmonics][num_phi padded to kRun]
  const T *sources, *values, *slopes, *harmonics;
  const T *adjoints, *source_tangents, *harmonic_tangents;
  const double* distance_tangents;  // [num_pairs]
  T *sums, *value_adjoints, *slope_adjoints, *harmonic_adjoints;
  double* distance_adjoints;  // [num_edges]
};

/// Rows of a convolution: centers [first, last), and where their part of the adjoints of the sources goes:
/// [atom - first_source][component][channels].
template <class T>
struct Rows {
  std::int64_t first, last, first_source;
  T* source_adjoints;
  T* scratch;  // see Kernels::scratch
};

/// Which edges of a center: those that write to their pair's row, and those that then add to it.
enum class Part { first_of_pair, second_of_pair };

/// Polynomials B = g(m, c): monomials are nodes, products of two nodes before them (node 0 is 1, then come
/// the components of m), or leaves, products of a node and a component that nothing else is made of. Term t
/// adds c[species][t] times its monomial to its target. Leaves are sorted by node, terms by node or leaf;
/// each list has one more entry at its end.
struct Node {
  int a, b;  // of products
  int first_term, first_leaf;
};
struct Leaf {
  int component, first_term;
};
template <class T>
struct Contraction {
  int channels, num_components, num_nodes, num_terms, num_targets;
  const Node* nodes;
  const Leaf* leaves;
  const int* targets;                  // [num_terms]
  std::int64_t first_atom, last_atom;  // all of one species
  // Component c of atom i is at [places[c] + i * strides[c]].
  const std::int64_t *places, *strides, *target_places, *target_strides;
  const T *messages, *weights;  // weights [num_terms][channels] of the species
  const T *adjoints, *message_tangents, *weight_tangents;
  T *products, *message_adjoints, *weight_adjoints;
};

template <class T>
struct Kernels {
  /// Numbers of type T that Rows::scratch has: of the most edges of a center.
  std::size_t (*scratch)(const Convolution<T>&, std::int64_t most_edges);
  /// sums.
  void (*convolve)(const Convolution<T>&, const Rows<T>&);
  /// Derivatives of <adjoints, f> by what depends on positions: sources, distances, harmonics.
  void (*by_geometry)(const Convolution<T>&, const Rows<T>&);
  /// … by what depends on parameters: sources and values.
  void (*by_parameters)(const Convolution<T>&, const Rows<T>&, Part);
  /// Derivatives of <adjoints, f'>, f' the derivative of f along the tangents, by sources, values and
  /// slopes; and f' itself as sums.
  void (*of_tangent)(const Convolution<T>&, const Rows<T>&, Part);

  /// Numbers of type T that the scratch of the following has.
  std::size_t (*contraction_scratch)(const Contraction<T>&);
  /// products, for one run of channels from `channel` on.
  void (*contract)(const Contraction<T>&, int channel, T* scratch);
  /// Derivatives of <adjoints, g> by messages, and by weights, which are added to.
  void (*contract_reverse)(const Contraction<T>&, int channel, T* scratch);
  /// The same of <adjoints, g'>, g' the derivative of g along the tangents; and g' itself as products.
  void (*contract_tangent)(const Contraction<T>&, int channel, T* scratch);

  /// x [2][count], a value and its derivative, to silu(x)… and back.
  void (*silu)(const T* x, T* y, std::int64_t count);
  void (*silu_reverse)(const T* x, const T* adjoints, T* gradients, std::int64_t count);

  /// Y [edges][(l_max + 1)²] in component normalization of vectors [edges][3].
  void (*harmonics)(const double* vectors, std::int64_t count, int l_max, T* y);
  /// gradients [edges][3] of <adjoints, Y>.
  void (*harmonics_reverse)(const double* vectors, std::int64_t count, int l_max, const T* adjoints,
                            double* gradients);
  /// Derivative of Y along directions [edges][3].
  void (*harmonics_tangent)(const double* vectors, std::int64_t count, int l_max, const double* directions,
                            T* tangents);
};

template <class T>
const Kernels<T>& kernels();

}  // namespace equivariant
}  // namespace nearsight
