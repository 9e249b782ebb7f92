#pragma once
// The hot loops of D3: a block of threads for each block of atoms. Its eight warps share the images near the
// block; an image's place goes to all lanes, which hold the atoms.
#include "core/couple/dispersion_room.hpp"
#include "cuda/couple/block_lists.hpp"
#include "cuda/mesh/functions.hpp"
#include "cuda/reduce.hpp"

namespace nearsight {
namespace cuda {

constexpr int kReferences = 8;  // of an element; those that it does not have count 0
constexpr unsigned kD3Warps = 8;
constexpr int kFlush = 4;      // chunks of 32 images whose sums are in T: sums of these are not
constexpr int kGradients = 9;  // g r and g r ⊗ r, xx yy zz xy xz yz, with g = dE/d(r²)

/// What the species are, for kernels. Per pair of species: f⁶, f⁸, s8 C8/C6.
template <class T>
struct Elements {
  const T* radii;         // [species] Å
  const T* damping;       // [species][species][3]
  const double* numbers;  // [species][kReferences] coordination numbers
  const int* counts;      // [species] of them
  const double* c6;       // [species][species][kReferences][kReferences] eV Å⁶
};

/// The vector to another atom and what its pair counts, as core's; an atom does not see itself.
template <class T>
struct D3Pair {
  T x, y, z;
  T square;        // Å², at most that of the cutoff
  T share, slope;  // of the window, and its derivative by r²

  __device__ D3Pair(const d3::Window<T>& window, T dx, T dy, T dz) : x(dx), y(dy), z(dz) {
    const T r2 = x * x + y * y + z * z;
    const bool self = r2 < T(nearsight::pairs::kClosest * nearsight::pairs::kClosest);
    square = self || r2 > window.cutoff2 ? window.cutoff2 : r2;
    T t = (r2 - window.start2) * window.scale;
    t = t < T(0) ? T(0) : t < T(1) ? t : T(1);
    const T u = t * (T(1) - t);
    share = self ? T(0) : T(1) - t * t * t * (T(10) - t * (T(15) - T(6) * t));
    slope = T(-30) * window.scale * u * u;
  }

  __device__ void add(T g, T* sums) const {
    const T gx = g * x, gy = g * y, gz = g * z;
    sums[0] += gx, sums[1] += gy, sums[2] += gz;
    sums[3] += gx * x, sums[4] += gy * y, sums[5] += gz * z;
    sums[6] += gx * y, sums[7] += gx * z, sums[8] += gy * z;
  }
};

/// The counting function, and its derivative by r².
template <class T>
struct Counted {
  T value, slope;

  __device__ Counted(T square, T radius) {
    const T inverse = inverse_root(square), t = T(d3::kSteepness) * radius * inverse;
    const T falls = T(d3::kExpSteepness) * decay(-t);
    value = T(1) / (T(1) + falls);
    slope = T(-0.5) * value * value * falls * t * inverse * inverse;
  }
};

/// Coordination numbers. About 40 operations for a pair.
template <class T>
struct CountPass {
  static constexpr int kSums = 1;
  static constexpr bool kWeighs = false;
  d3::Window<T> window;
  const T* radii;
  const std::int32_t* order;
  double* coordination;  // out: of the host's order

  struct Run {
    T radius;
  };
  __device__ void start(Run& run, int, int own, int other) const { run.radius = radii[own] + radii[other]; }
  __device__ T number_of(std::uint32_t) const { return T(0); }
  __device__ const T* weights_of(std::uint32_t) const { return nullptr; }
  __device__ void add(const Run& run, const D3Pair<T>& pair, T, const T*, T* sums) const {
    sums[0] += Counted<T>(pair.square, run.radius).value * pair.share;
  }
  __device__ void finish(int k, bool taken, const double* totals) const {
    if (taken) coordination[order[k]] = totals[0];
  }
};

/// Energies and their derivatives by positions and by the coordination number. About 90 operations.
template <class T>
struct AttractPass {
  static constexpr int kSums = kGradients + 2;
  static constexpr bool kWeighs = true;
  d3::Window<T> window;
  T s6;
  int num_species;
  const T *damping, *tables, *weights;
  const std::int32_t* order;
  double *energies, *gradients;  // out: [own] eV, [own][kGradients]
  double* slopes;                // out: [own] dE/dCN, of the host's order

