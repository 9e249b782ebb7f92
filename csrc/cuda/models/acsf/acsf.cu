#include "cuda/models/acsf/acsf.hpp"
#include "cuda/models/acsf/angular.hpp"
#include "cuda/models/acsf/moments.hpp"

namespace nearsight {
namespace cuda {
namespace acsf {
namespace {

constexpr int kMostWarps = 4;  // of a block
/// Blocks of a multiprocessor, which limits the registers: 128 of a thread, 168 in double.
template <class T>
constexpr int kBlocks = sizeof(T) == 4 ? 4 : 3;

/// The shapes of angular functions at all neighbors.
template <class T>
__device__ inline void find_shapes(const Center<T>& c) {
  for (int number = 0; number < c.table.shells.last - c.table.shells.first; ++number) {
    const ShellTable<T> shell = c.shell(number);
    if (shell.shapes.first == shell.shapes.last) continue;
    for (int species = 0; species < c.p.neighborhoods.num_species; ++species) {
      const Range neighbors = c.neighbors(species, number);
      for (int k = neighbors.first + static_cast<int>(lane_number()); k < neighbors.last; k += kLanes) {
        const T r = c.places[k].w, inverse = T(1) / r;
        const Sloped<T> cutoff = cutoff_function(shell.cutoff, r);
        for (int e = shell.shapes.first, row = shell.first_row; e < shell.shapes.last; ++e, ++row) {
          const Sloped<T> w = shape(c.tables.shapes[e], r, cutoff);
          c.shape_values(row)[k] = w.value;
          c.shape_slopes(row)[k] = w.slope * inverse;
        }
      }
    }
  }
  __syncwarp();
}

/// Adds to the features of a group their sums over neighbors: of_neighbor(k) gives an addend as a function of
/// the shape.
template <class T, class OfNeighbor>
__device__ inline void radial_sums(const RadialTable g, const Center<T>& c, const WarpRoom<T>& room,
                                   const OfNeighbor& of_neighbor) {
  const int lane = static_cast<int>(lane_number());
  const Cutoff<T> cutoff = c.shell(g.shell).cutoff;
  const Range neighbors = c.neighbors(g.species, g.shell);
  if (neighbors.first == neighbors.last) return;
  T* const sums = room.sums + lane;
  for (int first = g.functions.first; first < g.functions.last; first += kMostFunctions) {
    const RadialFunction<T>* const functions = c.tables.radial_functions + first;
    const int rest = g.functions.last - first, count = rest < kMostFunctions ? rest : kMostFunctions;
    for (int i = 0; i < count; ++i) sums[i * kColumn] = T(0);
    for (int k = neighbors.first + lane; k < neighbors.last; k += kLanes) {
      const T r = c.places[k].w;
      const Sloped<T> f = cutoff_function(cutoff, r);
      const auto addend = of_neighbor(k);
      for (int i = 0; i < count; ++i) sums[i * kColumn] += addend(shape(functions[i].shape, r, f));
    }
    add_features(functions, count, room);
  }
}

template <class T>
__device__ inline void radial_forward(const RadialTable g, const Center<T>& c, const WarpRoom<T>& room) {
  radial_sums(g, c, room, [](int) { return [](const Sloped<T>& w) { return w.value; }; });
}

/// `directions` are those of the center's edges.
template <class T>
__device__ inline void radial_tangent(const RadialTable g, const Center<T>& c, const WarpRoom<T>& room,
                                      const Vec4<T>* directions) {
  radial_sums(g, c, room, [&](int k) {
    const Vec4<T> v = c.places[k];
    const T rate = scalar_product(v, directions[c.order[k]]) / v.w;
    return [rate](const Sloped<T>& w) { return w.value * w.slope * rate; };
  });
}

template <class T>
__device__ inline void radial_reverse(const RadialTable g, const Center<T>& c, const WarpRoom<T>& room,
                                      Vec4<T>* gradients) {
  const Cutoff<T> cutoff = c.shell(g.shell).cutoff;
  const Range neighbors = c.neighbors(g.species, g.shell);
  for (int k = neighbors.first + static_cast<int>(lane_number()); k < neighbors.last; k += kLanes) {
    const Vec4<T> v = c.places[k];
    const Sloped<T> f = cutoff_function(cutoff, v.w);
    T sum = T(0);
    for (int i = g.functions.first; i < g.functions.last; ++i) {
      const RadialFunction<T>& function = c.tables.radial_functions[i];
      const Sloped<T> w = shape(function.shape, v.w, f);
      sum += room.cotangents[function.out] * function.factor * w.value * w.slope;
    }
    sum /= v.w;
    Vec4<T>& gradient = gradients[c.order[k]];
    gradient = {gradient.x + sum * v.x, gradient.y + sum * v.y, gradient.z + sum * v.z, T(0)};
  }
  __syncwarp();
}

template <class T>
__global__ void __launch_bounds__(kMostWarps* kLanes, kBlocks<T>)
    forward_kernel(Problem<T> p, Room needs, double* features, int stride) {
  const int n = static_cast<int>(warp_number()), lane = static_cast<int>(lane_number());
  if (n >= p.num_rows) return;
  const std::size_t bytes = WarpRoom<T>(needs, Pass::forward, nullptr).bytes;
  const WarpRoom<T> room(needs, Pass::forward, dynamic_shared<unsigned char>() + threadIdx.x / kWarp * bytes);
  const Center<T> c(p, n);
  const CenterTable& f = c.table;
  for (int k = lane; k < f.num_features; k += kLanes) room.features[k] = 0.0;
  find_shapes(c);
  for (int g = f.radial.first; g < f.radial.last; ++g) radial_forward(p.tables.radial[g], c, room);
  for (int g = f.angular.first; g < f.angular.last; ++g) angular_forward(p.tables.angular[g], c, room);
  for (int g = f.moments.first; g < f.moments.last; ++g) moment_forward(p.tables.moments[g], c, room);
  double* const out = features + static_cast<std::size_t>(n) * stride;
  for (int k = lane; k < f.num_features; k += kLanes) out[k] = room.features[k];
}

/// After forward_kernel, whose shapes it reads.
template <class T>
__global__ void __launch_bounds__(kMostWarps* kLanes, kBlocks<T>)
    tangent_kernel(Problem<T> p, Room needs, const Vec4<T>* directions, double* tangents, int stride) {
  const int n = static_cast<int>(warp_number()), lane = static_cast<int>(lane_number());
  if (n >= p.num_rows) return;
  const std::size_t bytes = WarpRoom<T>(needs, Pass::tangent, nullptr).bytes;
  const WarpRoom<T> room(needs, Pass::tangent, dynamic_shared<unsigned char>() + threadIdx.x / kWarp * bytes);
  const Center<T> c(p, n);
  const CenterTable& f = c.table;
  const Vec4<T>* const own = directions + p.edges.begin(p.edges.first_row + n);
  for (int k = lane; k < f.num_features; k += kLanes) room.features[k] = 0.0;
  __syncwarp();
  for (int g = f.radial.first; g < f.radial.last; ++g) radial_tangent(p.tables.radial[g], c, room, own);
  for (int g = f.angular.first; g < f.angular.last; ++g) angular_tangent(p.tables.angular[g], c, room, own);
  for (int g = f.moments.first; g < f.moments.last; ++g)
    moment_tangent(p.tables.moments[g], c, room, room.moments + needs.moments, own);
  double* const out = tangents + static_cast<std::size_t>(n) * stride;
  for (int k = lane; k < f.num_features; k += kLanes) out[k] = room.features[k];
}

template <class T>
__global__ void __launch_bounds__(kMostWarps* kLanes, kBlocks<T>)
    reverse_kernel(Problem<T> p, Room needs, const double* cotangents, int stride, Vec4<T>* gradients) {
  const int n = static_cast<int>(warp_number()), lane = static_cast<int>(lane_number());
  if (n >= p.num_rows) return;
  const std::size_t bytes = WarpRoom<T>(needs, Pass::reverse, nullptr).bytes;
  const WarpRoom<T> room(needs, Pass::reverse, dynamic_shared<unsigned char>() + threadIdx.x / kWarp * bytes);
  const Center<T> c(p, n);
  const CenterTable& f = c.table;
  const double* const own = cotangents + static_cast<std::size_t>(n) * stride;
  Vec4<T>* const out = gradients + p.edges.begin(p.edges.first_row + n);
  for (int k = lane; k < f.num_features; k += kLanes) room.cotangents[k] = static_cast<T>(own[k]);
  for (int e = lane; e < p.edges.counts[p.edges.first_row + n]; e += kLanes)
    out[e] = {T(0), T(0), T(0), T(0)};
  __syncwarp();
  for (int g = f.radial.first; g < f.radial.last; ++g) radial_reverse(p.tables.radial[g], c, room, out);
  for (int g = f.angular.first; g < f.angular.last; ++g) angular_reverse(p.tables.angular[g], c, room, out);
  for (int g = f.moments.first; g < f.moments.last; ++g) moment_reverse(p.tables.moments[g], c, room, out);
}

}  // namespace

template <class T>
Acsf<T>::Acsf(const Stream& stream, const nearsight::acsf::Functions<T>& functions)
    : tables_(stream, functions), sorter_(stream, tables_.radii()) {}

template <class T>
Problem<T> Acsf<T>::problem(const Graph<T>& graph) const {
  T* const values = shapes_.data();
  return {graph.edges,
          sorter_.view(),
          tables_.tables(),
          graph.num_rows,
          graph.num_places,
          values,
          values + tables_.num_rows() * graph.num_places};
}

template <class T>
Grid Acsf<T>::grid(int num_rows, Pass pass) const {
  return sharing_warps(num_rows, WarpRoom<T>(tables_.room(), pass, nullptr).bytes, kMostWarps);
}

template <class T>
void Acsf<T>::forward(const Stream& stream, const Graph<T>& graph, double* features, int stride) {
  sorter_.sort(stream, graph);
  shapes_.resize(2 * tables_.num_rows() * static_cast<std::size_t>(graph.num_places));
  launch(stream, grid(graph.num_rows, Pass::forward), forward_kernel<T>, problem(graph), tables_.room(),
         features, stride);
}

template <class T>
void Acsf<T>::reverse(const Stream& stream, const Graph<T>& graph, const double* cotangents, int stride,
                      Vec4<T>* gradients) {
  launch(stream, grid(graph.num_rows, Pass::reverse), reverse_kernel<T>, problem(graph), tables_.room(),
         cotangents, stride, gradients);
}

template <class T>
void Acsf<T>::tangent(const Stream& stream, const Graph<T>& graph, const Vec4<T>* directions,
                      double* tangents, int stride) {
  launch(stream, grid(graph.num_rows, Pass::tangent), tangent_kernel<T>, problem(graph), tables_.room(),
         directions, tangents, stride);
}

template class Acsf<float>;
template class Acsf<double>;

}  // namespace acsf
}  // namespace cuda
}  // namespace nearsight
