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

namespace NEARSIGHT_ISA {
extern const Kernels<float> kernels_float;
extern const Kernels<double> kernels_double;
const Kernels<float> kernels_float = table<float>();
const Kernels<double> kernels_double = table<double>();
}  // namespace NEARSIGHT_ISA

}  // namespace equivariant
}  // namespace nearsight