  struct Run {
    T f6, f8, s8, c6[kReferences], change[kReferences];
  };
  __device__ void start(Run& run, int k, int own, int other) const {
    const T* const pair = damping + 3 * (own * num_species + other);
    run.f6 = pair[0], run.f8 = pair[1], run.s8 = pair[2];
    const T* const row = tables + (static_cast<std::size_t>(k) * num_species + other) * 2 * kReferences;
    for (int n = 0; n < kReferences; ++n) run.c6[n] = row[n], run.change[n] = row[kReferences + n];
  }
  __device__ T number_of(std::uint32_t) const { return T(0); }
  __device__ const T* weights_of(std::uint32_t j) const {
    return weights + static_cast<std::size_t>(j) * kReferences;
  }
  __device__ void add(const Run& run, const D3Pair<T>& pair, T, const T* other, T* sums) const {
    T c6 = 0, change = 0;
    for (int n = 0; n < kReferences; ++n) c6 += run.c6[n] * other[n], change += run.change[n] * other[n];
    const T r4 = pair.square * pair.square, r6 = r4 * pair.square;
    const T d6 = r6 + run.f6, d8 = r4 * r4 + run.f8, inverse = T(1) / (d6 * d8);
    const T i6 = d8 * inverse, i8 = d6 * inverse, e6 = s6 * i6, e8 = run.s8 * i8, both = e6 + e8;
    const T falls = T(3) * r4 * e6 * i6 + T(4) * r6 * e8 * i8;  // -d(both)/d(r²)
    const T seen = both * pair.share;
    pair.add(c6 * (falls * pair.share - both * pair.slope), sums);
    sums[kGradients] -= c6 * seen;
    sums[kGradients + 1] -= change * seen;
  }
  __device__ void finish(int k, bool taken, const double* totals) const {
    if (!taken) return;
    for (int g = 0; g < kGradients; ++g) gradients[static_cast<std::size_t>(k) * kGradients + g] = totals[g];
    energies[k] = 0.5 * totals[kGradients];
    slopes[order[k]] = totals[kGradients + 1];
  }
};

/// What the coordination numbers add to the derivatives by positions, and results. About 60 operations.
template <class T>
struct MovePass {
  static constexpr int kSums = kGradients;
  static constexpr bool kWeighs = false;
  d3::Window<T> window;
  const T* radii;
  const double *slopes, *energies, *gradients;  // the first ones in the host's order, of all atoms
  const std::int32_t* order;
  int columns;     // of values
  double* values;  // out: [own of the host][4 or 10] energy eV, force eV/Å, virial eV
  double* rows;    // out: [blocks][7] energy and virial of all atoms

