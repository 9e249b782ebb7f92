#include "cuda/models/mace/moments.hpp"

namespace nearsight {
namespace cuda {
namespace mace {
namespace {

constexpr int kChunk = kWarp;  // edges of a row in shared memory at a time
constexpr int kWarps = 4;      // of a block

/// A chunk of one row's edges, sorted by the neighbors' species. Rows are padded so that lanes which write
/// theirs meet no bank twice.
template <class T, int l_max>
struct alignas(16) Chunk {
  static constexpr int num_harmonics = (l_max + 1) * (l_max + 1);
  static constexpr int stride = (num_harmonics + 3) / 4 * 4 + 4, weight_stride = 12;
  T harmonics[kChunk][stride];
  T weights[kChunk][weight_stride];  // of interpolation
  const T* knots[kChunk];
};

/// A warp for each row, then a lane for each function, or several edges at a time where functions are few.
template <class T, int l_max>
__global__ void __launch_bounds__(kWarp* kWarps)
    sum_moments(MomentWork<T> work, T* moments, double* pair_energies) {
  using Staged = Chunk<T, l_max>;
  constexpr int num_harmonics = Staged::num_harmonics;
  Staged& chunk = dynamic_shared<Staged>()[threadIdx.x / kWarp];
  const int row = static_cast<int>(warp_number()), lane = static_cast<int>(lane_number());
  if (row >= work.rows) return;
  const Edges<T>& edges = work.edges;
  const int atom = edges.first_row + row, species = edges.species[atom], count = edges.counts[atom];
  const std::int64_t begin = edges.begin(atom);
  const int functions = work.functions.count, group = functions <= 8 ? 8 : functions <= 16 ? 16 : 32;
  double pair_energy = 0;
  for (int first = 0; first == 0 || first < count; first += kChunk) {
    const bool is_edge = first + lane < count;
    const int neighbor = is_edge ? edges.species[edges.neighbors[begin + first + lane]] : 0;
    const int slot = is_edge ? work.slot_of[neighbor] : -1;
    int place = 0, before = 0;
    for (int s = 0; s < work.slots; ++s) {
      const unsigned mine = __ballot_sync(kAllLanes, slot == s);
      if (slot == s) place = before + __popc(mine & ((1u << lane) - 1));
      before += __popc(mine);
    }
    if (is_edge) {
      const Vec4<T> v = edges.vectors[begin + first + lane];
      const Interpolation<T> at(work.functions.knots, v.w);
      const Harmonics<T, l_max> y(work.harmonics, v);
#pragma unroll
      for (int lm = 0; lm < num_harmonics; ++lm) chunk.harmonics[place][lm] = y.y[lm];
#pragma unroll
      for (int k = 0; k < 2 * kJet; ++k) chunk.weights[place][k] = at.value[k];
      chunk.knots[place] =
          work.functions.table(species, neighbor) + static_cast<std::int64_t>(at.knot) * kJet * functions;
      if (work.pairs.any() || v.w < work.pairs.shortest)
        pair_energy += work.pairs.at(species, neighbor, v.w).value;
    }
    __syncwarp();
    int from = 0;
    for (int s = 0; s < work.slots; ++s) {
      const int to = from + __popc(__ballot_sync(kAllLanes, slot == s));
      for (int f = 0; f < functions && (to > from || first == 0); f += group) {
        const int b = f + lane % group;
        T sums[num_harmonics];
#pragma unroll
        for (int lm = 0; lm < num_harmonics; ++lm) sums[lm] = 0;
        for (int e = from + lane / group; e < to && b < functions; e += kWarp / group) {
          const T* const knots = chunk.knots[e] + b;
          T value = 0;
#pragma unroll
          for (int k = 0; k < 2 * kJet; ++k) value += chunk.weights[e][k] * knots[k * functions];
#pragma unroll
          for (int lm = 0; lm < num_harmonics; ++lm) sums[lm] += chunk.harmonics[e][lm] * value;
        }
        for (int other = group; other < static_cast<int>(kWarp); other *= 2)
#pragma unroll
          for (int lm = 0; lm < num_harmonics; ++lm) sums[lm] += __shfl_xor_sync(kAllLanes, sums[lm], other);
        if (lane >= group || b >= functions) continue;
        T* const to_row =
            moments + (static_cast<std::int64_t>(row) * num_harmonics * work.slots + s) * functions + b;
#pragma unroll
        for (int lm = 0; lm < num_harmonics; ++lm) {
          T& target = to_row[static_cast<std::int64_t>(lm) * work.slots * functions];
          target = first == 0 ? sums[lm] : target + sums[lm];
        }
      }
      from = to;
    }
    __syncwarp();
  }
  for (int other = kWarp / 2; other > 0; other /= 2)
    pair_energy += __shfl_xor_sync(kAllLanes, pair_energy, other);
  if (lane == 0) pair_energies[row] = pair_energy;
}

/// A warp for each row, a lane for each edge.
template <class T, int l_max>
__global__ void __launch_bounds__(kWarp* kWarps)
    spread_moments(MomentWork<T> work, const T* adjoints, EdgeAdjoints<T> before, const double* cotangents,
                   int num_rows, int columns, Vec4<T>* gradients) {
  constexpr int num_harmonics = Harmonics<T, l_max>::count;
  const int row = static_cast<int>(warp_number());
  if (row >= work.rows) return;
  const Edges<T>& edges = work.edges;
  const int atom = edges.first_row + row, species = edges.species[atom], count = edges.counts[atom];
  const std::int64_t begin = edges.begin(atom);
  const int functions = work.functions.count;
  const std::int64_t row_size = static_cast<std::int64_t>(work.slots) * functions;
  const double cotangent = row < num_rows ? cotangents[static_cast<std::int64_t>(row) * columns] : 0.0;
  for (int e = static_cast<int>(lane_number()); e < count; e += kWarp) {
    const std::int64_t place = begin + e;
    const int neighbor = edges.species[edges.neighbors[place]];
    const Vec4<T> v = edges.vectors[place];
    const Interpolation<T> at(work.functions.knots, v.w);
    const Harmonics<T, l_max> y(work.harmonics, v);
    T of_harmonics[num_harmonics], slope = before.slopes ? before.slopes[place] : T(0);
#pragma unroll
    for (int lm = 0; lm < num_harmonics; ++lm)
      of_harmonics[lm] = before.harmonics ? before.harmonics[place * num_harmonics + lm] : T(0);
    const Vec4<T>* const knots = reinterpret_cast<const Vec4<T>*>(
        work.functions.table(species, neighbor) + static_cast<std::int64_t>(at.knot) * kJet * functions);
    const T* const of_row = adjoints + row * num_harmonics * row_size + work.slot_of[neighbor] * functions;
    for (int b = 0; b < functions / 4; ++b) {
      T value[4] = {0, 0, 0, 0}, change[4] = {0, 0, 0, 0}, of_value[4] = {0, 0, 0, 0};
#pragma unroll
      for (int k = 0; k < 2 * kJet; ++k) {
        const Vec4<T> knot = knots[k * (functions / 4) + b];
        const T four[4] = {knot.x, knot.y, knot.z, knot.w};
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          value[n] += at.value[k] * four[n];
          change[n] += at.slope[k] * four[n];
        }
      }
#pragma unroll
      for (int lm = 0; lm < num_harmonics; ++lm) {
        const Vec4<T> m = *reinterpret_cast<const Vec4<T>*>(of_row + lm * row_size + 4 * b);
        of_harmonics[lm] += value[0] * m.x + value[1] * m.y + value[2] * m.z + value[3] * m.w;
        of_value[0] += y.y[lm] * m.x;
        of_value[1] += y.y[lm] * m.y;
        of_value[2] += y.y[lm] * m.z;
        of_value[3] += y.y[lm] * m.w;
      }
#pragma unroll
      for (int n = 0; n < 4; ++n) slope += change[n] * of_value[n];
    }
    if (cotangent != 0.0 && (work.pairs.any() || v.w < work.pairs.shortest))
      slope += static_cast<T>(cotangent * work.pairs.at(species, neighbor, v.w).slope);
    gradients[place] = Harmonics<T, l_max>::gradient(work.harmonics, v, of_harmonics, slope);
  }
}

template <class T, int l_max>
void moments_of(const Stream& stream, const MomentWork<T>& work, T* moments, double* pair_energies) {
  Grid grid = warp_each(work.rows, kWarps);
  grid.shared_bytes = kWarps * sizeof(Chunk<T, l_max>);
  launch(stream, grid, sum_moments<T, l_max>, work, moments, pair_energies);
}

}  // namespace

template <class T>
void moments(const Stream& stream, const MomentWork<T>& work, T* moments, double* pair_energies) {
  switch (work.harmonics.l_max) {
    case 0:
      return moments_of<T, 0>(stream, work, moments, pair_energies);
    case 1:
      return moments_of<T, 1>(stream, work, moments, pair_energies);
    case 2:
      return moments_of<T, 2>(stream, work, moments, pair_energies);
    default:
      return moments_of<T, 3>(stream, work, moments, pair_energies);
  }
}

template <class T>
void moments_reverse(const Stream& stream, const MomentWork<T>& work, const T* adjoints,
                     const EdgeAdjoints<T>& before, const double* cotangents, int num_rows, int columns,
                     Vec4<T>* gradients) {
  const int l_max = work.harmonics.l_max;
  launch(stream, warp_each(work.rows, kWarps),
         l_max == 0   ? spread_moments<T, 0>
         : l_max == 1 ? spread_moments<T, 1>
         : l_max == 2 ? spread_moments<T, 2>
                      : spread_moments<T, 3>,
         work, adjoints, before, cotangents, num_rows, columns, gradients);
}

#define NEARSIGHT_MOMENTS(T)                                                                           \
  template void moments(const Stream&, const MomentWork<T>&, T*, double*);                             \
  template void moments_reverse(const Stream&, const MomentWork<T>&, const T*, const EdgeAdjoints<T>&, \
                                const double*, int, int, Vec4<T>*);
NEARSIGHT_MOMENTS(float)
NEARSIGHT_MOMENTS(double)
#undef NEARSIGHT_MOMENTS

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
