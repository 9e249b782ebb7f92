#include <algorithm>

#include "cuda/models/ani/ani.hpp"
#include "cuda/models/shared/pairs.hpp"
#include "cuda/models/shared/warps.hpp"

namespace nearsight {
namespace cuda {
namespace ani {
namespace {

constexpr int kMostWarps = 4;       // of a block
constexpr int kMostFunctions = 64;  // that are summed at a time

/// A warp's part of the shared memory, in numbers; the queue of pairs stands at the end.
struct Room {
  int sums, terms, cotangents, tile;

  template <class T>
  Room(const Terms<T>& t, bool reverse, bool tangent = false) {
    const int functions = t.angular.num_shifts * t.angular.num_angles;
    const int largest = std::max({t.angular.num_angles, std::min(functions, kMostFunctions),
                                  std::min(t.radial.num_shifts, kMostFunctions)});
    sums = reverse ? 0 : largest * kColumn;
    terms = (reverse || tangent ? 2 : 1) * t.angular.num_angles * kLanes;
    cotangents = reverse ? std::max(functions, t.radial.num_shifts) : 0;
    tile = reverse ? PairTile<T>::kNumbers : 0;
  }
  template <class T>
  __host__ __device__ std::size_t bytes() const {
    return ((sums + terms + cotangents + tile) * sizeof(T) + kQueue * sizeof(int) + 15) / 16 * 16;
  }
};

/// A center as its warp sees it, with its part of the shared memory.
template <class T>
struct Center {
  const Problem<T>& p;
  int row;
  const Vec4<T>* places;
  const std::int32_t* order;
  T *sums, *terms, *cotangents, *tile;
  int* queue;