  struct Run {
    T radius, slope;
  };
  __device__ void start(Run& run, int k, int own, int other) const {
    run.radius = radii[own] + radii[other];
    run.slope = static_cast<T>(slopes[order[k]]);
  }
  __device__ T number_of(std::uint32_t j) const { return static_cast<T>(slopes[order[j]]); }
  __device__ const T* weights_of(std::uint32_t) const { return nullptr; }
  __device__ void add(const Run& run, const D3Pair<T>& pair, T slope, const T*, T* sums) const {
    const Counted<T> counted(pair.square, run.radius);
    pair.add((run.slope + slope) * (counted.slope * pair.share + counted.value * pair.slope), sums);
  }
  __device__ void finish(int k, bool taken, const double* totals) const {
    double result[10];
    for (int g = 0; g < kGradients; ++g) {
      const double sum = totals[g] + gradients[static_cast<std::size_t>(k) * kGradients + g];
      result[1 + g] = g < 3 ? 2.0 * sum : -sum;
    }
    result[0] = energies[k];
    double* const to = values + static_cast<std::size_t>(order[k]) * columns;
    for (int v = 0; v < 10; ++v) {
      if (v < columns && taken) to[v] = result[v];
      if (v >= 1 && v < 4) continue;
      const double sum = warp_sum(taken ? result[v] : 0.0);
      if (lane_number() == 0) rows[7 * static_cast<std::size_t>(blockIdx.x) + (v ? v - 3 : 0)] = sum;
    }
  }
};

/// Of the places of a warp: floats relative to it are as exact as they can be.
__device__ inline Vec4<double> middle_of(const Vec4<double>& place) {
  const double r[3] = {place.x, place.y, place.z};
  double middle[3];
  for (int c = 0; c < 3; ++c) {
    double low = r[c], high = r[c];
    for (unsigned mask = kWarp / 2; mask > 0; mask /= 2) {
      const double other_low = __shfl_xor_sync(kAllLanes, low, mask);
      const double other_high = __shfl_xor_sync(kAllLanes, high, mask);
      low = other_low < low ? other_low : low;
      high = other_high > high ? other_high : high;
    }
    middle[c] = 0.5 * (low + high);
  }
  return {middle[0], middle[1], middle[2], 0.0};
}

template <class T>
__device__ inline Vec4<T> relative(const Vec4<double>& place, const Vec4<double>& origin) {
  return {static_cast<T>(place.x - origin.x), static_cast<T>(place.y - origin.y),
          static_cast<T>(place.z - origin.z), T(0)};
}

/// Sums over a few chunks of images in floats, which go to totals in doubles.
template <class T, int kSums>
struct Parts {
  T sums[kSums] = {};
  double* totals;
  int chunks = 0;

  __device__ explicit Parts(double* totals) : totals(totals) {}
  __device__ void end_chunk() {
    if (++chunks % kFlush == 0) flush();
  }
  __device__ void flush() {
    for (int s = 0; s < kSums; ++s) totals[s] += sums[s], sums[s] = T(0);
  }
};
template <int kSums>
struct Parts<double, kSums> {
  double* sums;

