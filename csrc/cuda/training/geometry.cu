// Twin of core/models/equivariant/geometry_kernels.hpp for training on a GPU: harmonics, a thread for every
// edge, and silu with its derivative, a thread for every number.
#include "cuda/device.hpp"
#include "cuda/models/shared/harmonics.hpp"
#include "cuda/training/geometry.hpp"
#include "cuda/training/work.hpp"

namespace nearsight {
namespace cuda {
namespace training {
namespace {

using Factors = HarmonicFactors<double>;

/// In component normalization, √4π times orthonormal ones.
Factors factors_of(int l_max) {
  return harmonic_factors<double>(l_max, 3.5449077018110320546);
}

struct Direction {
  double x, y, z, inverse;  // unit vector, 1 / length

  __device__ explicit Direction(const double* v)
      : inverse(1.0 / std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])) {
    x = v[0] * inverse, y = v[1] * inverse, z = v[2] * inverse;
  }
};

template <class T>
__global__ void write_harmonics(const double* vectors, std::int64_t count, Factors factors, T* output) {
  const auto e = static_cast<std::int64_t>(thread_number());
  if (e >= count) return;
  const Direction d(vectors + 3 * e);
  T* const y = output + e * (factors.l_max + 1) * (factors.l_max + 1);
  for_harmonics(factors, d.x, d.y, d.z, [&](int l, int m, double value, double, double, double) {
    y[l * l + l + m] = static_cast<T>(value);
  });
}

template <class T>
__global__ void reverse_harmonics(const double* vectors, std::int64_t count, Factors factors,
                                  const T* adjoints, double* gradients) {
  const auto e = static_cast<std::int64_t>(thread_number());
  if (e >= count) return;
  const Direction d(vectors + 3 * e);
  const T* const a = adjoints + e * (factors.l_max + 1) * (factors.l_max + 1);
  double gx = 0.0, gy = 0.0, gz = 0.0;
  for_harmonics(factors, d.x, d.y, d.z, [&](int l, int m, double, double x, double y, double z) {
    const double adjoint = a[l * l + l + m];
    gx += adjoint * x, gy += adjoint * y, gz += adjoint * z;
  });
  const double along = gx * d.x + gy * d.y + gz * d.z;
  gradients[3 * e] = (gx - along * d.x) * d.inverse;
  gradients[3 * e + 1] = (gy - along * d.y) * d.inverse;
  gradients[3 * e + 2] = (gz - along * d.z) * d.inverse;
}

template <class T>
__global__ void move_harmonics(const double* vectors, std::int64_t count, Factors factors,
                               const double* directions, T* tangents) {
  const auto e = static_cast<std::int64_t>(thread_number());
  if (e >= count) return;
  const Direction d(vectors + 3 * e);
  const double* const v = directions + 3 * e;
  const double along = v[0] * d.x + v[1] * d.y + v[2] * d.z;
  const double vx = (v[0] - along * d.x) * d.inverse, vy = (v[1] - along * d.y) * d.inverse,
               vz = (v[2] - along * d.z) * d.inverse;
  T* const t = tangents + e * (factors.l_max + 1) * (factors.l_max + 1);
  for_harmonics(factors, d.x, d.y, d.z, [&](int l, int m, double, double x, double y, double z) {
    t[l * l + l + m] = static_cast<T>(vx * x + vy * y + vz * z);
  });
}

template <class T>
__device__ inline T logistic(T x) {
  const T e = std::exp(x < T(0) ? x : -x);
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

template <class T>
__global__ void silu_of(const T* x, T* y, std::int64_t count) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n >= count) return;
  const T s = logistic(x[n]);
  y[n] = x[n] * s;
  y[count + n] = x[count + n] * s * (T(1) + x[n] * (T(1) - s));
}

template <class T>
__global__ void reverse_silu(const T* x, const T* adjoints, T* gradients, std::int64_t count) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n >= count) return;
  const T s = logistic(x[n]), rest = T(1) - s;
  const T slope = s * (T(1) + x[n] * rest), curvature = s * rest * (T(2) + x[n] * (rest - s));
  gradients[n] = adjoints[n] * slope + adjoints[count + n] * x[count + n] * curvature;
  gradients[count + n] = adjoints[count + n] * slope;
}

}  // namespace

template <class T>
void silu(DeviceScope& scope, const T* x, T* y, std::int64_t count) {
  const Work work(scope);
  launch(work.stream, one_each(count), silu_of<T>, x, y, count);
}

template <class T>
void silu_reverse(DeviceScope& scope, const T* x, const T* adjoints, T* gradients, std::int64_t count) {
  const Work work(scope);
  launch(work.stream, one_each(count), reverse_silu<T>, x, adjoints, gradients, count);
}

template <class T>
void harmonics(DeviceScope& scope, const double* vectors, std::int64_t count, int l_max, T* y) {
  const Work work(scope);
  launch(work.stream, one_each(count, 128), write_harmonics<T>, vectors, count, factors_of(l_max), y);
}

template <class T>
void harmonics_reverse(DeviceScope& scope, const double* vectors, std::int64_t count, int l_max,
                       const T* adjoints, double* gradients) {
  const Work work(scope);
  launch(work.stream, one_each(count, 128), reverse_harmonics<T>, vectors, count, factors_of(l_max), adjoints,
         gradients);
}

template <class T>
void harmonics_tangent(DeviceScope& scope, const double* vectors, std::int64_t count, int l_max,
                       const double* directions, T* tangents) {
  const Work work(scope);
  launch(work.stream, one_each(count, 128), move_harmonics<T>, vectors, count, factors_of(l_max), directions,
         tangents);
}

#define NEARSIGHT_GEOMETRY(T)                                                                         \
  template void silu(DeviceScope&, const T*, T*, std::int64_t);                                       \
  template void silu_reverse(DeviceScope&, const T*, const T*, T*, std::int64_t);                     \
  template void harmonics(DeviceScope&, const double*, std::int64_t, int, T*);                        \
  template void harmonics_reverse(DeviceScope&, const double*, std::int64_t, int, const T*, double*); \
  template void harmonics_tangent(DeviceScope&, const double*, std::int64_t, int, const double*, T*);
NEARSIGHT_GEOMETRY(float)
NEARSIGHT_GEOMETRY(double)

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
