#pragma once
// Charges to the mesh and back, eight lanes for each charge.
#include "core/mesh/mesh_kernels.hpp"
#include "cuda/mesh/charges.hpp"

namespace nearsight {
namespace cuda {

constexpr unsigned kSplineLanes = kMaxOrder;  // of a charge: points of a line
constexpr unsigned kSplineThreads = 128;      // of a block
constexpr unsigned kSplineCharges = kSplineThreads / kSplineLanes;

inline Grid spline_grid(std::size_t num_charges) {
  return one_each(kSplineLanes * num_charges, kSplineThreads);
}

/// The brick of a mesh that a rank's charges reach, from its point `first` on, across the mesh's end.
struct BrickShape {
  int lengths[3];  // of the mesh
  int first[3], size[3];
  int order;  // of the splines
};

/// Of a charge along each direction: weights of the points that it reaches, their derivatives by its place,
/// and the first of these points, in the brick.
template <class T>
struct Splines {
  T weights[3][kMaxOrder], slopes[3][kMaxOrder];
  int first[3];
};

/// M_n from M_(n-1), from n on to the order: m[i] = M(f + i). As core's Splines.
template <int n, class T>
__device__ inline void raise(int order, double f, double (&m)[kMaxOrder], T* weights, T* slopes) {
  if (n == order)
    for (int i = 0; i < n; ++i) slopes[n - 1 - i] = static_cast<T>(i ? m[i] - m[i - 1] : m[i]);
  constexpr double share = 1.0 / (n - 1);
  for (int i = n - 1; i > 0; --i) m[i] = share * ((f + i) * m[i] + (n - i - f) * m[i - 1]);
  m[0] = share * f * m[0];
  if (n == order)
    for (int i = 0; i < n; ++i) weights[n - 1 - i] = static_cast<T>(m[i]);
  else if constexpr (n < kMaxOrder)
    raise<n + 1>(order, f, m, weights, slopes);
}

/// By the eight lanes of a charge; all lanes of the warp take part.
template <class T>
__device__ inline void find_splines(const DeviceCharges& charges, int i, const Axes& axes,
                                    const BrickShape& brick, Splines<T>& splines) {
  const unsigned d = threadIdx.x % kSplineLanes;
  if (d < 3) {
    double s = axes.fraction(charges.positions + 3 * static_cast<std::size_t>(i), d);
    s -= floor(s);
    if (s >= 1.0) s = 0.0;  // of a tiny negative number
    const int n = brick.lengths[d], below = static_cast<int>(s * n), point = below < n ? below : n - 1;
    const double f = s * n - point;
    double m[kMaxOrder] = {f, 1.0 - f};  // M_2
    raise<3>(brick.order, f, m, splines.weights[d], splines.slopes[d]);
    const int first = point - brick.first[d];
    splines.first[d] = first < 0 ? first + n : first;
  }
  __syncwarp();
}

/// The point that comes `ahead` after the first one; a brick that goes on where it began is the whole mesh,
/// which may be smaller than the order.
__device__ inline int point_ahead(int first, int ahead, int size) {
  int point = first + ahead;
  while (point >= size) point -= size;
  return point;
}

/// order³ integer additions for a charge, in lines of 8 bytes for each point, which the caches merge.
template <class T>
__global__ void __launch_bounds__(kSplineThreads)
    spread(DeviceCharges charges, const std::int32_t* order, Axes axes, BrickShape brick, T scale,
           unsigned long long* integers) {
  __shared__ Splines<T> shared[kSplineCharges];
  const std::size_t k = thread_number() / kSplineLanes;
  const bool taken = k < static_cast<std::size_t>(charges.own);
  const int i = order[taken ? k : 0], c = threadIdx.x % kSplineLanes;
  Splines<T>& splines = shared[threadIdx.x / kSplineLanes];
  find_splines(charges, i, axes, brick, splines);
  if (!taken || c >= brick.order) return;
  const int z = point_ahead(splines.first[2], c, brick.size[2]);
  const T charge = static_cast<T>(charges.values[i]) * splines.weights[2][c];
  for (int a = 0; a < brick.order; ++a) {
    const std::size_t plane =
        static_cast<std::size_t>(point_ahead(splines.first[0], a, brick.size[0])) * brick.size[1];
    const T share = splines.weights[0][a] * charge;
    for (int b = 0; b < brick.order; ++b) {
      const std::size_t line = (plane + point_ahead(splines.first[1], b, brick.size[1])) * brick.size[2];
      const T value = splines.weights[1][b] * share * scale;
      const auto rounded = static_cast<unsigned long long>(static_cast<long long>(rint(value)));
      atomicAdd(integers + line + z, rounded);
    }
  }
}

/// Adds potentials and, with fields, minus their gradients.
template <class T>
__global__ void __launch_bounds__(kSplineThreads)
    gather(DeviceCharges charges, const std::int32_t* order, Axes axes, BrickShape brick, const T* mesh,
           ChargeSums sums) {
  __shared__ Splines<T> shared[kSplineCharges];
  const std::size_t k = thread_number() / kSplineLanes;
  const bool taken = k < static_cast<std::size_t>(charges.own);
  const int i = order[taken ? k : 0], c = threadIdx.x % kSplineLanes;
  Splines<T>& splines = shared[threadIdx.x / kSplineLanes];
  find_splines(charges, i, axes, brick, splines);
  T value = 0, by_x = 0, by_y = 0, by_z = 0;
  if (c < brick.order) {
    const int z = point_ahead(splines.first[2], c, brick.size[2]);
    for (int a = 0; a < brick.order; ++a) {
      const std::size_t plane =
          static_cast<std::size_t>(point_ahead(splines.first[0], a, brick.size[0])) * brick.size[1];
      T sum = 0, slope = 0;
      for (int b = 0; b < brick.order; ++b) {
        const std::size_t line = (plane + point_ahead(splines.first[1], b, brick.size[1])) * brick.size[2];
        const T found = mesh[line + z];
        sum += splines.weights[1][b] * found;
        slope += splines.slopes[1][b] * found;
      }
      value += splines.weights[0][a] * sum;
      by_x += splines.slopes[0][a] * sum;
      by_y += splines.weights[0][a] * slope;
    }
    by_x *= splines.weights[2][c];
    by_y *= splines.weights[2][c];
    by_z = splines.slopes[2][c] * value;
    value *= splines.weights[2][c];
  }
  value = warp_sum<kSplineLanes>(value);
  if (!sums.fields) {
    if (taken && c == 0) sums.values[i] += value;
    return;
  }
  const T slopes[3] = {warp_sum<kSplineLanes>(by_x), warp_sum<kSplineLanes>(by_y),
                       warp_sum<kSplineLanes>(by_z)};
  if (!taken || c != 0) return;
  double* const result = sums.values + 4 * static_cast<std::size_t>(i);
  result[0] += value;
  for (int axis = 0; axis < 3; ++axis) {
    double slope = 0;
    for (int d = 0; d < 3; ++d) slope += double(slopes[d]) * brick.lengths[d] * axes.inverse[3 * axis + d];
    result[1 + axis] -= slope;
  }
}

}  // namespace cuda
}  // namespace nearsight
