#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/engine/edge_virial.hpp"
#include "core/engine/error.hpp"
#include "cuda/engine/edges.hpp"
#include "cuda/reduce.hpp"

namespace nearsight {
namespace cuda {
namespace {

constexpr double kUnit = 4398046511104.0;  // 2^42
constexpr double kMost = 131072.0;         // of one edge, eV/Å
constexpr unsigned kWarps = 4;             // of a block

struct Candidates {
  const std::int64_t* offsets;
  const std::int32_t* neighbors;
  const Image* images;  // null: none
  const Vec4<double>* points;
  const std::int32_t* atoms;  // of the host
  Matrix lattice;
  SystemsView systems;
  double cutoff_squared;
};

/// Distances of forbidden pairs as keys that sort like them.
__device__ inline unsigned long long pair_key(double distance, std::int32_t atom) {
  const auto r = static_cast<float>(distance);
  unsigned bits;
  memcpy(&bits, &r, sizeof(bits));
  return static_cast<unsigned long long>(bits) << 32 | static_cast<unsigned>(atom);
}

/// One warp for each row; edges keep the order of the list. Of several systems each has its own lattice.
template <class T, bool Several>
__global__ void __launch_bounds__(kWarps* kWarp)
    find_edges(Candidates list, int first_row, int num_rows, std::int64_t first_place, std::int32_t* counts,
               std::int32_t* neighbors, Vec4<T>* vectors, unsigned long long* closest) {
  const std::size_t warp = warp_number();
  if (warp >= static_cast<std::size_t>(num_rows)) return;
  const int row = first_row + static_cast<int>(warp);
  const unsigned lane = lane_number();
  const Vec4<double> x = list.points[row];
  const std::int64_t begin = list.offsets[row], end = list.offsets[row + 1];
  Matrix own;
  if constexpr (Several) own = list.systems.lattices[list.systems.of_atoms[list.atoms[row]]];
  int count = 0;
  for (std::int64_t first = begin; first < end; first += kWarp) {
    const std::int64_t k = first + lane;
    bool near = false;
    std::int32_t j = 0;
    double dx = 0, dy = 0, dz = 0, square = 0;
    if (k < end) {
      j = list.neighbors[k];
      const Vec4<double> y = list.points[j];
      dx = y.x - x.x, dy = y.y - x.y, dz = y.z - x.z;
      if (list.images) {
        // In this order, as in core's pair_vector: exactly odd under i <-> j.
        const Image s = list.images[k];
        const double* const m = Several ? own.m : list.lattice.m;
        dx += s.x * m[0] + s.y * m[3] + s.z * m[6];
        dy += s.x * m[1] + s.y * m[4] + s.z * m[7];
        dz += s.x * m[2] + s.y * m[5] + s.z * m[8];
      }
      square = dx * dx + dy * dy + dz * dz;
      near = square < list.cutoff_squared;
      if (square < kMinDistance * kMinDistance) atomicMin(closest, pair_key(sqrt(square), list.atoms[row]));
    }
    const unsigned votes = __ballot_sync(kAllLanes, near);
    if (near) {
      const std::int64_t place = begin - first_place + count + __popc(votes & ((1u << lane) - 1));
      neighbors[place] = j;
      vectors[place] = {static_cast<T>(dx), static_cast<T>(dy), static_cast<T>(dz),
                        static_cast<T>(sqrt(square))};
    }
    count += __popc(votes);
  }
  if (lane == 0) counts[row] = count;
}

/// Adds a number in fixed point.
__device__ inline void add_fixed(unsigned long long* to, double value, int* overflow) {
  if (!(fabs(value) < kMost)) {
    *overflow = 1;
    return;
  }
  atomicAdd(to, static_cast<unsigned long long>(static_cast<long long>(rint(value * kUnit))));
}

struct Sums {
  unsigned long long *forces, *virials, *centroid_virials;  // the last two may be null
  double* parts;                                            // [blocks][6] of the virial
  int* overflow;
};

/// One warp for each row.
template <class T>
__global__ void __launch_bounds__(kWarps* kWarp)
    sum_edges(Edges<T> edges, const Vec4<T>* gradients, Sums to) {
  __shared__ double of_warps[kWarps][6];
  const std::size_t warp = warp_number();
  const unsigned lane = lane_number();
  double own[3] = {}, total[6] = {}, half[6] = {};
  if (warp < static_cast<std::size_t>(edges.num_rows)) {
    const int i = edges.first_row + static_cast<int>(warp);
    const std::int64_t begin = edges.begin(i);
    for (int k = lane; k < edges.counts[i]; k += kWarp) {
      const Vec4<T> r4 = edges.vectors[begin + k], g4 = gradients[begin + k];
      const double r[3] = {r4.x, r4.y, r4.z}, g[3] = {g4.x, g4.y, g4.z};
      const std::size_t j = edges.neighbors[begin + k];
      // dE/dr_i = -g and dE/dr_j = +g, since r_ij = r_j - r_i.
      for (int a = 0; a < 3; ++a) {
        own[a] += g[a];
        add_fixed(to.forces + 3 * j + a, -g[a], to.overflow);
      }
      double w[6];
      edge_virial(r, g, w);
      for (int a = 0; a < 6; ++a) total[a] += w[a];
      if (to.virials)
        for (int a = 0; a < 6; ++a) {
          half[a] += 0.5 * w[a];
          add_fixed(to.virials + 6 * j + a, 0.5 * w[a], to.overflow);
        }
      if (to.centroid_virials) {
        const int rows[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2}, columns[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};
        for (int c = 0; c < 9; ++c)
          add_fixed(to.centroid_virials + 9 * j + c, -r[rows[c]] * g[columns[c]], to.overflow);
      }
    }
    for (int a = 0; a < 3; ++a) {
      own[a] = warp_sum(own[a]);
      if (lane == 0) add_fixed(to.forces + 3 * static_cast<std::size_t>(i) + a, own[a], to.overflow);
    }
    for (int a = 0; a < 6 && to.virials; ++a) {
      half[a] = warp_sum(half[a]);
      if (lane == 0) add_fixed(to.virials + 6 * static_cast<std::size_t>(i) + a, half[a], to.overflow);
    }
  }
  for (int a = 0; a < 6; ++a) {
    total[a] = warp_sum(total[a]);
    if (lane == 0) of_warps[threadIdx.x / kWarp][a] = total[a];
  }
  __syncthreads();
  if (threadIdx.x < 6) {
    double sum = 0.0;
    for (unsigned w = 0; w < kWarps; ++w) sum += of_warps[w][threadIdx.x];
    to.parts[6 * static_cast<std::size_t>(blockIdx.x) + threadIdx.x] = sum;
  }
}

/// virial += the parts of all blocks; a warp for each component.
__global__ void sum_parts(std::size_t blocks, const double* parts, double* virial) {
  const unsigned component = threadIdx.x / kWarp;
  double sum = 0.0;
  for (std::size_t b = lane_number(); b < blocks; b += kWarp) sum += parts[6 * b + component];
  sum = warp_sum(sum);
  if (lane_number() == 0) virial[component] += sum;
}

/// Adds the numbers of each atom to those of the host's.
__global__ void add_unpacked(int num_atoms, int width, const std::int32_t* atoms,
                             const unsigned long long* from, double* to) {
  const std::size_t n = thread_number();
  if (n >= static_cast<std::size_t>(num_atoms) * width) return;
  const std::size_t k = n / width, c = n % width;
  to[static_cast<std::size_t>(atoms[k]) * width + c] +=
      static_cast<double>(static_cast<long long>(from[n])) / kUnit;
}

}  // namespace

template <class T>
Edges<T> EdgeSet<T>::find(const Stream& stream, const NeighborList& list, int first, int last) {
  const auto& offsets = list.host_offsets();
  const std::int64_t places = offsets[last] - offsets[first];
  counts_.resize(offsets.size() - 1);
  neighbors_.resize(places);
  vectors_.resize(places);
  Candidates candidates{list.offsets().data(),
                        list.neighbors().data(),
                        list.images().empty() ? nullptr : list.images().data(),
                        list.points().data(),
                        list.order().atoms.data(),
                        {},
                        list.systems(),
                        list.cutoff() * list.cutoff()};
  std::copy(list.lattice().begin(), list.lattice().end(), candidates.lattice.m);
  const auto find = candidates.systems.of_atoms ? find_edges<T, true> : find_edges<T, false>;
  launch(stream, warp_each(last - first, kWarps), find, candidates, first, last - first, offsets[first],
         counts_.data(), neighbors_.data(), vectors_.data(), closest_.data());
  return {first,          last - first,   list.order().species.data(), list.offsets().data(),
          offsets[first], counts_.data(), neighbors_.data(),           vectors_.data()};
}

template <class T>
void EdgeSet<T>::clear(const Stream& stream) {
  closest_.resize(1);
  fill_bytes(stream, closest_.data(), 0xff, sizeof(unsigned long long));
}

template <class T>
void EdgeSet<T>::fetch(const Stream& stream) {
  found_.resize(1);
  closest_.download(stream, found_.span());
}

template <class T>
void EdgeSet<T>::check() const {
  const unsigned long long closest = *found_.data();
  if (closest == ~0ull) return;
  const auto bits = static_cast<unsigned>(closest >> 32);
  float distance;
  std::memcpy(&distance, &bits, sizeof(distance));
  throw_too_close(distance, "atom " + std::to_string(closest & 0xffffffffu) + " (counted from 0)");
}

void FixedSums::Array::unpack(const Stream& stream, const AtomOrder& order, double* to) const {
  launch(stream, one_each(sums.size()), add_unpacked, order.num_atoms, width, order.atoms.data(), sums.data(),
         to);
}

void FixedSums::Array::fetch(const Stream& stream, const AtomOrder& order, std::size_t size) {
  staging.resize(size);
  if (size == 0) return;
  unpack(stream, order, unpacked.clear(stream, size));
  unpacked.download(stream, staging.span());
}

void FixedSums::Array::add_to(Span<double> to) const {
  for (std::size_t k = 0; k < to.size(); ++k) to[k] += staging.data()[k];
}

void FixedSums::clear(const Stream& stream, int num_atoms, const Wanted& wanted) {
  wanted_ = wanted;
  forces_.clear(stream, num_atoms);
  virials_.clear(stream, wanted.virials ? num_atoms : 0);
  centroid_virials_.clear(stream, wanted.centroid_virials ? num_atoms : 0);
  virial_.clear(stream, 6);
  overflow_.clear(stream, 1);
}

template <class T>
void FixedSums::add(const Stream& stream, const Edges<T>& edges, const Vec4<T>* gradients) {
  const Grid grid = warp_each(edges.num_rows, kWarps);
  parts_.resize(6 * static_cast<std::size_t>(grid.blocks.x));
  const Sums to{forces_.sums.data(), wanted_.virials ? virials_.sums.data() : nullptr,
                wanted_.centroid_virials ? centroid_virials_.sums.data() : nullptr, parts_.data(),
                overflow_.data()};
  launch(stream, grid, sum_edges<T>, edges, gradients, to);
  launch(stream, Grid{dim3(1), dim3(6 * kWarp)}, sum_parts, static_cast<std::size_t>(grid.blocks.x),
         parts_.data(), virial_.data());
}

void FixedSums::fetch(const Stream& stream, const AtomOrder& order, const EdgeSums& sums) {
  if (sums.device_forces) forces_.unpack(stream, order, sums.device_forces);
  forces_.fetch(stream, order, sums.forces.size());
  virials_.fetch(stream, order, sums.virials.size());
  centroid_virials_.fetch(stream, order, sums.centroid_virials.size());
  host_virial_.resize(6);
  virial_.download(stream, host_virial_.span());
  host_overflow_.resize(1);
  overflow_.download(stream, host_overflow_.span());
}

void FixedSums::add_to(const EdgeSums& sums) const {
  if (*host_overflow_.data())
    throw Error(
        ErrorKind::numeric,
        "the force between two atoms is not a finite number, or more than 1.3e5 eV/Å: the structure is far "
        "outside what the model was trained on, or the simulation has become unstable");
  forces_.add_to(sums.forces);
  virials_.add_to(sums.virials);
  centroid_virials_.add_to(sums.centroid_virials);
  for (int a = 0; a < 6; ++a) sums.virial[a] += host_virial_.data()[a];
}

template class EdgeSet<float>;
template class EdgeSet<double>;
template void FixedSums::add(const Stream&, const Edges<float>&, const Vec4<float>*);
template void FixedSums::add(const Stream&, const Edges<double>&, const Vec4<double>*);

}  // namespace cuda
}  // namespace nearsight
