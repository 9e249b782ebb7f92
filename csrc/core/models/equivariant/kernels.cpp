#include "core/models/equivariant/kernels.hpp"

#include "core/models/equivariant/contraction_kernels.hpp"
#include "core/models/equivariant/convolution_kernels.hpp"
#include "core/models/equivariant/geometry_kernels.hpp"

namespace nearsight {
namespace equivariant {
namespace {

template <class T>
constexpr Kernels<T> table() {
  return {scratch<T>,           convolve<T>,
          by_geometry<T>,       by_parameters<T>,
          of_tangent<T>,        contraction_scratch<T>,
          contract<T>,          contract_reverse<T>,
          contract_tangent<T>,  silu<T>,
          silu_reverse<T>,      harmonics<T>,
          harmonics_reverse<T>, harmonics_tangent<T>};
}

}  // namespace

NEARSIGHT_DEFINE_KERNELS(float)
NEARSIGHT_DEFINE_KERNELS(double)

}  // namespace equivariant
}  // namespace nearsight
