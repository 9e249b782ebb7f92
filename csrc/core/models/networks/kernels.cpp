#include "core/models/networks/kernels.hpp"

#include "core/models/shared/simd.hpp"

namespace nearsight {
namespace networks {
namespace {

using simd::broadcast;
using simd::exp_negative;
using simd::load;
using simd::store;
using simd::Vec;
using simd::width;

/// Rows x 2 vectors of the product, kept in registers.
template <class T, int kRows>
inline void multiply_block(int inner, int columns, const T* a, int lda, const T* b, int ldb, const T* bias,
                           T* c, int ldc) {
  for (int n = 0; n < columns; n += width<T>) {
    Vec<T> sums[kRows];
    for (int m = 0; m < kRows; ++m) sums[m] = bias ? load(bias + n) : broadcast<T>(T(0));
    for (int k = 0; k < inner; ++k) {
      const Vec<T> right = load(b + k * ldb + n);
      for (int m = 0; m < kRows; ++m) sums[m] += a[m * lda + k] * right;
    }
    for (int m = 0; m < kRows; ++m) store<T>(c + m * ldc + n, sums[m]);
  }
}

template <class T>
void multiply(int rows, int inner, int columns, const T* a, int lda, const T* b, int ldb, const T* bias, T* c,
              int ldc) {
  int m = 0;
  for (; m + 8 <= rows; m += 8)
    multiply_block<T, 8>(inner, columns, a + m * lda, lda, b, ldb, bias, c + m * ldc, ldc);
  for (; m < rows; ++m)
    multiply_block<T, 1>(inner, columns, a + m * lda, lda, b, ldb, bias, c + m * ldc, ldc);
}

template <class T>
void activate(Activation kind, int count, T* z, T* derivative) {
  const Vec<T> one = broadcast<T>(T(1)), zero = broadcast<T>(T(0));
  for (int k = 0; k < count; k += width<T>) {
    const Vec<T> x = load(z + k), magnitude = x < zero ? -x : x;
    if (kind == Activation::tanh) {
      const Vec<T> e = exp_negative<T>(T(-2) * magnitude);
      const Vec<T> t = (one - e) / (one + e);
      store<T>(z + k, x < zero ? -t : t);
      store<T>(derivative + k, one - t * t);
    } else if (kind == Activation::silu) {
      const Vec<T> e = exp_negative<T>(-magnitude);
      const Vec<T> s = (x < zero ? e : one) / (one + e);
      store<T>(z + k, x * s);
      store<T>(derivative + k, s * (one + x * (one - s)));
    } else {
      store<T>(derivative + k, one);
    }
  }
}

template <class T>
constexpr Kernels<T> table() {
  return {multiply<T>, activate<T>};
}

}  // namespace

namespace NEARSIGHT_ISA {
extern const Kernels<float> kernels_float;
extern const Kernels<double> kernels_double;
const Kernels<float> kernels_float = table<float>();
const Kernels<double> kernels_double = table<double>();
}  // namespace NEARSIGHT_ISA

}  // namespace networks
}  // namespace nearsight