  __device__ Center(const Problem<T>& problem, int n, const Room& room, unsigned char* shared)
      : p(problem), row(n) {
    const std::int64_t begin = p.edges.begin(p.edges.first_row + n);
    places = p.neighborhoods.places + begin;
    order = p.neighborhoods.order + begin;
    sums = reinterpret_cast<T*>(shared + threadIdx.x / kWarp * room.bytes<T>());
    terms = sums + room.sums;
    cotangents = terms + room.terms;
    tile = cotangents + room.cotangents;
    queue = reinterpret_cast<int*>(tile + room.tile);
  }
  __device__ Range radial(int species) const { return p.neighborhoods.shell(row, species, p.radial_shell); }
  __device__ Range angular(int species) const { return p.neighborhoods.shell(row, species, p.angular_shell); }
  __device__ Differentiable<T> radial_cutoff(T r) const {
    return cutoff_function(p.terms.cutoff_function, r, p.inverse_radial_cutoff);
  }
  __device__ Differentiable<T> angular_cutoff(T r) const {
    return cutoff_function(p.terms.cutoff_function, r, p.inverse_angular_cutoff);
  }
};

/// Calls body(pairs of neighbors, first feature) for all pairs of species.
template <class T, class Body>
__device__ inline void for_species_pairs(const Center<T>& c, const Body& body) {
  const Terms<T>& t = c.p.terms;
  int feature = t.num_species * t.radial.num_shifts;
  for (int a = 0; a < t.num_species; ++a)
    for (int b = a; b < t.num_species; ++b, feature += t.angular.num_shifts * t.angular.num_angles)
      body(PairRanges::of(c.angular(a), c.angular(b), a == b), feature);
}

/// Features of absent species.
__device__ inline void clear(double* out, int count) {
  for (int i = static_cast<int>(lane_number()); i < count; i += kLanes) out[i] = 0.0;
}

/// Writes sums over neighbors of a species: of_neighbor(k) gives an addend as a function of the term.
template <class T, class OfNeighbor>
__device__ inline void radial_sums(const Center<T>& c, int species, double* out,
                                   const OfNeighbor& of_neighbor) {
  const int lane = static_cast<int>(lane_number());
  const RadialTerms<T> t = c.p.terms.radial;
  const Range neighbors = c.radial(species);
  T* const sums = c.sums + lane;
  for (int first = 0; first < t.num_shifts; first += kMostFunctions) {
    const int count = t.num_shifts - first < kMostFunctions ? t.num_shifts - first : kMostFunctions;
    for (int i = 0; i < count; ++i) sums[i * kColumn] = T(0);
    for (int k = neighbors.first + lane; k < neighbors.last; k += kLanes) {
      const T r = c.places[k].w;
      const Differentiable<T> fc = c.radial_cutoff(r);
      const auto addend = of_neighbor(k);
      for (int i = 0; i < count; ++i)
        sums[i * kColumn] += addend(radial_term(t.eta, t.shifts[first + i], r, fc));
    }
    for_sums(c.sums, count, [&](int i, double sum) { out[first + i] = sum; });
  }
}

template <class T>
__device__ inline void radial_forward(const Center<T>& c, int species, double* out) {
  const Range neighbors = c.radial(species);
  if (neighbors.first == neighbors.last) return clear(out, c.p.terms.radial.num_shifts);
  radial_sums(c, species, out, [](int) { return [](const Differentiable<T>& term) { return term.value; }; });
}

/// `directions` are those of the center's edges.
template <class T>
__device__ inline void radial_tangent(const Center<T>& c, int species, const Vec4<T>* directions,
                                      double* out) {
  radial_sums(c, species, out, [&](int k) {
    const Vec4<T> r = c.places[k];
    const T rate = scalar_product(r, directions[c.order[k]]) / r.w;
    return [rate](const Differentiable<T>& term) { return rate * term.derivative; };
  });
}

template <class T>
__device__ inline void radial_reverse(const Center<T>& c, int species, const double* cotangents,
                                      Vec4<T>* gradients) {
  const int lane = static_cast<int>(lane_number());
  const RadialTerms<T> t = c.p.terms.radial;
  const Range neighbors = c.radial(species);
  if (neighbors.first == neighbors.last) return;
  for (int i = lane; i < t.num_shifts; i += kLanes) c.cotangents[i] = static_cast<T>(cotangents[i]);
  __syncwarp();
  for (int k = neighbors.first + lane; k < neighbors.last; k += kLanes) {
    const Vec4<T> v = c.places[k];
    const Differentiable<T> fc = c.radial_cutoff(v.w);
    T sum = T(0);
    for (int i = 0; i < t.num_shifts; ++i)
      sum += c.cotangents[i] * radial_term(t.eta, t.shifts[i], v.w, fc).derivative;
    sum /= v.w;
    Vec4<T>& g = gradients[c.order[k]];
    g = {g.x + sum * v.x, g.y + sum * v.y, g.z + sum * v.z, T(0)};
  }
  __syncwarp();
}

template <class T>
__device__ inline T cosine_of(const Vec4<T>& j, const Vec4<T>& k) {
  return (j.x * k.x + j.y * k.y + j.z * k.z) / (j.w * k.w);
}

/// Writes sums over pairs of neighbors: body(j, k, shells, sums) adds to the lane's own, of the functions of
/// these shells.
template <class T, class Body>
__device__ inline void angular_sums(const Center<T>& c, const PairRanges& pairs, double* out,
                                    const Body& body) {
  const AngularTerms<T> t = c.p.terms.angular;
  if (pairs.is_empty()) return clear(out, t.num_shifts * t.num_angles);
  T* const sums = c.sums + lane_number();
  const int part = kMostFunctions > t.num_angles ? kMostFunctions / t.num_angles : 1;  // shifts at a time
  for (int first = 0; first < t.num_shifts; first += part) {
    const Range shells{first, first + part < t.num_shifts ? first + part : t.num_shifts};
    const int count = (shells.last - first) * t.num_angles;
    for (int i = 0; i < count; ++i) sums[i * kColumn] = T(0);
    for_pairs(pairs, c.queue, [](int, int) { return true; }, [&](int j, int k) { body(j, k, shells, sums); });
    for_sums(c.sums, count, [&](int i, double sum) { out[first * t.num_angles + i] = sum; });
  }
}

template <class T>
__device__ inline void angular_forward(const Center<T>& c, const PairRanges& pairs, double* out) {
  const AngularTerms<T> t = c.p.terms.angular;
  T* const terms = c.terms + lane_number();
  angular_sums(c, pairs, out, [&](int j, int k, Range shells, T* sums) {
    const Vec4<T> vj = c.places[j], vk = c.places[k];
    const Angle<T> angle(cosine_of(vj, vk));
    const T ends = c.angular_cutoff(vj.w).value * c.angular_cutoff(vk.w).value;
    const T mean = T(0.5) * (vj.w + vk.w);
    for (int u = 0; u < t.num_angles; ++u) terms[u * kLanes] = angle.term(t, u).value;
    for (int n = shells.first, i = 0; n < shells.last; ++n) {
      const T e = ends * shell_term(t.eta, t.shifts[n], mean).value;
      for (int u = 0; u < t.num_angles; ++u, ++i) sums[i * kColumn] += e * terms[u * kLanes];
    }
  });
}

/// `directions` are those of the center's edges.
template <class T>
__device__ inline void angular_tangent(const Center<T>& c, const PairRanges& pairs, const Vec4<T>* directions,
                                       double* out) {
  const AngularTerms<T> t = c.p.terms.angular;
  T* const terms = c.terms + lane_number();
  T* const rates = terms + t.num_angles * kLanes;
  angular_sums(c, pairs, out, [&](int j, int k, Range shells, T* sums) {
    const Vec4<T> rj = c.places[j], rk = c.places[k];
    const Vec4<T> vj = directions[c.order[j]], vk = directions[c.order[k]];
    const T rate_j = scalar_product(rj, vj) / rj.w, rate_k = scalar_product(rk, vk) / rk.w,
            cosine = cosine_of(rj, rk);
    const T of_cosine = (scalar_product(vj, rk) + scalar_product(rj, vk)) / (rj.w * rk.w) -
                        cosine * (rate_j / rj.w + rate_k / rk.w);
    const Angle<T> angle(cosine);
    const Differentiable<T> fj = c.angular_cutoff(rj.w), fk = c.angular_cutoff(rk.w);
    const T ends = fj.value * fk.value;
    const T of_ends = fj.derivative * rate_j * fk.value + fj.value * fk.derivative * rate_k;
    const T mean = T(0.5) * (rj.w + rk.w), of_mean = T(0.5) * (rate_j + rate_k);
    for (int u = 0; u < t.num_angles; ++u) {
      const Differentiable<T> term = angle.term(t, u);
      terms[u * kLanes] = term.value;
      rates[u * kLanes] = term.derivative * of_cosine;
    }
    for (int n = shells.first, i = 0; n < shells.last; ++n) {
      const Differentiable<T> e = shell_term(t.eta, t.shifts[n], mean);
      const T value = ends * e.value, rate = ends * e.derivative * of_mean + of_ends * e.value;
      for (int u = 0; u < t.num_angles; ++u, ++i)
        sums[i * kColumn] += rate * terms[u * kLanes] + value * rates[u * kLanes];
    }
  });
}

template <class T>
__device__ inline void angular_reverse(const Center<T>& c, const PairRanges& all, const double* cotangents,
                                       Vec4<T>* gradients) {
  const int lane = static_cast<int>(lane_number());
  const AngularTerms<T> t = c.p.terms.angular;
  if (all.is_empty()) return;
  T* const terms = c.terms + lane;
  T* const derivatives = terms + t.num_angles * kLanes;
  for (int i = lane; i < t.num_shifts * t.num_angles; i += kLanes)
    c.cotangents[i] = static_cast<T>(cotangents[i]);
  __syncwarp();
  for_tiles(all, [&](const PairRanges& pairs) {
    const PairTile<T> tile(c.tile, pairs.j, pairs.k);
    for_pairs(
        pairs, c.queue, [](int, int) { return true; },
        [&](int j, int k) {
          const Vec4<T> vj = c.places[j], vk = c.places[k];
          const T cosine = cosine_of(vj, vk), mean = T(0.5) * (vj.w + vk.w);
          const Angle<T> angle(cosine);
          for (int u = 0; u < t.num_angles; ++u) {
            const Differentiable<T> term = angle.term(t, u);
            terms[u * kLanes] = term.value;
            derivatives[u * kLanes] = term.derivative;
          }
          T by_ends = T(0), by_cosine = T(0), by_mean = T(0);
          for (int n = 0, i = 0; n < t.num_shifts; ++n) {
            const Differentiable<T> e = shell_term(t.eta, t.shifts[n], mean);
            T value = T(0), derivative = T(0);
            for (int u = 0; u < t.num_angles; ++u, ++i) {
              value += c.cotangents[i] * terms[u * kLanes];
              derivative += c.cotangents[i] * derivatives[u * kLanes];
            }
            by_ends += e.value * value;
            by_cosine += e.value * derivative;
            by_mean += e.derivative * value;
          }
          const Differentiable<T> fj = c.angular_cutoff(vj.w), fk = c.angular_cutoff(vk.w);
          const T ends = fj.value * fk.value, half = T(0.5) * by_mean * ends;
          by_cosine *= ends;
          // dcos/dr_k = r_j / (|r_j| |r_k|) - cos r_k / |r_k|²: a part along r_j, the rest along r_k.
          const T inverse_j = T(1) / vj.w, inverse_k = T(1) / vk.w;
          tile.set(j, k, by_cosine * inverse_j * inverse_k,
                   (half + by_ends * fj.derivative * fk.value - by_cosine * cosine * inverse_j) * inverse_j,
                   (half + by_ends * fj.value * fk.derivative - by_cosine * cosine * inverse_k) * inverse_k);
        });
    tile.add(c.places, c.order, gradients);
  });
}

template <class T>
__global__ void __launch_bounds__(kMostWarps* kLanes, 4)
    forward_kernel(Problem<T> p, Room room, double* features, int stride) {
  const int n = static_cast<int>(warp_number());
  if (n >= p.num_rows) return;
  const Center<T> c(p, n, room, dynamic_shared<unsigned char>());
  double* const out = features + static_cast<std::size_t>(n) * stride;
  for (int a = 0; a < p.terms.num_species; ++a) radial_forward(c, a, out + a * p.terms.radial.num_shifts);
  for_species_pairs(c,
                    [&](const PairRanges& pairs, int feature) { angular_forward(c, pairs, out + feature); });
}

template <class T>
__global__ void __launch_bounds__(kMostWarps* kLanes, 4)
    tangent_kernel(Problem<T> p, Room room, const Vec4<T>* directions, double* tangents, int stride) {
  const int n = static_cast<int>(warp_number());
  if (n >= p.num_rows) return;
  const Center<T> c(p, n, room, dynamic_shared<unsigned char>());
  const Vec4<T>* const own = directions + p.edges.begin(p.edges.first_row + n);
  double* const out = tangents + static_cast<std::size_t>(n) * stride;
  for (int a = 0; a < p.terms.num_species; ++a)
    radial_tangent(c, a, own, out + a * p.terms.radial.num_shifts);
  for_species_pairs(
      c, [&](const PairRanges& pairs, int feature) { angular_tangent(c, pairs, own, out + feature); });
}

template <class T>
__global__ void __launch_bounds__(kMostWarps* kLanes, 4)
    reverse_kernel(Problem<T> p, Room room, const double* cotangents, int stride, Vec4<T>* gradients) {
  const int n = static_cast<int>(warp_number());
  if (n >= p.num_rows) return;
  const Center<T> c(p, n, room, dynamic_shared<unsigned char>());
  const double* const own = cotangents + static_cast<std::size_t>(n) * stride;
  const int row = p.edges.first_row + n, count = p.edges.counts[row];
  Vec4<T>* const out = gradients + p.edges.begin(row);
  for (int e = static_cast<int>(lane_number()); e < count; e += kLanes) out[e] = {T(0), T(0), T(0), T(0)};
  __syncwarp();
  for (int a = 0; a < p.terms.num_species; ++a)
    radial_reverse(c, a, own + a * p.terms.radial.num_shifts, out);
  for_species_pairs(
      c, [&](const PairRanges& pairs, int feature) { angular_reverse(c, pairs, own + feature, out); });
}

template <class T>
std::vector<T> converted(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

}  // namespace

template <class T>
Ani<T>::Ani(const Stream& stream, const nearsight::ani::Constants& c)
    : num_features_(c.num_features()),
      radial_cutoff_(static_cast<T>(c.radial_cutoff)),
      angular_cutoff_(static_cast<T>(c.angular_cutoff)),
      sorter_(stream, std::vector<std::vector<double>>(c.num_species,
                                                       {std::min(c.radial_cutoff, c.angular_cutoff),
                                                        std::max(c.radial_cutoff, c.angular_cutoff)})) {
  std::vector<T> cosines, sines;
  for (const double angle : c.angles) {
    cosines.push_back(static_cast<T>(std::cos(angle)));
    sines.push_back(static_cast<T>(std::sin(angle)));
  }
  terms_ = {c.cutoff_function,
            c.num_species,
            {static_cast<T>(c.radial_eta), static_cast<int>(c.radial_shifts.size()),
             tables_.keep(stream, converted<T>(c.radial_shifts))},
            {static_cast<T>(c.angular_eta), static_cast<T>(c.zeta), static_cast<int>(c.angular_shifts.size()),
             static_cast<int>(c.angles.size()), tables_.keep(stream, converted<T>(c.angular_shifts)),
             tables_.keep(stream, cosines), tables_.keep(stream, sines)}};
}

template <class T>
Problem<T> Ani<T>::problem(const Graph<T>& graph) const {
  const int radial = radial_cutoff_ < angular_cutoff_ ? 0 : 1;
  return {graph.edges, sorter_.view(), graph.num_rows,        terms_,
          radial,      1 - radial,     T(1) / radial_cutoff_, T(1) / angular_cutoff_};
}

template <class T>
void Ani<T>::forward(const Stream& stream, const Graph<T>& graph, double* features, int stride) {
  sorter_.sort(stream, graph);
  const Room room(terms_, false);
  launch(stream, sharing_warps(graph.num_rows, room.bytes<T>(), kMostWarps), forward_kernel<T>,
         problem(graph), room, features, stride);
}

template <class T>
void Ani<T>::reverse(const Stream& stream, const Graph<T>& graph, const double* cotangents, int stride,
                     Vec4<T>* gradients) {
  const Room room(terms_, true);
  launch(stream, sharing_warps(graph.num_rows, room.bytes<T>(), kMostWarps), reverse_kernel<T>,
         problem(graph), room, cotangents, stride, gradients);
}

template <class T>
void Ani<T>::tangent(const Stream& stream, const Graph<T>& graph, const Vec4<T>* directions, double* tangents,
                     int stride) {
  const Room room(terms_, false, true);
  launch(stream, sharing_warps(graph.num_rows, room.bytes<T>(), kMostWarps), tangent_kernel<T>,
         problem(graph), room, directions, tangents, stride);
}

template class Ani<float>;
template class Ani<double>;

}  // namespace ani
}  // namespace cuda
}  // namespace nearsight
