#include <cmath>

#include "cuda/models/ace/ace.hpp"
#include "cuda/models/shared/harmonics.hpp"
#include "cuda/models/shared/pairs.hpp"
#include "cuda/models/shared/warps.hpp"

namespace nearsight {
namespace cuda {
namespace ace {
namespace {

constexpr int kMostWarps = 4;  // of a block

enum class Pass { forward, reverse, tangent };

/// A warp's part of the shared memory, for kLanes neighbors at a time. Made with a null `begin` it tells its
/// size.
template <class T>
struct Room {
  T *weights, *functions, *derivatives, *harmonics, *harmonic_rates, *moments;
  int* rows;
  std::size_t bytes;

  __host__ __device__ Room(const MomentTables<T>& t, Pass pass, unsigned char* begin) {
    SharedParts parts{begin};
    const bool reverse = pass != Pass::forward;  // with derivatives of the radial functions
    const int harmonic_numbers = (t.l_max + 1) * (t.l_max + 1) * kColumn;
    weights = parts.take<T>((reverse ? 12 : 6) * kLanes);
    rows = parts.take<int>(kLanes);
    functions = parts.take<T>(t.num_functions * kColumn);
    derivatives = parts.take<T>(reverse ? t.num_functions * kColumn : 0);
    harmonics = parts.take<T>(pass == Pass::reverse ? 0 : harmonic_numbers);
    harmonic_rates = parts.take<T>(pass == Pass::tangent ? harmonic_numbers : 0);
    moments = parts.take<T>(t.num_moments);
    bytes = parts.bytes;
  }
};

/// The weights of value, slope and curvature at two knots at a place t between them, for functions and, from
/// number 6 on, for derivatives per step.
template <class T>
__device__ inline void hermite_weights(T t, bool derivatives, T* w) {
  const T t2 = t * t, t3 = t2 * t, t4 = t3 * t, t5 = t4 * t;
  w[0] = T(1) - T(10) * t3 + T(15) * t4 - T(6) * t5;
  w[kLanes] = t - T(6) * t3 + T(8) * t4 - T(3) * t5;
  w[2 * kLanes] = T(0.5) * (t2 - T(3) * t3 + T(3) * t4 - t5);
  w[3 * kLanes] = T(10) * t3 - T(15) * t4 + T(6) * t5;
  w[4 * kLanes] = T(7) * t4 - T(4) * t3 - T(3) * t5;
  w[5 * kLanes] = T(0.5) * (t3 - T(2) * t4 + t5);
  if (!derivatives) return;
  w[6 * kLanes] = T(30) * (T(2) * t3 - t2 - t4);
  w[7 * kLanes] = T(1) - T(18) * t2 + T(32) * t3 - T(15) * t4;
  w[8 * kLanes] = t - T(4.5) * t2 + T(6) * t3 - T(2.5) * t4;
  w[9 * kLanes] = T(30) * (t2 - T(2) * t3 + t4);
  w[10 * kLanes] = T(28) * t3 - T(12) * t2 - T(15) * t4;
  w[11 * kLanes] = T(1.5) * t2 - T(4) * t3 + T(2.5) * t4;
}

/// Radial functions of up to kLanes neighbors, one of `r` in each lane: functions[n][kColumn], and
/// derivatives per Å.
template <class T>
__device__ inline void radial_functions(const MomentTables<T>& t, const Room<T>& room, int table, int count,
                                        T r, bool reverse) {
  const int lane = static_cast<int>(lane_number());
  if (lane < count) {
    const T last = T(t.num_knots - 1), wanted = r * t.steps_per_angstrom;
    const T steps = wanted < last ? wanted : last;
    const int knot = static_cast<int>(steps) < t.num_knots - 2 ? static_cast<int>(steps) : t.num_knots - 2;
    hermite_weights(steps - T(knot), reverse, room.weights + lane);
    room.rows[lane] = (table * t.num_knots + knot) * 3;
  }
  __syncwarp();
  for (int n = lane; n < count * t.num_functions; n += kLanes) {
    const int neighbor = n / t.num_functions, function = n % t.num_functions;
    const T* const rows =
        t.radial + static_cast<std::size_t>(room.rows[neighbor]) * t.num_functions + function;
    const T* const w = room.weights + neighbor;
    T value = T(0), derivative = T(0);
    for (int p = 0; p < 6; ++p) {
      const T knot = rows[p * t.num_functions];
      value += w[p * kLanes] * knot;
      if (reverse) derivative += w[(p + 6) * kLanes] * knot;
    }
    room.functions[function * kColumn + neighbor] = value;
    if (reverse) room.derivatives[function * kColumn + neighbor] = derivative * t.steps_per_angstrom;
  }
  __syncwarp();
}

/// A neighbor of a center in each lane.
template <class T>
struct Direction {
  T x, y, z, r;

