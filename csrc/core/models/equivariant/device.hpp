#pragma once
// The twins of the kernels of this folder on a GPU. Pointers are to its memory where no other is said.
#include "core/engine/device_scope.hpp"
#include "core/engine/span.hpp"
#include "core/models/equivariant/kernels.hpp"

namespace nearsight {
namespace equivariant {

/// Atoms of a species stand together; `places`, `strides` and those of the targets are in host memory, and
/// the factors of nodes are components.
struct Counts {
  std::int64_t num_atoms, num_species;
  const std::int64_t* of_species;  // [num_species]
};

/// Results are written, not added to, but those that begin as zero for the kernels of the CPU. In a
/// `Convolution` the paths are in host memory, `dense` is [num_harmonics][num_phi], there are no couplings,
/// and distance_adjoints are of the pairs.
template <class T>
struct DeviceKernels {
  void (*convolve)(DeviceScope&, const Convolution<T>&);
  /// source_adjoints may be null.
  void (*by_geometry)(DeviceScope&, const Convolution<T>&, T* source_adjoints);
  void (*by_parameters)(DeviceScope&, const Convolution<T>&, T* source_adjoints);
  void (*of_tangent)(DeviceScope&, const Convolution<T>&, T* source_adjoints);

  void (*contract)(DeviceScope&, const Contraction<T>&, const Counts&);
  void (*contract_reverse)(DeviceScope&, const Contraction<T>&, const Counts&);
  void (*contract_tangent)(DeviceScope&, const Contraction<T>&, const Counts&);

  void (*silu)(DeviceScope&, const T* x, T* y, std::int64_t count);
  void (*silu_reverse)(DeviceScope&, const T* x, const T* adjoints, T* gradients, std::int64_t count);

  void (*harmonics)(DeviceScope&, const double* vectors, std::int64_t count, int l_max, T* y);
  void (*harmonics_reverse)(DeviceScope&, const double* vectors, std::int64_t count, int l_max,
                            const T* adjoints, double* gradients);
  void (*harmonics_tangent)(DeviceScope&, const double* vectors, std::int64_t count, int l_max,
                            const double* directions, T* tangents);
};

/// Edges from a center to a neighbor, in any order; the atoms of a frame stand together.
struct FrameEdges {
  std::int64_t num_edges, num_atoms, num_frames;
  const std::int64_t *centers, *neighbors;  // [num_edges]
  const std::int64_t* frames;               // [num_atoms], not falling
  const double* vectors;                    // [num_edges][3]
};

struct DeviceEdgeKernels {
  /// As pair_edges(); all arrays have the size of `Pairing`, firsts that of the edges, count is one number.
  void (*pair)(DeviceScope&, std::int64_t num_atoms, std::int64_t num_edges, const std::int64_t* offsets,
               const std::int64_t* neighbors, const double* vectors, std::int64_t* order,
               std::int64_t* middles, std::int32_t* pairs, std::int64_t* firsts, std::int64_t* count);
  /// Forces [num_atoms][3] and virials [num_frames][3][3] of gradients dE/dr [num_edges][3].
  void (*sums)(DeviceScope&, const FrameEdges&, const double* gradients, double* forces, double* virials);
  /// The transpose.
  void (*differences)(DeviceScope&, const FrameEdges&, const double* forces, const double* virials,
                      double* gradients);
};

/// They open libnearsight_cuda.so when they are first called. Throw Error (unsupported) in a build without
/// it.
template <class T>
const DeviceKernels<T>& device_kernels();
const DeviceEdgeKernels& device_edge_kernels();

}  // namespace equivariant
}  // namespace nearsight
