// The neighborhoods of a tile of centers, sorted for the kernels.
#include <algorithm>
#include <cmath>
#include <utility>

#include "core/models/acsf/acsf.hpp"
#include "core/models/shared/denormals.hpp"

namespace nearsight {
namespace acsf {

namespace {

constexpr int kOctants = 8;

/// The octant of a vector, in an order in which the next one always shares a face.
int octant(const double* v) {
  constexpr int order[] = {0, 1, 3, 2, 7, 6, 4, 5};
  return order[(v[0] < 0) + 2 * (v[1] < 0) + 4 * (v[2] < 0)];
}

}  // namespace

template <class T>
Workspace<T>::Workspace(const Functions<T>& functions) : functions_(functions) {}
template <class T>
Workspace<T>::~Workspace() = default;

template <class T>
void Workspace<T>::load(const Graph& graph, std::size_t c, Neighborhood<T>& n) {
  const std::size_t begin = graph.offsets[c];
  n.num_edges = graph.offsets[c + 1] - begin;
  n.center = &functions_.center(graph.species[graph.centers[c]]);
  distances_.resize(n.num_edges);
  bins_.resize(n.num_edges);
  for (std::size_t e = 0; e < n.num_edges; ++e) {
    const double* const v = graph.vectors.data() + 3 * (begin + e);
    distances_[e] = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    bins_[e] = kOctants * graph.species[graph.neighbors[begin + e]] + octant(v);
  }
  n.shells.resize(n.center->shells.size());
  while (n.shell_arrays.size() < n.shells.size())
    n.shell_arrays.push_back(std::make_unique<typename Neighborhood<T>::ShellArrays>());
  for (std::size_t k = 0; k < n.shells.size(); ++k) make_shell(graph, c, k, n);

  n.triplets.resize(n.center->angular_groups.size());
  while (n.triplet_arrays.size() < n.triplets.size())
    n.triplet_arrays.push_back(std::make_unique<typename Neighborhood<T>::TripletArrays>());
  std::size_t scratch = 0;
  for (std::size_t k = 0; k < n.triplets.size(); ++k) {
    make_triplets(k, n);
    const auto& g = n.center->angular_groups[k];
    scratch = std::max<std::size_t>(
        scratch, static_cast<std::size_t>(n.triplets[k].stride) * (2 * g.num_terms + g.num_shapes + 2));
  }
  scratch_.resize(scratch);
  for (auto& triplets : n.triplets) triplets.scratch = scratch_.data();

  std::size_t slopes = 0;
  for (const auto& g : n.center->radial_groups)
    slopes += static_cast<std::size_t>(g.num_functions) * n.shells[g.shell].stride;
  n.moments.resize(2 * functions_.num_species() * kMomentStride * n.center->moment_groups.size());
  n.kept = {n.radial_slopes.resize(slopes), n.triplets.data(), n.moments.data()};
}

template <class T>
void Workspace<T>::make_shell(const Graph& graph, std::size_t c, std::size_t number, Neighborhood<T>& n) {
  const auto& spec = n.center->shells[number];
  auto& a = *n.shell_arrays[number];
  Shell<T>& s = n.shells[number];
  const int num_species = functions_.num_species();
  const double* const vectors = graph.vectors.data() + 3 * graph.offsets[c];
  // Sorted by species and octant: vectors of neighbors on the far side then need not be looked at.
  a.fill.assign(kOctants * num_species, 0);
  for (std::size_t e = 0; e < n.num_edges; ++e)
    if (distances_[e] < spec.radius) ++a.fill[bins_[e]];
  a.first.resize(num_species);
  a.count.assign(num_species, 0);
  s.stride = 0;
  for (int k = 0; k < num_species; ++k) {
    a.first[k] = s.stride;
    for (int bin = kOctants * k; bin < kOctants * (k + 1); ++bin) {
      const int count = a.fill[bin];
      a.fill[bin] = a.first[k] + a.count[k];
      a.count[k] += count;
    }
    s.stride += padded(a.count[k]);
  }
  s.cutoff = spec.cutoff;
  s.first = a.first.data();
  s.count = a.count.data();
  s.num_shapes = static_cast<int>(spec.shapes.size());
  s.shapes = spec.shapes.data();
  T* p = a.values.resize(static_cast<std::size_t>(s.stride) * (14 + 2 * s.num_shapes));
  for (T** array : {&s.x, &s.y, &s.z, &s.r, &s.inverse_r, &s.ux, &s.uy, &s.uz, &s.cut, &s.cut_slope, &s.gx,
                    &s.gy, &s.gz, &s.gr, &s.value}) {
    *array = p;
    p += s.stride;
  }
  s.slope = s.value + s.num_shapes * s.stride;

  a.edge.assign(s.stride, -1);
  for (std::size_t e = 0; e < n.num_edges; ++e) {
    if (!(distances_[e] < spec.radius)) continue;
    const int k = a.fill[bins_[e]]++;
    s.x[k] = T(vectors[3 * e]);
    s.y[k] = T(vectors[3 * e + 1]);
    s.z[k] = T(vectors[3 * e + 2]);
    s.r[k] = T(distances_[e]);
    a.edge[k] = static_cast<int>(e);
  }
  for (int species = 0; species < num_species; ++species) {
    const int end = a.first[species] + padded(a.count[species]);
    for (int k = a.first[species] + a.count[species]; k < end; ++k) {
      s.x[k] = s.r[k] = T(2 * (k + 1) * spec.radius);
      s.y[k] = s.z[k] = T(0);
    }
  }
  kernels<T>().prepare(s);
}

template <class T>
void Workspace<T>::make_triplets(std::size_t number, Neighborhood<T>& n) {
  const AngularGroup<T>& g = n.center->angular_groups[number];
  const Shell<T>& s = n.shells[g.shell];
  Triplets<T>& t = n.triplets[number];
  auto& arrays = *n.triplet_arrays[number];
  const int n1 = s.count[g.species1], n2 = s.count[g.species2];
  const int pairs = g.species1 == g.species2 ? n1 * (n1 - 1) / 2 : n1 * n2;
  t.stride = padded(pairs + kPad);  // packing writes whole vectors
  const int num_far = g.narrow ? g.common_slope ? 1 : g.num_shapes : 0;
  const int num_angles = g.compact_terms ? 2 : 1;
  t.angle = arrays.values.resize(static_cast<std::size_t>(t.stride) * (num_angles + num_far + g.num_shapes));
  t.angle_slope = t.angle + t.stride;
  t.far = t.angle + num_angles * t.stride;
  t.value = t.far + num_far * t.stride;
  constexpr int kNarrowest = 2;  // lanes
  const std::size_t blocks = std::max(n1 * padded(n2), n2 * padded(n1)) / kNarrowest;
  if (arrays.masks.size() < blocks) arrays.masks.resize(blocks);
  t.masks = arrays.masks.data();
}

/// The k-th of the centers that are remembered together.
template <class T>
Neighborhood<T>& Workspace<T>::neighborhood(std::size_t k) {
  while (neighborhoods_.size() <= k) neighborhoods_.push_back(std::make_unique<Neighborhood<T>>());
  return *neighborhoods_[k];
}

template <class T>
void Workspace<T>::forward(const Graph& graph, Span<const std::size_t> centers, double* features,
                           std::size_t stride) {
  const FlushDenormals flush;
  for (std::size_t k = 0; k < centers.size(); ++k) {
    Neighborhood<T>& n = neighborhood(k);
    load(graph, centers[k], n);
    kernels<T>().forward(n.center->functions, n.shells.data(), n.kept, features + k * stride);
  }
}

template <class T>
void Workspace<T>::prepare(const Graph& graph, Span<const std::size_t> centers, double*, std::size_t) {
  const FlushDenormals flush;
  for (std::size_t k = 0; k < centers.size(); ++k) {
    Neighborhood<T>& n = neighborhood(k);
    load(graph, centers[k], n);
    kernels<T>().remember(n.center->functions, n.shells.data(), n.kept);
  }
}

template <class T>
void Workspace<T>::reverse(const Graph& graph, Span<const std::size_t> centers, const double* cotangents,
                           std::size_t stride, Span<double> edge_gradients) {
  const FlushDenormals flush;
  for (std::size_t k = 0; k < centers.size(); ++k) {
    Neighborhood<T>& n = *neighborhoods_[k];
    cotangents_.resize(n.center->functions.num_features);
    for (std::size_t f = 0; f < cotangents_.size(); ++f)
      cotangents_[f] = static_cast<T>(cotangents[k * stride + f]);
    for (auto& triplets : n.triplets) triplets.scratch = scratch_.data();
    kernels<T>().reverse(n.center->functions, n.shells.data(), static_cast<int>(n.shells.size()), n.kept,
                         cotangents_.data());
    double* const gradients = edge_gradients.data() + 3 * graph.offsets[centers[k]];
    std::fill_n(gradients, 3 * n.num_edges, 0.0);
    for (std::size_t m = 0; m < n.shells.size(); ++m) {
      const Shell<T>& s = n.shells[m];
      const std::vector<int>& edge = n.shell_arrays[m]->edge;
      for (int i = 0; i < s.stride; ++i) {
        if (edge[i] < 0) continue;
        double* const g = gradients + 3 * edge[i];
        g[0] += s.gx[i];
        g[1] += s.gy[i];
        g[2] += s.gz[i];
      }
      std::fill_n(s.gx, 4 * s.stride, T(0));  // gx, gy, gz, gr: for other cotangents of the same center
    }
  }
}

template <class T>
void Workspace<T>::tangent(const Graph& graph, Span<const std::size_t> centers, Span<const double> directions,
                           double* tangents, std::size_t stride) {
  const FlushDenormals flush;
  Neighborhood<T>& n = neighborhood(0);
  for (std::size_t k = 0; k < centers.size(); ++k) {
    load(graph, centers[k], n);
    for (std::size_t m = 0; m < n.shells.size(); ++m) {
      Shell<T>& s = n.shells[m];
      const std::vector<int>& edge = n.shell_arrays[m]->edge;
      for (int i = 0; i < s.stride; ++i) {
        if (edge[i] < 0) continue;  // padding keeps zeros
        const double* const v = directions.data() + 3 * (graph.offsets[centers[k]] + edge[i]);
        s.gx[i] = T(v[0]);
        s.gy[i] = T(v[1]);
        s.gz[i] = T(v[2]);
      }
    }
    kernels<T>().tangent(n.center->functions, n.shells.data(), static_cast<int>(n.shells.size()), n.kept,
                         tangents + k * stride);
  }
}

/// One function after the other, by a reverse pass in which its group has no other and its shell is alone.
template <class T>
void Workspace<T>::jacobian(const Graph& graph, std::size_t center, double* jacobian, std::size_t stride) {
  const std::vector<std::size_t> only{center};
  std::vector<double> features(stride);
  forward(graph, only, features.data(), stride);
  const FlushDenormals flush;
  Neighborhood<T>& n = *neighborhoods_[0];
  std::fill_n(jacobian, 3 * n.num_edges * stride, 0.0);
  cotangents_.assign(n.center->functions.num_features, T(0));
  CenterFunctions<T> one = n.center->functions;

  const auto add_column = [&](int shell, const Kept<T>& kept, int column) {
    Shell<T>& s = n.shells[shell];
    for (T* array : {s.gx, s.gy, s.gz, s.gr}) std::fill_n(array, s.stride, T(0));
    cotangents_[column] = T(1);
    kernels<T>().reverse(one, &s, 1, kept, cotangents_.data());
    cotangents_[column] = T(0);
    const std::vector<int>& edge = n.shell_arrays[shell]->edge;
    for (int i = 0; i < s.stride; ++i) {
      if (edge[i] < 0) continue;
      double* const row = jacobian + 3 * edge[i] * stride + column;
      row[0] += s.gx[i];
      row[stride] += s.gy[i];
      row[2 * stride] += s.gz[i];
    }
  };
  Kept<T> kept = n.kept;
  one.num_angular = one.num_moment = 0;
  one.num_radial = 1;
  for (RadialGroup<T> group : n.center->radial_groups) {
    const int shell = std::exchange(group.shell, 0);
    one.radial = &group;
    for (int f = std::exchange(group.num_functions, 1); f > 0; --f, ++group.functions) {
      add_column(shell, kept, group.functions->out);
      kept.radial_slopes += n.shells[shell].stride;
    }
  }
  one.num_radial = 0;
  one.num_angular = 1;
  for (AngularGroup<T> group : n.center->angular_groups) {
    const int shell = std::exchange(group.shell, 0);
    one.angular = &group;
    kept.triplets->scratch = scratch_.data();
    for (int f = std::exchange(group.num_functions, 1); f > 0; --f, ++group.functions)
      add_column(shell, kept, group.functions->out);
    ++kept.triplets;
  }
  one.num_angular = 0;
  one.num_moment = 1;
  for (MomentGroup<T> group : n.center->moment_groups) {
    const int shell = std::exchange(group.shell, 0);
    one.moment = &group;
    for (int f = std::exchange(group.num_functions, 1); f > 0; --f, ++group.functions)
      add_column(shell, kept, group.functions->out);
    kept.moments += 2 * group.num_species * kMomentStride;
  }
}

template class Workspace<float>;
template class Workspace<double>;

NEARSIGHT_CHOOSE_KERNELS(float)
NEARSIGHT_CHOOSE_KERNELS(double)

}  // namespace acsf
}  // namespace nearsight
