#include "core/mesh/kernels.hpp"

#include "core/models/shared/simd.hpp"
#include "core/models/shared/simd_erfc.hpp"
#include "core/models/shared/simd_lanes.hpp"

namespace nearsight {
namespace pairs {
namespace {

using simd::broadcast;
using simd::load;
using simd::store;
using simd::Vec;
using simd::width;

constexpr double kTwoOverRootPi = 1.12837916709551257390;

template <class T>
void screened(int count, T alpha, const T* r2, T* values, T* slopes) {
  for (int k = 0; k < count; k += width<T>) {
    const Vec<T> square = load(r2 + k), r = simd::sqrt(square), inverse2 = T(1) / square;
    const Vec<T> value = simd::erfc<T>(alpha * r) * r * inverse2;
    const Vec<T> gauss = T(kTwoOverRootPi) * alpha * simd::exp_negative<T>(-alpha * alpha * square);
    store<T>(values + k, value);
    store<T>(slopes + k, -(value + gauss) * inverse2);
  }
}

template <class T>
inline Vec<T> least(Vec<T> a, Vec<T> b) {
  return a < b ? a : b;
}

/// Others that go through the polynomials together: their chains of products overlap.
constexpr int kTogether = NEARSIGHT_VECTOR_BYTES == 64 ? 4 : 2;

/// Sums, or coefficients and how many were met.
template <class T, bool kGaussian, bool kFields>
void meet(const Series<T>& series, const Places<T>& block, int count, const Places<T>& others,
          T (*sums)[kBlock<T>], T (*coefficients)[kBlock<T>], T* too_close) {
  constexpr T farthest = sizeof(T) == 4 ? T(8.9) : T(26);  // where erfc is about to underflow
  const Vec<T> zero = broadcast<T>(T(0)), one = broadcast<T>(T(1)), cutoff2 = broadcast(series.cutoff2);
  const Vec<T> closest2 = broadcast<T>(T(kClosest * kClosest));
  for (int l = 0; l < kBlock<T>; l += width<T>) {
    const Vec<T> x = load(block.x + l), y = load(block.y + l), z = load(block.z + l);
    const Vec<T> width2 = kGaussian ? load(block.width2 + l) : zero;
    Vec<T> total[kNumSums] = {};
    for (int k = 0; k < count; k += kTogether) {
      Vec<T> r2[kTogether], t[kTogether], value[kTogether], slope[kTogether];
      for (int n = 0; n < kTogether; ++n) {
        const Vec<T> dx = others.x[k + n] - x, dy = others.y[k + n] - y, dz = others.z[k + n] - z;
        r2[n] = dx * dx + dy * dy + dz * dz;
        t[n] =
            least<T>(r2[n] * series.scale - T(1), one);  // pairs beyond count 0, but times something finite
        value[n] = broadcast(series.value[series.terms - 1]);
        slope[n] = broadcast(series.slope[series.terms - 1]);
      }
      for (int m = series.terms - 2; m >= 0; --m)
        for (int n = 0; n < kTogether; ++n) {
          value[n] = value[n] * t[n] + series.value[m];
          if constexpr (kFields) slope[n] = slope[n] * t[n] + series.slope[m];
        }
      for (int n = 0; n < kTogether; ++n) {
        const Vec<T> q = broadcast(others.charge[k + n]);
        total[met] += r2[n] < closest2 ? one : zero;
        const Vec<T> square = r2[n] < closest2 ? cutoff2 : r2[n];
        const Vec<T> charge = square < cutoff2 ? q : zero;
        const Vec<T> inverse = simd::inverse_sqrt(square);
        Vec<T> left = inverse - value[n], force = inverse * inverse * inverse + slope[n];
        if (kGaussian) {
          const Vec<T> sum2 = simd::max<T>(width2 + others.width2[k + n], T(1e-12));
          const Vec<T> a = simd::inverse_sqrt(T(2) * sum2);
          const Vec<T> reach = least<T>(a * square * inverse, broadcast(farthest));
          const Vec<T> gauss = simd::exp_negative<T>(-reach * reach);
          const Vec<T> outer = gauss * simd::scaled_erfc<T>(reach) * inverse;
          left -= outer;
          if constexpr (kFields) force -= (outer + T(kTwoOverRootPi) * a * gauss) * inverse * inverse;
        }
        if constexpr (!kFields) {
          store<T>(coefficients[k + n] + l, square < cutoff2 ? left : zero);
          continue;
        }
        const Vec<T> dx = others.x[k + n] - x, dy = others.y[k + n] - y, dz = others.z[k + n] - z;
        force *= charge;
        const Vec<T> fx = force * dx, fy = force * dy, fz = force * dz;
        total[potential] += charge * left;
        total[field_x] -= fx;
        total[field_y] -= fy;
        total[field_z] -= fz;
        total[xx] -= fx * dx;
        total[yy] -= fy * dy;
        total[zz] -= fz * dz;
        total[xy] -= fx * dy;
        total[xz] -= fx * dz;
        total[yz] -= fy * dz;
      }
    }
    if constexpr (!kFields) store<T>(too_close + l, total[met]);
    for (int s = 0; s < kNumSums && kFields; ++s) store<T>(sums[s] + l, total[s]);
  }
}

template <class T, bool kGaussian>
void sum(const Series<T>& series, const Places<T>& block, int count, const Places<T>& others,
         T (*sums)[kBlock<T>]) {
  meet<T, kGaussian, true>(series, block, count, others, sums, nullptr, nullptr);
}

template <class T, bool kGaussian>
void find_coefficients(const Series<T>& series, const Places<T>& block, int count, const Places<T>& others,
                       T (*coefficients)[kBlock<T>], T* met) {
  meet<T, kGaussian, false>(series, block, count, others, nullptr, coefficients, met);
}

template <class T>
void apply(int count, const T (*coefficients)[kBlock<T>], const T* charges, T* sums) {
  for (int l = 0; l < kBlock<T>; l += width<T>) {
    Vec<T> even = broadcast<T>(T(0)), odd = even;
    int k = 0;
    for (; k + 1 < count; k += 2) {
      even += load(coefficients[k] + l) * charges[k];
      odd += load(coefficients[k + 1] + l) * charges[k + 1];
    }
    if (k < count) even += load(coefficients[k] + l) * charges[k];
    store<T>(sums + l, even + odd);
  }
}

template <class T>
int find_near(const Places<T>& block, T reach, const double* const places[3], const double origin[3],
              int first, int last, int* found) {
  int count = 0;
  for (int k = first; k < last; ++k) {
    const T px = T(places[0][k] - origin[0]), py = T(places[1][k] - origin[1]),
            pz = T(places[2][k] - origin[2]);
    Vec<T> nearest = broadcast<T>(reach * reach);
    for (int l = 0; l < kBlock<T>; l += width<T>) {
      const Vec<T> dx = px - load(block.x + l), dy = py - load(block.y + l), dz = pz - load(block.z + l);
      nearest = least<T>(nearest, dx * dx + dy * dy + dz * dz);
    }
    found[count] = k;
    count += simd::less(nearest, broadcast<T>(reach * reach)) != 0;
  }
  return count;
}

template <class T>
void collect(int count, const int* numbers, const double* from, double origin, T* to) {
  for (int k = 0; k < count; ++k) to[k] = T(from[numbers[k]] - origin);
}

template <class T>
constexpr Kernels<T> table() {
  return {screened<T>, sum<T, false>, sum<T, true>, find_coefficients<T, false>, find_coefficients<T, true>,
          apply<T>,    find_near<T>,  collect<T>};
}

}  // namespace

NEARSIGHT_DEFINE_KERNELS(float)
NEARSIGHT_DEFINE_KERNELS(double)

}  // namespace pairs
}  // namespace nearsight
