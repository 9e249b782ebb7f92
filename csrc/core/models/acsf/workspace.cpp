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
const typename Functions<T>::Center& Workspace<T>::center(const Graph& graph, std::size_t c) const {
  return functions_.center(graph.species[graph.centers[c]]);
}

/// The shells of a center, the k-th of its graph.
template <class T>
void Workspace<T>::sort(const Graph& graph, std::size_t c, std::size_t k) {
  std::vector<SortedShells<T>>& kept = graphs_[selected_];
  if (kept.size() <= k) kept.resize(k + 1);
  const std::size_t begin = graph.offsets[c], num_edges = graph.offsets[c + 1] - begin;
  const Span<const double> vectors(graph.vectors.data() + 3 * begin, 3 * num_edges);
  distances_.resize(num_edges);
  bins_.resize(num_edges);
  for (std::size_t e = 0; e < num_edges; ++e) {
    const double* const v = vectors.data() + 3 * e;
    distances_[e] = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    bins_[e] = kOctants * graph.species[graph.neighbors[begin + e]] + octant(v);
  }
  const auto& shells = center(graph, c).shells;
  kept[k].resize(shells.size());
  for (std::size_t n = 0; n < shells.size(); ++n) sort(vectors, shells[n], kept[k][n]);
}

/// Vectors of neighbors on the far side need not be looked at.
template <class T>
void Workspace<T>::sort(Span<const double> vectors, const typename Center::ShellSpec& spec, Sorted<T>& s) {
  const int num_species = functions_.num_species();
  fill_.assign(kOctants * num_species, 0);
  for (std::size_t e = 0; e < distances_.size(); ++e)
    if (distances_[e] < spec.radius) ++fill_[bins_[e]];
  s.first.resize(num_species);
  s.count.assign(num_species, 0);
  int stride = 0;
  for (int species = 0; species < num_species; ++species) {
    s.first[species] = stride;
    for (int bin = kOctants * species; bin < kOctants * (species + 1); ++bin) {
      const int count = fill_[bin];
      fill_[bin] = s.first[species] + s.count[species];
      s.count[species] += count;
    }
    stride += padded(s.count[species]);
  }
  s.edge.assign(stride, -1);
  T* const x = s.places.resize(4 * static_cast<std::size_t>(stride));
  T *const y = x + stride, *const z = y + stride, *const r = z + stride;
  for (std::size_t e = 0; e < distances_.size(); ++e) {
    if (!(distances_[e] < spec.radius)) continue;
    const int k = fill_[bins_[e]]++;
    x[k] = T(vectors[3 * e]);
    y[k] = T(vectors[3 * e + 1]);
    z[k] = T(vectors[3 * e + 2]);
    r[k] = T(distances_[e]);
    s.edge[k] = static_cast<int>(e);
  }
  for (int species = 0; species < num_species; ++species) {
    const int end = s.first[species] + padded(s.count[species]);
    for (int k = s.first[species] + s.count[species]; k < end; ++k) {
      x[k] = r[k] = T(2 * (k + 1) * spec.radius);
      y[k] = z[k] = T(0);
    }
  }
}

/// Everything else of a center that is sorted.
template <class T>
Neighborhood<T>& Workspace<T>::load(const Graph& graph, std::size_t c, std::size_t k) {
  while (neighborhoods_.size() <= k) neighborhoods_.push_back(std::make_unique<Neighborhood<T>>());
  Neighborhood<T>& n = *neighborhoods_[k];
  n.center = &center(graph, c);
  n.shells.resize(n.center->shells.size());
  if (n.shell_arrays.size() < n.shells.size()) n.shell_arrays.resize(n.shells.size());
  for (std::size_t s = 0; s < n.shells.size(); ++s) make_shell(s, graphs_[selected_][k][s], n);

  n.triplets.resize(n.center->angular_groups.size());
  while (n.triplet_arrays.size() < n.triplets.size())
    n.triplet_arrays.push_back(std::make_unique<typename Neighborhood<T>::TripletArrays>());
  std::size_t scratch = 0;
  for (std::size_t t = 0; t < n.triplets.size(); ++t) {
    make_triplets(t, n);
    const auto& g = n.center->angular_groups[t];
    scratch = std::max<std::size_t>(
        scratch, static_cast<std::size_t>(n.triplets[t].stride) * (2 * g.num_terms + g.num_shapes + 2));
  }
  scratch_.resize(scratch);
  for (auto& triplets : n.triplets) triplets.scratch = scratch_.data();

  std::size_t slopes = 0;
  for (const auto& g : n.center->radial_groups)
    slopes += static_cast<std::size_t>(g.num_functions) * n.shells[g.shell].stride;
  n.moments.resize(2 * functions_.num_species() * kMomentStride * n.center->moment_groups.size());
  n.kept = {n.radial_slopes.resize(slopes), n.triplets.data(), n.moments.data()};
  return n;
}

