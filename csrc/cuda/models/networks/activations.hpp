#pragma once
#include <cmath>

#include "core/models/networks/kernels.hpp"
#include "cuda/device.hpp"

namespace nearsight {
namespace cuda {
namespace networks {

using nearsight::networks::Activation;

template <class T>
struct Activated {
  T value, derivative, second;
};

/// One activation function with its derivatives; the twin of core/models/networks/kernels.cpp.
template <class T>
__host__ __device__ inline Activated<T> activate(Activation kind, T x) {
  const T size = x < T(0) ? -x : x;
  switch (kind) {
    case Activation::linear:
      return {x, T(1), T(0)};
    case Activation::tanh: {
      const T e = std::exp(T(-2) * size), t = (T(1) - e) / (T(1) + e);
      const T f = x < T(0) ? -t : t, df = T(1) - t * t;
      return {f, df, T(-2) * f * df};
    }
    case Activation::silu:
    case Activation::logistic:
    case Activation::reversed_logistic:
    case Activation::softplus: {
      const T e = std::exp(-size), denominator = T(1) / (T(1) + e);
      const T s = (x < T(0) ? e : T(1)) * denominator, ds = e * denominator * denominator;
      const T dds = ds * (T(1) - T(2) * s);
      if (kind == Activation::silu) return {x * s, s + x * ds, T(2) * ds + x * dds};
      if (kind == Activation::logistic) return {s, ds, dds};
      if (kind == Activation::reversed_logistic) return {(x < T(0) ? T(1) : e) * denominator, -ds, -dds};
      return {(x < T(0) ? T(0) : x) + std::log1p(e), s, ds};
    }
    case Activation::relu:
      return {x < T(0) ? T(0) : x, x > T(0) ? T(1) : T(0), T(0)};
    case Activation::gaussian: {
      const T f = std::exp(T(-0.5) * x * x);
      return {f, -x * f, (x * x - T(1)) * f};
    }
    case Activation::cos:
      return {std::cos(x), -std::sin(x), -std::cos(x)};
    case Activation::exp_negative: {
      const T f = std::exp(-x);
      return {f, -f, f};
    }
    case Activation::square:
      return {x * x, T(2) * x, T(2)};
    case Activation::celu: {  // with α = 0.1
      const T e = std::exp(T(10) * (x < T(0) ? x : T(0)));
      return {x > T(0) ? x : T(0.1) * (e - T(1)), x > T(0) ? T(1) : e, x > T(0) ? T(0) : T(10) * e};
    }
    default: {  // gelu: x Φ(x) with the normal distribution Φ
      const T phi = T(0.5) * std::erfc(-x * T(0.70710678118654752440));
      const T density = T(0.39894228040143267794) * std::exp(T(-0.5) * x * x);
      return {x * phi, phi + x * density, (T(2) - x * x) * density};
    }
  }
}

}  // namespace networks
}  // namespace cuda
}  // namespace nearsight
