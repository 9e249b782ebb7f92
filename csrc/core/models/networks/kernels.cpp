#include "core/models/networks/kernels.hpp"

#include "core/models/shared/simd.hpp"
#include "core/models/shared/simd_erfc.hpp"

namespace nearsight {
namespace networks {
namespace {

using simd::broadcast;
using simd::exp_negative;
using simd::load;
using simd::store;
using simd::Vec;
using simd::width;

// Rows x vectors of c that are kept in registers: 32 of them with AVX-512, 16 else.
constexpr int kRows = NEARSIGHT_VECTOR_BYTES == 64 ? 12 : 6;
constexpr int kVectors = 2;

/// A block of c: rows from `row`, vectors from `vector` (counted over the panels that take part).
template <class T, int rows, int vectors>
inline void multiply_block(const Product<T>& p, int row, int vector) {
  constexpr int per_panel = kPad / width<T>;
  const T* right[vectors];
  Vec<T> sums[rows][vectors];
  const T* left = p.a + row * p.lda;
  T* const c = p.c + row * p.ldc + vector * width<T>;
#pragma GCC unroll 2
  for (int v = 0; v < vectors; ++v) {
    const int number = (vector + v) / per_panel, lane = (vector + v) % per_panel * width<T>;
    const int panel = p.panels ? p.panels[number] : number;
    right[v] = p.b + panel * p.inner * kPad + lane;
    const Vec<T> start = p.bias ? load(p.bias + panel * kPad + lane) : broadcast<T>(T(0));
#pragma GCC unroll 12
    for (int m = 0; m < rows; ++m) sums[m][v] = p.add ? load(c + m * p.ldc + v * width<T>) : start;
  }
  for (int run = 0; run < p.num_runs; ++run)
    for (int k = p.runs[run].first; k < p.runs[run].last; ++k, ++left) {
      Vec<T> b[vectors];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) b[v] = load(right[v] + k * kPad);
#pragma GCC unroll 12
      for (int m = 0; m < rows; ++m)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) sums[m][v] += left[m * p.lda] * b[v];
    }
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      const int at = m * p.ldc + v * width<T>;
      const T* const factor = p.factor ? p.factor + (c - p.c) + at : nullptr;
      store<T>(c + at, factor ? sums[m][v] * load(factor) : sums[m][v]);
    }
}

/// multiply_block() for `count` <= rows.
template <class T, int rows, int vectors>
inline void multiply_rows(const Product<T>& p, int row, int count, int vector) {
  if constexpr (rows > 1)
    if (count < rows) return multiply_rows<T, rows - 1, vectors>(p, row, count, vector);
  multiply_block<T, rows, vectors>(p, row, vector);
}

/// A block of vectors stays in the cache while all rows pass; rows are split into blocks of equal size.
template <class T>
void multiply(const Product<T>& p) {
  const int blocks = (p.rows + kRows - 1) / kRows, num_vectors = p.num_panels * kPad / width<T>;
  for (int vector = 0; vector < num_vectors; vector += kVectors)
    for (int block = 0; block < blocks; ++block) {
      const int row = p.rows * block / blocks, count = p.rows * (block + 1) / blocks - row;
      if (vector + kVectors <= num_vectors)
        multiply_rows<T, kRows, kVectors>(p, row, count, vector);
      else
        multiply_rows<T, kRows, 1>(p, row, count, vector);
    }
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

/// f, df/dx and d²f/dx² of one activation function.
template <class T>
inline void activation(Activation kind, Vec<T> x, Vec<T>& f, Vec<T>& df, Vec<T>& ddf) {
  const Vec<T> one = broadcast<T>(T(1)), zero = broadcast<T>(T(0)), magnitude = x < zero ? -x : x;
  switch (kind) {
    case Activation::linear:
      f = x;
      df = one;
      ddf = zero;
      break;
    case Activation::tanh: {
      const Vec<T> e = exp_negative<T>(T(-2) * magnitude), t = (one - e) / (one + e);
      f = x < zero ? -t : t;
      df = one - t * t;
      ddf = T(-2) * f * df;
      break;
    }
    case Activation::silu:
    case Activation::logistic:
    case Activation::reversed_logistic:
    case Activation::softplus: {
      const Vec<T> e = exp_negative<T>(-magnitude), denominator = one / (one + e);
      const Vec<T> s = (x < zero ? e : one) * denominator, ds = e * denominator * denominator;
      const Vec<T> dds = ds * (one - T(2) * s);
      if (kind == Activation::silu) {
        f = x * s;
        df = s + x * ds;
        ddf = T(2) * ds + x * dds;
      } else if (kind == Activation::logistic) {
        f = s;
        df = ds;
        ddf = dds;
      } else if (kind == Activation::reversed_logistic) {
        f = (x < zero ? one : e) * denominator;
        df = -ds;
        ddf = -dds;
      } else {
        f = (x < zero ? zero : x) + map<T>(e, [](T y) { return __builtin_log1p(y); });
        df = s;
        ddf = ds;
      }
      break;
    }
    case Activation::relu:
      f = x < zero ? zero : x;
      df = x > zero ? one : zero;
      ddf = zero;
      break;
    case Activation::gaussian:
      f = exp_negative<T>(T(-0.5) * x * x);
      df = -x * f;
      ddf = (x * x - one) * f;
      break;
    case Activation::cos:
      f = map<T>(x, [](T y) { return __builtin_cos(y); });
      df = map<T>(x, [](T y) { return -__builtin_sin(y); });
      ddf = -f;
      break;
    case Activation::exp_negative:
      f = exp_any<T>(-x);
      df = -f;
      ddf = f;
      break;
    case Activation::square:
      f = x * x;
      df = T(2) * x;
      ddf = one + one;
      break;
    case Activation::celu: {  // with α = 0.1
      const Vec<T> e = exp_negative<T>(T(10) * (x < zero ? x : zero));
      f = x > zero ? x : T(0.1) * (e - one);
      df = x > zero ? one : e;
      ddf = x > zero ? zero : T(10) * e;
      break;
    }
    case Activation::gelu:  // x Φ(x) with the normal distribution Φ
    default: {
      const Vec<T> tail = T(0.5) * simd::erfc<T>(magnitude * T(0.70710678118654752440));
      const Vec<T> phi = x < zero ? tail : one - tail;
      const Vec<T> density = T(0.39894228040143267794) * exp_negative<T>(T(-0.5) * x * x);
      f = x * phi;
      df = phi + x * density;
      ddf = (T(2) - x * x) * density;
      break;
    }
  }
}

template <class T>
void activate(Activation kind, int count, T* z, T* derivative) {
  for (int k = 0; k < count; k += width<T>) {
    Vec<T> f, df, ddf;
    activation<T>(kind, load(z + k), f, df, ddf);
    store<T>(z + k, f);
    store<T>(derivative + k, df);
  }
}

template <class T>
void activate_twice(Activation kind, int count, T* z, T* derivative, T* second) {
  for (int k = 0; k < count; k += width<T>) {
    Vec<T> f, df, ddf;
    activation<T>(kind, load(z + k), f, df, ddf);
    store<T>(z + k, f);
    store<T>(derivative + k, df);
    store<T>(second + k, ddf);
  }
}

template <class T>
constexpr Kernels<T> table() {
  return {multiply<T>, activate<T>, activate_twice<T>};
}

}  // namespace

NEARSIGHT_DEFINE_KERNELS(float)
NEARSIGHT_DEFINE_KERNELS(double)

}  // namespace networks
}  // namespace nearsight