template <class T>
void Workspace<T>::make_shell(std::size_t number, Sorted<T>& sorted, Neighborhood<T>& n) {
  const auto& spec = n.center->shells[number];
  Shell<T>& s = n.shells[number];
  s.stride = sorted.stride();
  s.cutoff = spec.cutoff;
  s.first = sorted.first.data();
  s.count = sorted.count.data();
  s.num_shapes = static_cast<int>(spec.shapes.size());
  s.shapes = spec.shapes.data();
  T* p = sorted.places.data();
  for (T** array : {&s.x, &s.y, &s.z, &s.r}) {
    *array = p;
    p += s.stride;
  }
  p = n.shell_arrays[number].resize(static_cast<std::size_t>(s.stride) * (10 + 2 * s.num_shapes));
  for (T** array :
       {&s.inverse_r, &s.ux, &s.uy, &s.uz, &s.cut, &s.cut_slope, &s.gx, &s.gy, &s.gz, &s.gr, &s.value}) {
    *array = p;
    p += s.stride;
  }
  s.slope = s.value + s.num_shapes * s.stride;
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

template <class T>
void Workspace<T>::forward(const Graph& graph, Span<const std::size_t> centers, double* features,
                           std::size_t stride) {
  const FlushDenormals flush;
  for (std::size_t k = 0; k < centers.size(); ++k) {
    sort(graph, centers[k], k);
    Neighborhood<T>& n = load(graph, centers[k], k);
    kernels<T>().forward(n.center->functions, n.shells.data(), n.kept, features + k * stride);
  }
}

template <class T>
void Workspace<T>::prepare(const Graph& graph, Span<const std::size_t> centers, double* features,
                           std::size_t stride) {
  for (std::size_t k = 0; k < centers.size(); ++k) sort(graph, centers[k], k);
  restore(graph, centers, features, stride);
}

template <class T>
void Workspace<T>::select(std::size_t graph) {
  selected_ = graph;
  if (graphs_.size() <= graph) graphs_.resize(graph + 1);
}

template <class T>
void Workspace<T>::restore(const Graph& graph, Span<const std::size_t> centers, double*, std::size_t) {
  const FlushDenormals flush;
  for (std::size_t k = 0; k < centers.size(); ++k) {
    Neighborhood<T>& n = load(graph, centers[k], k);
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
    const std::size_t begin = graph.offsets[centers[k]], end = graph.offsets[centers[k] + 1];
    double* const gradients = edge_gradients.data() + 3 * begin;
    std::fill_n(gradients, 3 * (end - begin), 0.0);
    for (std::size_t m = 0; m < n.shells.size(); ++m) {
      const Shell<T>& s = n.shells[m];
      const std::vector<int>& edge = graphs_[selected_][k][m].edge;
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
  for (std::size_t k = 0; k < centers.size(); ++k) {
    sort(graph, centers[k], 0);
    Neighborhood<T>& n = load(graph, centers[k], 0);
    for (std::size_t m = 0; m < n.shells.size(); ++m) {
      Shell<T>& s = n.shells[m];
      const std::vector<int>& edge = graphs_[selected_][0][m].edge;
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
  std::fill_n(jacobian, 3 * (graph.offsets[center + 1] - graph.offsets[center]) * stride, 0.0);
  cotangents_.assign(n.center->functions.num_features, T(0));
  CenterFunctions<T> one = n.center->functions;

  const auto add_column = [&](int shell, const Kept<T>& kept, int column) {
    Shell<T>& s = n.shells[shell];
    for (T* array : {s.gx, s.gy, s.gz, s.gr}) std::fill_n(array, s.stride, T(0));
    cotangents_[column] = T(1);
    kernels<T>().reverse(one, &s, 1, kept, cotangents_.data());
    cotangents_[column] = T(0);
    const std::vector<int>& edge = graphs_[selected_][0][shell].edge;
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
