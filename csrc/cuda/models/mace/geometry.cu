#include "cuda/models/mace/geometry.hpp"

namespace nearsight {
namespace cuda {
namespace mace {
namespace {

constexpr int kWarps = 4;  // of a block

/// Weights of an edge for the lanes of its warp.
template <class T>
struct EdgeWeights {
  T value[2 * kJet], slope[2 * kJet];
  const T* knots;
};

/// A warp for each row. A lane for each edge finds weights and harmonics, then lanes are functions.
template <class T, int l_max>
__global__ void __launch_bounds__(kWarp* kWarps)
    fill_edge_arrays(Edges<T> edges, HarmonicFactors<T> factors, Functions<T> functions,
                     EdgeArrays<T> arrays) {
  constexpr int num_harmonics = Harmonics<T, l_max>::count;
  __shared__ EdgeWeights<T> shared[kWarps][kWarp];
  EdgeWeights<T>* const weights = shared[threadIdx.x / kWarp];
  const int row = static_cast<int>(warp_number()), lane = static_cast<int>(lane_number());
  if (row >= edges.num_rows) return;
  const int atom = edges.first_row + row, species = edges.species[atom], count = edges.counts[atom];
  const std::int64_t begin = edges.begin(atom);
  for (int first = 0; first < count; first += kWarp) {
    const int chunk = count - first < static_cast<int>(kWarp) ? count - first : kWarp;
    if (lane < chunk) {
      const std::int64_t place = begin + first + lane;
      const Vec4<T> v = edges.vectors[place];
      const Harmonics<T, l_max> y(factors, v);
#pragma unroll
      for (int lm = 0; lm < num_harmonics; ++lm) arrays.harmonics[place * num_harmonics + lm] = y.y[lm];
      const Interpolation<T> at(functions.knots, v.w);
#pragma unroll
      for (int k = 0; k < 2 * kJet; ++k) {
        weights[lane].value[k] = at.value[k];
        weights[lane].slope[k] = at.slope[k];
      }
      weights[lane].knots = functions.table(species, edges.species[edges.neighbors[place]]) +
                            static_cast<std::int64_t>(at.knot) * kJet * functions.count;
    }
    __syncwarp();
    const std::int64_t out = (begin + first) * functions.count;
    for (int n = lane; n < chunk * functions.count; n += kWarp) {
      const int e = n / functions.count, b = n % functions.count;
      T value = 0, slope = 0;
#pragma unroll
      for (int k = 0; k < 2 * kJet; ++k) {
        const T knot = weights[e].knots[k * functions.count + b];
        value += weights[e].value[k] * knot;
        slope += weights[e].slope[k] * knot;
      }
      arrays.functions[out + n] = value;
      if (arrays.slopes) arrays.slopes[out + n] = slope;
    }
    __syncwarp();
  }
}

template <class T>
__device__ T sum_of_warp(T value) {
  for (int other = kWarp / 2; other > 0; other /= 2) value += __shfl_xor_sync(kAllLanes, value, other);
  return value;
}

/// A warp for each row.
template <class T>
__global__ void sum_densities(Edges<T> edges, int rows, Functions<T> function, T* inverse) {
  const int row = static_cast<int>(warp_number());
  if (row >= rows) return;
  const int atom = edges.first_row + row, species = edges.species[atom], count = edges.counts[atom];
  const std::int64_t begin = edges.begin(atom);
  double density = 0;
  for (int e = static_cast<int>(lane_number()); e < count; e += kWarp) {
    const Interpolation<T> at(function.knots, edges.vectors[begin + e].w);
    density += at.value_of(function.table(species, edges.species[edges.neighbors[begin + e]]), 1, 0);
  }
  density = sum_of_warp(density);
  if (lane_number() == 0) inverse[row] = static_cast<T>(1 / (1 + density));
}

/// Selected messages times their adjoints give the same sum as those before: the selection is linear.
template <class T>
__global__ void spread_densities(Edges<T> edges, int rows, Functions<T> function, const T* inverse,
                                 const T* messages, const T* adjoints, int width, T* slopes) {
  const int row = static_cast<int>(warp_number());
  if (row >= rows) return;
  double sum = 0;
  const std::int64_t from = static_cast<std::int64_t>(row) * width;
  for (int k = static_cast<int>(lane_number()); k < width; k += kWarp)
    sum += static_cast<double>(messages[from + k]) * adjoints[from + k];
  const T factor = -static_cast<T>(sum_of_warp(sum)) * inverse[row];
  const int atom = edges.first_row + row, species = edges.species[atom], count = edges.counts[atom];
  const std::int64_t begin = edges.begin(atom);
  for (int e = static_cast<int>(lane_number()); e < count; e += kWarp) {
    const Interpolation<T> at(function.knots, edges.vectors[begin + e].w);
    slopes[begin + e] +=
        factor * at.slope_of(function.table(species, edges.species[edges.neighbors[begin + e]]), 1, 0);
  }
}

}  // namespace

template <class T>
void edge_arrays(const Stream& stream, const Edges<T>& edges, const HarmonicFactors<T>& harmonics,
                 const Functions<T>& functions, const EdgeArrays<T>& arrays) {
  launch(stream, warp_each(edges.num_rows, kWarps),
         harmonics.l_max == 0   ? fill_edge_arrays<T, 0>
         : harmonics.l_max == 1 ? fill_edge_arrays<T, 1>
         : harmonics.l_max == 2 ? fill_edge_arrays<T, 2>
                                : fill_edge_arrays<T, 3>,
         edges, harmonics, functions, arrays);
}

template <class T>
void densities(const Stream& stream, const Edges<T>& edges, int rows, const Functions<T>& function,
               T* inverse) {
  launch(stream, warp_each(rows), sum_densities<T>, edges, rows, function, inverse);
}

template <class T>
void densities_reverse(const Stream& stream, const Edges<T>& edges, int rows, const Functions<T>& function,
                       const T* inverse, const T* messages, const T* adjoints, int width, T* slopes) {
  launch(stream, warp_each(rows), spread_densities<T>, edges, rows, function, inverse, messages, adjoints,
         width, slopes);
}

#define NEARSIGHT_GEOMETRY(T)                                                                               \
  template void edge_arrays(const Stream&, const Edges<T>&, const HarmonicFactors<T>&, const Functions<T>&, \
                            const EdgeArrays<T>&);                                                          \
  template void densities(const Stream&, const Edges<T>&, int, const Functions<T>&, T*);                    \
  template void densities_reverse(const Stream&, const Edges<T>&, int, const Functions<T>&, const T*,       \
                                  const T*, const T*, int, T*);
NEARSIGHT_GEOMETRY(float)
NEARSIGHT_GEOMETRY(double)
#undef NEARSIGHT_GEOMETRY

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