  __device__ explicit Direction(const Vec4<T>& v) : x(v.x / v.w), y(v.y / v.w), z(v.z / v.w), r(v.w) {}
};

/// Sums over one species of neighbors, in the room: fill(u, place, count) writes functions and harmonics of
/// those in the lanes, addend(a, f) multiplies a harmonic and a function at these places.
template <class T, class Fill, class Addend>
__device__ inline void sum_neighbors(const MomentTables<T>& t, const Room<T>& room, const Vec4<T>* places,
                                     Range neighbors, const Fill& fill, const Addend& addend) {
  const int lane = static_cast<int>(lane_number());
  for (int k = lane; k < t.num_moments; k += kLanes) room.moments[k] = T(0);
  for (int first = neighbors.first; first < neighbors.last; first += kLanes) {
    const int count = neighbors.last - first < kLanes ? neighbors.last - first : kLanes;
    const int place = first + (lane < count ? lane : 0);
    fill(Direction<T>(places[place]), place, count);
    __syncwarp();
    for (int k = lane; k < t.num_moments; k += kLanes) {
      const int angular = (t.places[k] >> 16) * kColumn, radial = (t.places[k] & 0xffff) * kColumn;
      T sum = room.moments[k];
      for (int j = 0; j < count; ++j) sum += addend(angular + j, radial + j);
      room.moments[k] = sum;
    }
    __syncwarp();
  }
  __syncwarp();
}

/// The moments.
template <class T>
__device__ inline void sum_moments(const MomentTables<T>& t, const Room<T>& room, int table,
                                   const Vec4<T>* places, Range neighbors) {
  const int lane = static_cast<int>(lane_number());
  sum_neighbors(
      t, room, places, neighbors,
      [&](const Direction<T>& u, int, int count) {
        radial_functions(t, room, table, count, u.r, false);
        for_harmonics(*t.harmonics, u.x, u.y, u.z, [&](int l, int m, T value, T, T, T) {
          room.harmonics[(l * l + l + m) * kColumn + lane] = value;
        });
      },
      [&](int angular, int radial) { return room.harmonics[angular] * room.functions[radial]; });
}

/// Derivatives of the moments along directions of the center's edges.
template <class T>
__device__ inline void move_moments(const MomentTables<T>& t, const Room<T>& room, int table,
                                    const Vec4<T>* places, const std::int32_t* order,
                                    const Vec4<T>* directions, Range neighbors) {
  const int lane = static_cast<int>(lane_number());
  sum_neighbors(
      t, room, places, neighbors,
      [&](const Direction<T>& u, int place, int count) {
        const Vec4<T> v = directions[order[place]];
        const T inverse = T(1) / u.r, rate = u.x * v.x + u.y * v.y + u.z * v.z;
        const T x = (v.x - rate * u.x) * inverse, y = (v.y - rate * u.y) * inverse,
                z = (v.z - rate * u.z) * inverse;
        radial_functions(t, room, table, count, u.r, true);
        for (int n = 0; lane < count && n < t.num_functions; ++n)
          room.derivatives[n * kColumn + lane] *= rate;
        for_harmonics(*t.harmonics, u.x, u.y, u.z, [&](int l, int m, T value, T dx, T dy, T dz) {
          room.harmonics[(l * l + l + m) * kColumn + lane] = value;
          room.harmonic_rates[(l * l + l + m) * kColumn + lane] = dx * x + dy * y + dz * z;
        });
      },
      [&](int angular, int radial) {
        return room.harmonic_rates[angular] * room.functions[radial] +
               room.harmonics[angular] * room.derivatives[radial];
      });
}

/// Writes nodes from what find(room, begin of the edges, table, neighbors) puts into the room for one species
/// of neighbors.
template <class T, class Find>
__device__ inline void write_nodes(const Problem<T>& p, Pass pass, double* all, const Find& find) {
  const int n = static_cast<int>(warp_number()), lane = static_cast<int>(lane_number());
  if (n >= p.num_rows) return;
  const MomentTables<T>& t = p.tables;
  const std::size_t bytes = Room<T>(t, pass, nullptr).bytes;
  const Room<T> room(t, pass, dynamic_shared<unsigned char>() + threadIdx.x / kWarp * bytes);
  const int row = p.edges.first_row + n, own = p.edges.species[row];
  double* const nodes = all + node_place(n, 1, p.num_nodes);
  for (int species = 0; species < t.num_species; ++species) {
    find(room, p.edges.begin(row), t.table_of[own * t.num_species + species],
         p.neighborhoods.shell(n, species, 0));
    const bool with_center = pass == Pass::forward && species == own;
    for (int k = lane; k < t.num_moments; k += kLanes) {
      const double itself = with_center && k < t.counts[0] ? t.center[own * t.counts[0] + k] : 0.0;
      const double moment = room.moments[k] + itself;
      if (!t.mixing) nodes[(species * t.num_moments + k) * kLanes] = moment;
      for (int channel = 0; t.mixing && channel < t.channels; ++channel) {
        double& node = nodes[(channel * t.num_moments + k) * kLanes];
        const double part = t.mixing[channel * t.num_species + species] * moment;
        node = species == 0 ? part : node + part;
      }
    }
    __syncwarp();
  }
}

template <class T>
__global__ void __launch_bounds__(kMostWarps* kLanes) moments_kernel(Problem<T> p, double* all) {
  write_nodes(p, Pass::forward, all,
              [&](const Room<T>& room, std::int64_t begin, int table, Range neighbors) {
                sum_moments(p.tables, room, table, p.neighborhoods.places + begin, neighbors);
              });
}

/// With tables of the usual sizes shared memory has room for fewer blocks than 6; with the registers that the
/// compiler would choose some are spilled.
template <class T>
__global__ void __launch_bounds__(kMostWarps* kLanes, 6)
    tangent_kernel(Problem<T> p, const Vec4<T>* directions, double* all) {
  write_nodes(p, Pass::tangent, all,
              [&](const Room<T>& room, std::int64_t begin, int table, Range neighbors) {
                move_moments(p.tables, room, table, p.neighborhoods.places + begin,
                             p.neighborhoods.order + begin, directions + begin, neighbors);
              });
}

/// dE/d(moment) of one species of neighbors, into the room.
template <class T>
__device__ inline void load_adjoints(const MomentTables<T>& t, const Room<T>& room, int species,
                                     const double* adjoints) {
  for (int k = static_cast<int>(lane_number()); k < t.num_moments; k += kLanes) {
    double sum = 0.0;
    if (!t.mixing) sum = adjoints[(species * t.num_moments + k) * kLanes];
    for (int channel = 0; t.mixing && channel < t.channels; ++channel)
      sum += t.mixing[channel * t.num_species + species] * adjoints[(channel * t.num_moments + k) * kLanes];
    room.moments[k] = static_cast<T>(sum);
  }
  __syncwarp();
}

template <class T>
__global__ void __launch_bounds__(kMostWarps* kLanes)
    reverse_kernel(Problem<T> p, const double* all, Vec4<T>* gradients) {
  const int n = static_cast<int>(warp_number()), lane = static_cast<int>(lane_number());
  if (n >= p.num_rows) return;
  const MomentTables<T>& t = p.tables;
  const std::size_t bytes = Room<T>(t, Pass::reverse, nullptr).bytes;
  const Room<T> room(t, Pass::reverse, dynamic_shared<unsigned char>() + threadIdx.x / kWarp * bytes);
  const int row = p.edges.first_row + n, own = p.edges.species[row];
  const std::int64_t begin = p.edges.begin(row);
  const double* const adjoints = all + node_place(n, 1, p.num_nodes);
  for (int e = lane; e < p.edges.counts[row]; e += kLanes) gradients[begin + e] = {T(0), T(0), T(0), T(0)};
  for (int species = 0; species < t.num_species; ++species) {
    const Range neighbors = p.neighborhoods.shell(n, species, 0);
    if (neighbors.first == neighbors.last) continue;
    load_adjoints(t, room, species, adjoints);
    for (int first = neighbors.first; first < neighbors.last; first += kLanes) {
      const int count = neighbors.last - first < kLanes ? neighbors.last - first : kLanes;
      const std::int64_t place = begin + first + (lane < count ? lane : 0);
      const Direction<T> u(p.neighborhoods.places[place]);
      radial_functions(t, room, t.table_of[own * t.num_species + species], count, u.r, true);
      T by_r = T(0), x = T(0), y = T(0), z = T(0);  // dE/dr at fixed direction, dE/d(polynomials)
      if (lane < count)
        for_harmonics(*t.harmonics, u.x, u.y, u.z, [&](int l, int m, T value, T dx, T dy, T dz) {
          const T* const adjoint = room.moments + t.first_moment[l] + (l + m) * t.counts[l];
          const T* const functions = room.functions + t.first_function[l] * kColumn + lane;
          const T* const derivatives = room.derivatives + t.first_function[l] * kColumn + lane;
          T sum = T(0), slope = T(0);
          for (int k = 0; k < t.counts[l]; ++k) {
            sum += adjoint[k] * functions[k * kColumn];
            slope += adjoint[k] * derivatives[k * kColumn];
          }
          by_r += slope * value;
          x += sum * dx;
          y += sum * dy;
          z += sum * dz;
        });
      const T inverse = T(1) / u.r, radial = by_r - (x * u.x + y * u.y + z * u.z) * inverse;
      if (lane < count)
        gradients[begin + p.neighborhoods.order[place]] = {
            x * inverse + radial * u.x, y * inverse + radial * u.y, z * inverse + radial * u.z, T(0)};
      __syncwarp();
    }
  }
}

template <class T>
Grid grid_of(int num_rows, const MomentTables<T>& tables, Pass pass) {
  return sharing_warps(num_rows, Room<T>(tables, pass, nullptr).bytes, kMostWarps);
}

}  // namespace

template <class T>
Ace<T>::Ace(const Stream& stream, const nearsight::ace::Definition& d)
    : num_features_(static_cast<int>(d.features.size())),
      sorter_(stream, std::vector<std::vector<double>>(d.num_species, {d.cutoff})),
      products_(stream, d) {
  MomentTables<T>& t = tables_;
  t.num_species = d.num_species;
  t.channels = d.channels;
  t.l_max = static_cast<int>(d.radial_counts.size()) - 1;
  std::vector<int> places;
  for (int l = 0; l <= t.l_max; ++l) {
    t.counts[l] = d.radial_counts[l];
    t.first_function[l] = d.radial_first[l];
    t.first_moment[l] = static_cast<int>(places.size());
    for (int lm = l * l; lm < (l + 1) * (l + 1); ++lm)
      for (int n = 0; n < t.counts[l]; ++n) places.push_back(lm << 16 | (t.first_function[l] + n));
  }
  t.num_moments = static_cast<int>(places.size());
  const std::vector<HarmonicFactors<T>> harmonics{harmonic_factors<T>(t.l_max, 1.0)};
  t.harmonics = device_.keep(stream, harmonics);
  t.table_of = device_.keep(stream, d.table_of);
  t.mixing = device_.keep(stream, d.mixing);
  t.center = device_.keep(stream, d.center);
  t.places = device_.keep(stream, places);
  keep_radial(stream, d);
}

template <class T>
void Ace<T>::keep_radial(const Stream& stream, const nearsight::ace::Definition& d) {
  const double step = d.cutoff / (d.num_knots - 1), scale[3] = {1.0, step, step * step};
  std::vector<T> radial(d.radial.size());
  for (std::size_t k = 0; k < radial.size(); ++k)
    radial[k] = static_cast<T>(d.radial[k] * scale[k / d.num_functions % 3]);
  tables_.num_knots = d.num_knots;
  tables_.num_functions = d.num_functions;
  tables_.steps_per_angstrom = static_cast<T>(1.0 / step);
  tables_.radial = device_.keep(stream, radial);
}

template <class T>
void Ace<T>::forward(const Stream& stream, const Graph<T>& graph, double* features, int stride) {
  sorter_.sort(stream, graph);
  launch(stream, grid_of(graph.num_rows, tables_, Pass::forward), moments_kernel<T>, problem(graph),
         products_.nodes(graph.num_rows));
  products_.forward(stream, graph.num_rows, features, stride);
}

template <class T>
void Ace<T>::reverse(const Stream& stream, const Graph<T>& graph, const double* cotangents, int stride,
                     Vec4<T>* gradients) {
  const double* const adjoints = products_.reverse(stream, graph.num_rows, cotangents, stride);
  launch(stream, grid_of(graph.num_rows, tables_, Pass::reverse), reverse_kernel<T>, problem(graph), adjoints,
         gradients);
}

template <class T>
void Ace<T>::tangent(const Stream& stream, const Graph<T>& graph, const Vec4<T>* directions, double* tangents,
                     int stride) {
  launch(stream, grid_of(graph.num_rows, tables_, Pass::tangent), tangent_kernel<T>, problem(graph),
         directions, products_.tangents(graph.num_rows));
  products_.tangent(stream, graph.num_rows, tangents, stride);
}

template class Ace<float>;
template class Ace<double>;

}  // namespace ace
}  // namespace cuda
}  // namespace nearsight
