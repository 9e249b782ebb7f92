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

/// exp(x) for any x.
template <class T>
inline Vec<T> exp_any(Vec<T> x) {
  const Vec<T> zero = broadcast<T>(T(0)), e = exp_negative<T>(x < zero ? x : -x);
  return x < zero ? e : T(1) / e;
}

/// Lane by lane, for functions that are rare.
template <class T, class Function>
inline Vec<T> map(Vec<T> x, const Function& function) {
  for (int l = 0; l < width<T>; ++l) x[l] = static_cast<T>(function(x[l]));
  return x;
}

/// f and df/dx of one activation function.
template <class T>
inline void activation(Activation kind, Vec<T> x, Vec<T>& f, Vec<T>& df) {
  const Vec<T> one = broadcast<T>(T(1)), zero = broadcast<T>(T(0)), magnitude = x < zero ? -x : x;
  switch (kind) {
    case Activation::linear:
      f = x;
      df = one;
      break;
    case Activation::tanh: {
      const Vec<T> e = exp_negative<T>(T(-2) * magnitude), t = (one - e) / (one + e);
      f = x < zero ? -t : t;
      df = one - t * t;
      break;
    }
    case Activation::silu:
    case Activation::logistic:
    case Activation::reversed_logistic:
    case Activation::softplus: {
      const Vec<T> e = exp_negative<T>(-magnitude), denominator = one / (one + e);
      const Vec<T> s = (x < zero ? e : one) * denominator, ds = e * denominator * denominator;
      if (kind == Activation::silu) {
        f = x * s;
        df = s + x * ds;
      } else if (kind == Activation::logistic) {
        f = s;
        df = ds;
      } else if (kind == Activation::reversed_logistic) {
        f = (x < zero ? one : e) * denominator;
        df = -ds;
      } else {
        f = (x < zero ? zero : x) + map<T>(e, [](T y) { return __builtin_log1p(y); });
        df = s;
      }
      break;
    }
    case Activation::relu:
      f = x < zero ? zero : x;
      df = x > zero ? one : zero;
      break;
    case Activation::gaussian:
      f = exp_negative<T>(T(-0.5) * x * x);
      df = -x * f;
      break;
    case Activation::cos:
      f = map<T>(x, [](T y) { return __builtin_cos(y); });
      df = map<T>(x, [](T y) { return -__builtin_sin(y); });
      break;
    case Activation::exp_negative:
      f = exp_any<T>(-x);
      df = -f;
      break;
    case Activation::square:
    default:
      f = x * x;
      df = T(2) * x;
      break;
  }
}

template <class T>
void activate(Activation kind, int count, T* z, T* derivative) {
  for (int k = 0; k < count; k += width<T>) {
    Vec<T> f, df;
    activation<T>(kind, load(z + k), f, df);
    store<T>(z + k, f);
    store<T>(derivative + k, df);
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
