#pragma once
// What training of descriptors needs on a GPU; pointers are to its memory where no other is said.
#include <cstdint>

#include "core/engine/device_scope.hpp"
#include "core/engine/span.hpp"
#include "core/models/ace/kernels.hpp"

namespace nearsight {

/// Derivatives dG/dr of a frame: blocks of edges, sorted by center, with the columns that are not zero there,
/// values [edges][3][columns] of all blocks one after the other. A column that is there twice is zero the
/// second time.
struct StoredDerivatives {
  const float* values;
  const std::int32_t *edges, *columns;  // of all blocks
  Span<const std::int64_t> sizes;       // in host memory: numbers of edges and columns of each block
  const std::int32_t* centers;          // of every edge of the frame
  std::int64_t num_centers, width;      // of tables [centers][width]
};

/// Polynomials of moments; the tables are in host memory.
struct MomentProducts {
  ace::Products products;
  Span<const int> features;  // their nodes
  const double* moments;     // [num_centers][num_moments]
  std::int64_t num_centers, num_moments;
};

struct DeviceDescriptorKernels {
  /// gradients [edges][3] of cotangents [centers][width].
  void (*stored_reverse)(DeviceScope&, const StoredDerivatives&, const double* cotangents, double* gradients);
  /// Adds to tangents [centers][width] of directions [edges][3].
  void (*stored_tangent)(DeviceScope&, const StoredDerivatives&, const double* directions, double* tangents);
  /// Adds to dense [slots][3][width] of the edges whose slot is not negative.
  void (*stored_gather)(DeviceScope&, const StoredDerivatives&, const std::int64_t* slots, double* dense);

  /// output [num_centers][features]
  void (*products_forward)(DeviceScope&, const MomentProducts&, double* output);
  /// output [num_centers][num_moments] of cotangents [num_centers][features].
  void (*products_reverse)(DeviceScope&, const MomentProducts&, const double* cotangents, double* output);
  /// Derivatives of <cotangents, P'(A) v> by the cotangents and by A along directions v.
  void (*products_second)(DeviceScope&, const MomentProducts&, const double* cotangents,
                          const double* directions, double* of_cotangents, double* of_moments);
};

/// Opens libnearsight_cuda.so when it is first called. Throws Error (unsupported) in a build without it.
const DeviceDescriptorKernels& device_descriptor_kernels();

}  // namespace nearsight
