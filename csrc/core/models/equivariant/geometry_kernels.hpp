#pragma once
// Kernels of harmonics, edges in lanes, and of silu with its derivative; part of kernels.cpp.
#include "core/models/equivariant/convolution_kernels.hpp"

namespace nearsight {
namespace equivariant {
namespace {

constexpr double kFourPi = 12.566370614359172953850573533118;

/// Vectors of a run of edges as unit vectors and inverse lengths.
struct Directions {
  Vec<double> x[3], inverse;

  Directions(const double* vectors, int count) {
    for (int l = 0; l < width<double>; ++l)
      for (int a = 0; a < 3; ++a) x[a][l] = vectors[3 * (l < count ? l : 0) + a];
    inverse = 1.0 / simd::sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2]);
    for (int a = 0; a < 3; ++a) x[a] *= inverse;
  }
};

/// Y_lm of unit vectors as polynomials, and their gradients: [l² + l + m].
struct Harmonics {
  Vec<double> y[kMaxHarmonics], gradient[3][kMaxHarmonics];

  /// The recursions of nearsight/models/harmonics.py, times √4π.
  Harmonics(const Directions& d, int l_max) {
    const Vec<double> zero{}, one = zero + 1.0, root = zero + kFourPi;
    Vec<double> cosine = one, sine = zero, cosine_before = zero, sine_before = zero;
    Vec<double> diagonal = simd::sqrt(root / kFourPi);
    for (int m = 0; m <= l_max; ++m) {
      if (m > 0) {
        cosine_before = cosine;
        sine_before = sine;
        cosine = d.x[0] * cosine_before - d.x[1] * sine_before;
        sine = d.x[0] * sine_before + d.x[1] * cosine_before;
        diagonal *= simd::sqrt(one * ((2.0 * m + 1.0) / (2.0 * m) * (m == 1 ? 2.0 : 1.0)));
      }
      Vec<double> value = diagonal, before = zero, slope = zero, slope_before = zero;  // by z
      for (int l = m; l <= l_max; ++l) {
        if (l > m) {
          const double square = static_cast<double>(l) * l - m * m;
          const Vec<double> a = simd::sqrt(one * ((4.0 * l * l - 1.0) / square));
          const double inner = ((l - 1.0) * (l - 1.0) - m * m) / square * (2.0 * l + 1.0);
          const Vec<double> b = l > m + 1 ? simd::sqrt(one * (inner / (2.0 * l - 3.0))) : zero;
          const Vec<double> next = a * d.x[2] * value - b * before;
          const Vec<double> next_slope = a * (value + d.x[2] * slope) - b * slope_before;
          before = value;
          value = next;
          slope_before = slope;
          slope = next_slope;
        }
        const int plus = l * l + l + m, minus = l * l + l - m;
        const Vec<double> by_m = static_cast<double>(m) * value;
        y[plus] = value * cosine;
        gradient[0][plus] = by_m * cosine_before;
        gradient[1][plus] = -by_m * sine_before;
        gradient[2][plus] = slope * cosine;
        if (m == 0) continue;
        y[minus] = value * sine;
        gradient[0][minus] = by_m * sine_before;
        gradient[1][minus] = by_m * cosine_before;
        gradient[2][minus] = slope * sine;
      }
    }
  }
};

/// Calls body(first edge, edges, directions, harmonics) for runs of edges.
template <class Body>
inline void for_runs(const double* vectors, std::int64_t count, int l_max, const Body& body) {
  for (std::int64_t first = 0; first < count; first += width<double>) {
    const int edges = count - first < width<double> ? static_cast<int>(count - first) : width<double>;
    const Directions directions(vectors + 3 * first, edges);
    body(first, edges, directions, Harmonics(directions, l_max));
  }
}

template <class T>
void harmonics(const double* vectors, std::int64_t count, int l_max, T* y) {
  const int n = (l_max + 1) * (l_max + 1);
  for_runs(vectors, count, l_max,
           [&](std::int64_t first, int edges, const Directions&, const Harmonics& harmonics) {
             for (int l = 0; l < edges; ++l)
               for (int h = 0; h < n; ++h) y[(first + l) * n + h] = static_cast<T>(harmonics.y[h][l]);
           });
}

template <class T>
void harmonics_reverse(const double* vectors, std::int64_t count, int l_max, const T* adjoints,
                       double* gradients) {
  const int n = (l_max + 1) * (l_max + 1);
  for_runs(vectors, count, l_max,
           [&](std::int64_t first, int edges, const Directions& d, const Harmonics& harmonics) {
             Vec<double> g[3] = {};
             for (int h = 0; h < n; ++h) {
               Vec<double> adjoint{};
               for (int l = 0; l < edges; ++l) adjoint[l] = adjoints[(first + l) * n + h];
               for (int a = 0; a < 3; ++a) g[a] += adjoint * harmonics.gradient[a][h];
             }
             const Vec<double> along = g[0] * d.x[0] + g[1] * d.x[1] + g[2] * d.x[2];
             for (int a = 0; a < 3; ++a) {
               const Vec<double> result = (g[a] - along * d.x[a]) * d.inverse;
               for (int l = 0; l < edges; ++l) gradients[3 * (first + l) + a] = result[l];
             }
           });
}

template <class T>
void harmonics_tangent(const double* vectors, std::int64_t count, int l_max, const double* directions,
                       T* tangents) {
  const int n = (l_max + 1) * (l_max + 1);
  for_runs(vectors, count, l_max,
           [&](std::int64_t first, int edges, const Directions& d, const Harmonics& harmonics) {
             Vec<double> v[3] = {};
             for (int l = 0; l < edges; ++l)
               for (int a = 0; a < 3; ++a) v[a][l] = directions[3 * (first + l) + a];
             const Vec<double> along = v[0] * d.x[0] + v[1] * d.x[1] + v[2] * d.x[2];
             for (int a = 0; a < 3; ++a) v[a] = (v[a] - along * d.x[a]) * d.inverse;
             for (int h = 0; h < n; ++h) {
               const Vec<double> t = v[0] * harmonics.gradient[0][h] + v[1] * harmonics.gradient[1][h] +
                                     v[2] * harmonics.gradient[2][h];
               for (int l = 0; l < edges; ++l) tangents[(first + l) * n + h] = static_cast<T>(t[l]);
             }
           });
}

/// 1 / (1 + exp(-x)).
template <class T>
inline Vec<T> logistic(Vec<T> x) {
  const Vec<T> e = simd::exp_negative<T>(x < T(0) ? x : -x);
  return (x < T(0) ? e : broadcast<T>(T(1))) / (T(1) + e);
}

/// Calls body(array …) where each pointer is to a whole vector of its array, also at the end.
template <class T, int Inputs, int Outputs, class Body>
inline void for_vectors(const T* const (&inputs)[Inputs], T* const (&outputs)[Outputs], std::int64_t count,
                        const Body& body) {
  constexpr int w = width<T>;
  Vec<T> in[Inputs], out[Outputs];
  for (std::int64_t k = 0; k < count; k += w) {
    const int rest = count - k < w ? static_cast<int>(count - k) : w;
    for (int n = 0; n < Inputs; ++n) {
      if (rest == w) {
        in[n] = at(inputs[n] + k);
      } else {
        in[n] = broadcast<T>(T(0));
        for (int l = 0; l < rest; ++l) in[n][l] = inputs[n][k + l];
      }
    }
    body(in, out);
    for (int n = 0; n < Outputs; ++n) {
      if (rest == w) {
        put<T>(outputs[n] + k, out[n]);
      } else {
        for (int l = 0; l < rest; ++l) outputs[n][k + l] = out[n][l];
      }
    }
  }
}

template <class T>
void silu(const T* x, T* y, std::int64_t count) {
  const T* const inputs[] = {x, x + count};
  T* const outputs[] = {y, y + count};
  for_vectors<T>(inputs, outputs, count, [](const Vec<T>* in, Vec<T>* out) {
    const Vec<T> s = logistic<T>(in[0]), rest = T(1) - s;
    out[0] = in[0] * s;
    out[1] = in[1] * s * (T(1) + in[0] * rest);
  });
}

template <class T>
void silu_reverse(const T* x, const T* adjoints, T* gradients, std::int64_t count) {
  const T* const inputs[] = {x, x + count, adjoints, adjoints + count};
  T* const outputs[] = {gradients, gradients + count};
  for_vectors<T>(inputs, outputs, count, [](const Vec<T>* in, Vec<T>* out) {
    const Vec<T> s = logistic<T>(in[0]), rest = T(1) - s;
    const Vec<T> slope = s * (T(1) + in[0] * rest), curvature = s * rest * (T(2) + in[0] * (rest - s));
    out[0] = in[2] * slope + in[3] * in[1] * curvature;
    out[1] = in[3] * slope;
  });
}

}  // namespace
}  // namespace equivariant
}  // namespace nearsight