  __device__ explicit Parts(double* totals) : sums(totals) {}
  __device__ void end_chunk() {}
  __device__ void flush() {}
};

template <class T, class Pass>
__global__ void __launch_bounds__(kWarp* kD3Warps, 2)
    sum_images(BlockAtoms atoms, const std::int64_t* rows, const std::uint64_t* neighbors, Pass pass) {
  constexpr int kSums = Pass::kSums;
  __shared__ Vec4<T> staged[kD3Warps][kWarp];
  __shared__ T weights[kD3Warps][Pass::kWeighs ? kWarp : 1][kReferences];
  __shared__ double sums[kD3Warps][kSums][kBlockAtoms];
  const int lane = lane_number(), warp = threadIdx.x / kWarp, first = blockIdx.x * kBlockAtoms;
  const bool taken = first + lane < atoms.own;
  const int k = taken ? first + lane : first;
  int origin[3];
  for (int d = 0; d < 3; ++d) origin[d] = atoms.homes[first].cell[d];
  const Vec4<double> place = atoms.place(k, origin), middle = middle_of(place);
  const Vec4<T> own = relative<T>(place, middle);
  double totals[kSums] = {};
  Parts<T, kSums> parts(totals);
  for (int other = 0; other < atoms.num_species; ++other) {
    const std::size_t row = static_cast<std::size_t>(blockIdx.x) * atoms.num_species + other;
    const std::int64_t last = rows[row + 1];
    if (rows[row] == last) continue;
    typename Pass::Run run;
    pass.start(run, k, atoms.species[k], other);
    for (std::int64_t begin = rows[row] + warp * kWarp; begin < last; begin += kWarp * kD3Warps) {
      const int count = last - begin < kWarp ? static_cast<int>(last - begin) : static_cast<int>(kWarp);
      if (lane < count) {
        const std::uint64_t entry = neighbors[begin + lane];
        const std::uint32_t j = Neighbor::atom(entry);
        const Vec4<double> image = atoms.cells.moved(atoms.places[j], Neighbor::shift(entry, 0),
                                                     Neighbor::shift(entry, 1), Neighbor::shift(entry, 2));
        staged[warp][lane] = relative<T>(image, middle);
        staged[warp][lane].w = pass.number_of(j);
        if constexpr (Pass::kWeighs)
          for (int n = 0; n < kReferences; ++n) weights[warp][lane][n] = pass.weights_of(j)[n];
      }
      __syncwarp();
      for (int e = 0; e < count; ++e) {
        const Vec4<T> there = staged[warp][e];
        const D3Pair<T> pair(pass.window, there.x - own.x, there.y - own.y, there.z - own.z);
        pass.add(run, pair, there.w, weights[warp][Pass::kWeighs ? e : 0], parts.sums);
      }
      parts.end_chunk();
      __syncwarp();
    }
  }
  parts.flush();
  for (int s = 0; s < kSums; ++s) sums[warp][s][lane] = totals[s];
  __syncthreads();
  if (warp > 0) return;
  for (int s = 0; s < kSums; ++s)
    for (unsigned w = 1; w < kD3Warps; ++w) totals[s] += sums[w][s][lane];
  pass.finish(k, taken, totals);
}

/// Weights of the reference systems of an atom, and for this rank's atoms and each species what their weights
/// are multiplied by to give C6 and its derivative by the atom's coordination number:
/// tables[atom][species][2][kReferences].
template <class T>
__global__ void weigh(BlockAtoms atoms, Elements<T> elements, const double* coordination, T* weights,
                      T* tables) {
  const std::size_t k = thread_number();
  if (k >= static_cast<std::size_t>(atoms.count)) return;
  const int own = atoms.species[k], num_references = elements.counts[own], num_species = atoms.num_species;
  const double number = coordination[atoms.order[k]];
  const double* const numbers = elements.numbers + own * kReferences;
  double weight[kReferences], change[kReferences], nearest = 1e300, sum = 0, mean = 0;
  for (int n = 0; n < num_references; ++n) {
    const double distance2 = (number - numbers[n]) * (number - numbers[n]);
    nearest = distance2 < nearest ? distance2 : nearest;
  }
  for (int n = 0; n < kReferences; ++n) {
    const double distance = number - numbers[n];
    weight[n] = n < num_references ? exp(-d3::kSharpness * (distance * distance - nearest)) : 0.0;
    change[n] = -2.0 * d3::kSharpness * distance;
    sum += weight[n];
    mean += weight[n] * change[n];
  }
  for (int n = 0; n < kReferences; ++n) {
    weight[n] /= sum;
    change[n] = weight[n] * (change[n] - mean / sum);
    weights[k * kReferences + n] = static_cast<T>(weight[n]);
  }
  if (k >= static_cast<std::size_t>(atoms.own)) return;
  for (int other = 0; other < num_species; ++other) {
    const double* const c6 =
        elements.c6 + static_cast<std::size_t>(own * num_species + other) * kReferences * kReferences;
    T* const table = tables + (k * num_species + other) * 2 * kReferences;
    for (int n = 0; n < kReferences; ++n) {
      double value = 0, slope = 0;
      for (int m = 0; m < kReferences; ++m) {
        value += weight[m] * c6[m * kReferences + n];
        slope += change[m] * c6[m * kReferences + n];
      }
      table[n] = static_cast<T>(value);
      table[kReferences + n] = static_cast<T>(slope);
    }
  }
}

}  // namespace cuda
}  // namespace nearsight
