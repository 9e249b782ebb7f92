#include "core/models/mace/kernels.hpp"

#include "core/models/mace/edge_kernels.hpp"
#include "core/models/mace/hermite.hpp"
#include "core/models/mace/product_kernels.hpp"
#include "core/models/shared/simd_harmonics.hpp"

namespace nearsight {
namespace mace {
namespace {

typedef float HalfFloats __attribute__((vector_size(NEARSIGHT_VECTOR_BYTES / 2), may_alias));
typedef int HalfInts __attribute__((vector_size(NEARSIGHT_VECTOR_BYTES / 2), may_alias));

inline void put(double* target, Vec<double> v) {
  store<double>(target, v);
}
inline void put(float* target, Vec<double> v) {
  *reinterpret_cast<HalfFloats*>(target) = __builtin_convertvector(v, HalfFloats);
}

/// In double, rounded at the end.
template <class T>
void geometry(const KnotScale& scale, bool at_knots, const Edges<T>& e) {
  const Vec<double> zero = broadcast<double>(0.0), end = broadcast<double>(scale.intervals);
  for (int k = 0; k < e.stride; k += width<double>) {
    const Vec<double> x = load(e.vectors[0] + k), y = load(e.vectors[1] + k), z = load(e.vectors[2] + k);
    const Vec<double> r = simd::sqrt(x * x + y * y + z * z), inverse = 1.0 / r;
    store<double>(e.r + k, r);
    put(e.x + k, x * inverse);
    put(e.y + k, y * inverse);
    put(e.z + k, z * inverse);
    put(e.inv_r + k, inverse);
    // As in Grid::locate().
    const Vec<double> per_shape = 1.0 / (r + scale.shape);
    Vec<double> steps = simd::max<double>((r * per_shape - scale.start) * scale.per_step, 0.0);
    steps = steps < end ? steps : end;
    const HalfInts floor = __builtin_convertvector(steps, HalfInts), last = HalfInts{} + scale.intervals - 1;
    const HalfInts knot = floor < last ? floor : last;
    *reinterpret_cast<HalfInts*>(e.knots + k) = knot;
    const Vec<double> within = at_knots ? zero : steps - __builtin_convertvector(knot, Vec<double>);
    Vec<double> w[4 * kJet];
    hermite_weights<Vec<double>>(within, scale.shape * scale.per_step * per_shape * per_shape, w);
    // Closer than the tables begin, the functions stay as they are there.
    for (int n = 0; n < 2 * kJet; ++n) {
      put(e.weights + n * e.stride + k, w[n]);
      put(e.weights + (2 * kJet + n) * e.stride + k, r < scale.first ? zero : w[2 * kJet + n]);
    }
  }
}

template <class T>
void harmonics(const HarmonicFactors<T>& factors, const Edges<T>& e) {
  simd::harmonics<T, false>(factors, e.stride, e.x, e.y, e.z, e.stride, e.harmonics, nullptr);
}

template <class T>
struct alignas(64) HarmonicRun {
  T y[kMaxHarmonics * kRun<T>], gradient[3][kMaxHarmonics * kRun<T>];
};

template <class T>
void gradients(const HarmonicFactors<T>& factors, const Edges<T>& e) {
  const int count = (factors.l_max + 1) * (factors.l_max + 1);
  HarmonicRun<T> run;
  T* const arrays[3] = {run.gradient[0], run.gradient[1], run.gradient[2]};
  for (int first = 0; first < e.stride; first += kRun<T>) {
    simd::harmonics<T, true>(factors, kRun<T>, e.x + first, e.y + first, e.z + first, kRun<T>, run.y, arrays);
    for (int k = 0; k < kRun<T>; k += width<T>) {
      const int place = first + k;
      Vec<T> g[3] = {broadcast<T>(T(0)), broadcast<T>(T(0)), broadcast<T>(T(0))};
      for (int lm = 0; lm < count; ++lm) {
        const Vec<T> adjoint = load(e.harmonic_adjoints + lm * e.stride + place);
        for (int a = 0; a < 3; ++a) g[a] += adjoint * load(arrays[a] + lm * kRun<T> + k);
      }
      // Only what turns the unit vector counts; the slope goes along it.
      const Vec<T> x = load(e.x + place), y = load(e.y + place), z = load(e.z + place);
      const Vec<T> inv_r = load(e.inv_r + place);
      const Vec<T> along = load(e.slopes + place) - (x * g[0] + y * g[1] + z * g[2]) * inv_r;
      store<T>(e.gx + place, g[0] * inv_r + x * along);
      store<T>(e.gy + place, g[1] * inv_r + y * along);
      store<T>(e.gz + place, g[2] * inv_r + z * along);
    }
  }
}

template <class T>
using PathFunction = void (*)(const PathWork<T>&);

template <class T>
void any_path(int l1, int l3, const PathWork<T>& work) {
  static constexpr PathFunction<T> all[3][4] = {{path<T, 0, 0>, path<T, 0, 1>, path<T, 0, 2>, path<T, 0, 3>},
                                                {path<T, 1, 0>, path<T, 1, 1>, path<T, 1, 2>, path<T, 1, 3>},
                                                {path<T, 2, 0>, path<T, 2, 1>, path<T, 2, 2>, path<T, 2, 3>}};
  all[l1][l3](work);
}
template <class T>
void any_path_reverse(int l1, int l3, const PathWork<T>& work) {
  static constexpr PathFunction<T> all[3][4] = {
      {path_reverse<T, 0, 0>, path_reverse<T, 0, 1>, path_reverse<T, 0, 2>, path_reverse<T, 0, 3>},
      {path_reverse<T, 1, 0>, path_reverse<T, 1, 1>, path_reverse<T, 1, 2>, path_reverse<T, 1, 3>},
      {path_reverse<T, 2, 0>, path_reverse<T, 2, 1>, path_reverse<T, 2, 2>, path_reverse<T, 2, 3>}};
  all[l1][l3](work);
}

template <class T>
void moments(const MomentWork<T>& work) {
  if (work.num_harmonics == 1) return moments_of<T, 1>(work);
  if (work.num_harmonics == 4) return moments_of<T, 4>(work);
  if (work.num_harmonics == 9) return moments_of<T, 9>(work);
  moments_of<T, 16>(work);
}
template <class T>
void moments_reverse(const MomentWork<T>& work) {
  if (work.num_harmonics == 1) return moments_reverse_of<T, 1>(work);
  if (work.num_harmonics == 4) return moments_reverse_of<T, 4>(work);
  if (work.num_harmonics == 9) return moments_reverse_of<T, 9>(work);
  moments_reverse_of<T, 16>(work);
}

template <class T>
constexpr Kernels<T> table() {
  return {geometry<T>, harmonics<T>,       gradients<T>,           any_path<T>,          any_path_reverse<T>,
          moments<T>,  moments_reverse<T>, all_products<T, false>, all_products<T, true>};
}

}  // namespace

NEARSIGHT_DEFINE_KERNELS(float)
NEARSIGHT_DEFINE_KERNELS(double)

}  // namespace mace
}  // namespace nearsight
