#include "core/mesh/kernels.hpp"

#include "core/models/shared/simd.hpp"
#include "core/models/shared/simd_erfc.hpp"

namespace nearsight {
namespace mesh {
namespace {

using simd::load;
using simd::store;
using simd::Vec;

template <class T>
void screened(int count, T alpha, const T* r2, T* values, T* slopes) {
  constexpr T two_over_root_pi = T(1.12837916709551257390);
  for (int k = 0; k < count; k += simd::width<T>) {
    const Vec<T> square = load(r2 + k), r = simd::sqrt(square), inverse2 = T(1) / square;
    const Vec<T> value = simd::erfc<T>(alpha * r) * r * inverse2;
    const Vec<T> gauss = two_over_root_pi * alpha * simd::exp_negative<T>(-alpha * alpha * square);
    store<T>(values + k, value);
    store<T>(slopes + k, -(value + gauss) * inverse2);
  }
}

template <class T>
constexpr Kernels<T> table() {
  return {screened<T>};
}

}  // namespace

NEARSIGHT_DEFINE_KERNELS(double)

}  // namespace mesh
}  // namespace nearsight
