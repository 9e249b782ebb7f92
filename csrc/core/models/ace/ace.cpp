#include "core/models/ace/ace.hpp"

#include <algorithm>
#include <cmath>

#include "core/engine/error.hpp"

namespace nearsight {
namespace ace {
namespace {

int runs_of(std::size_t count, int run) {
  return static_cast<int>((count + run - 1) / run);
}

}  // namespace

int Definition::moments_per_channel() const {
  int count = 0;
  for (std::size_t l = 0; l < radial_counts.size(); ++l) count += (2 * l + 1) * radial_counts[l];
  return count;
}

Products Definition::products() const {
  const int first = 1 + channels * moments_per_channel(), count = static_cast<int>(first_term.size()) - 1;
  return {first, count, first + count, first_term.data(), terms.data()};
}

template <class T>
Tables<T>::Tables(const Definition& d) : definition(d) {
  constexpr int run = kRun<T>;
  Shape<T>& s = shape;
  s.l_max = static_cast<int>(d.radial_counts.size()) - 1;
  // Each distinct first column starts a block of the padded rows, as long as its longest user.
  std::vector<int> longest(d.num_functions, 0), place(d.num_functions, 0);
  for (int l = 0; l <= s.l_max; ++l)
    longest[d.radial_first[l]] = std::max(longest[d.radial_first[l]], d.radial_counts[l]);
  for (int k = 0; k < d.num_functions; ++k) {
    place[k] = s.num_columns;
    s.num_columns += runs_of(longest[k], run) * run;
  }
  if (s.num_columns > kMaxColumns)
    throw Error(ErrorKind::file, "the descriptor has " + std::to_string(s.num_columns) +
                                     " radial functions with their padding, the core takes " +
                                     std::to_string(kMaxColumns) + ": lower n_max or l_max");
  for (int l = 0; l <= s.l_max; ++l) {
    s.runs[l] = runs_of(d.radial_counts[l], run);
    s.first_column[l] = place[d.radial_first[l]];
    s.first_moment[l] = s.num_moments;
    for (int m = 0; m < 2 * l + 1; ++m) {
      for (int n = 0; n < d.radial_counts[l]; ++n) moment_at.push_back(s.num_moments + n);
      s.num_moments += s.runs[l] * run;
    }
  }
  s.harmonics = harmonic_factors<T>(s.l_max, 1.0);
  const double step = d.cutoff / (d.num_knots - 1), scale[3] = {1.0, step, step * step};
  s.inverse_step = static_cast<T>(1.0 / step);
  const std::size_t rows = static_cast<std::size_t>(d.num_tables) * d.num_knots * 3;
  std::fill_n(radial.resize(rows * s.num_columns), rows * s.num_columns, T(0));
  for (std::size_t row = 0; row < rows; ++row)
    for (int k = 0; k < d.num_functions; ++k)
      for (int n = 0; n < longest[k]; ++n)
        radial[row * s.num_columns + place[k] + n] =
            static_cast<T>(d.radial[row * d.num_functions + k + n] * scale[row % 3]);
}

/// The neighbors of a center, kept from forward() to reverse().
template <class T>
struct Workspace<T>::Neighborhood {
  void load(const Tables<T>& tables, const Graph& graph, std::size_t center);
  void sort(const Graph& graph, const int* neighbors, std::size_t count, int num_species);

  Neighbors<T> view{};
  std::vector<std::size_t> order;  // number of each sorted neighbor among the center's edges
  std::vector<int> first, species;
  std::vector<const T*> rows;
  AlignedBuffer<T> arrays;
};

template <class T>
void Workspace<T>::Neighborhood::sort(const Graph& graph, const int* neighbors, std::size_t count,
                                      int num_species) {
  order.resize(count);
  first.assign(num_species + 1, 0);
  for (std::size_t e = 0; e < count; ++e) ++first[graph.species[neighbors[e]] + 1];
  for (int s = 0; s < num_species; ++s) first[s + 1] += first[s];
  for (std::size_t e = 0; e < count; ++e) order[first[graph.species[neighbors[e]]]++] = e;
}

/// Sorts the edges of a center by species and finds their places in the radial tables.
template <class T>
void Workspace<T>::Neighborhood::load(const Tables<T>& tables, const Graph& graph, std::size_t center) {
  const Definition& d = tables.definition;
  const std::size_t begin = graph.offsets[center], count = graph.offsets[center + 1] - begin;
  const int* const neighbors = graph.neighbors.data() + begin;
  sort(graph, neighbors, count, d.num_species);
  const std::size_t stride = static_cast<std::size_t>(runs_of(count, kRun<T>)) * kRun<T>;
  T* array = arrays.resize(8 * stride);
  for (T** a : {&view.x, &view.y, &view.z, &view.inv_r, &view.place, &view.vx, &view.vy, &view.vz}) {
    *a = array;
    array += stride;
  }
  rows.resize(stride);
  species.resize(stride);
  view.count = static_cast<int>(count);
  view.table = rows.data();
  view.species = species.data();
  const std::size_t knot_size = 3 * static_cast<std::size_t>(tables.shape.num_columns);
  const double per_step = (d.num_knots - 1) / d.cutoff;
  const int* const table_of = &d.table_of[graph.species[graph.centers[center]] * d.num_species];
  for (std::size_t k = 0; k < count; ++k) {
    const double* const v = graph.vectors.data() + 3 * (begin + order[k]);
    const double r = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]), inv_r = 1.0 / r;
    const double steps = std::min(r * per_step, d.num_knots - 1.0);
    const int knot = std::min(static_cast<int>(steps), d.num_knots - 2);
    species[k] = graph.species[neighbors[order[k]]];
    rows[k] = tables.radial.data() +
              (static_cast<std::size_t>(table_of[species[k]]) * d.num_knots + knot) * knot_size;
    view.x[k] = static_cast<T>(v[0] * inv_r);
    view.y[k] = static_cast<T>(v[1] * inv_r);
    view.z[k] = static_cast<T>(v[2] * inv_r);
    view.inv_r[k] = static_cast<T>(inv_r);
    view.place[k] = static_cast<T>(steps - knot);
  }
  for (std::size_t k = count; k < stride; ++k) {
    view.x[k] = view.inv_r[k] = T(1);
    view.y[k] = view.z[k] = view.place[k] = view.vx[k] = view.vy[k] = view.vz[k] = T(0);
  }
}

template <class T>
Workspace<T>::Workspace(const Tables<T>& tables)
    : tables_(tables), d_(tables.definition), products_(d_.products()) {
  moments_.resize(static_cast<std::size_t>(d_.num_species) * tables.shape.num_moments);
  adjoints_.resize(static_cast<std::size_t>(products_.num_nodes) * kCenters);
}
template <class T>
Workspace<T>::~Workspace() = default;

/// Mixes the moments of species into channels, in one lane of the nodes.
template <class T>
void Workspace<T>::moments_to_nodes(int lane, double* nodes) const {
  const int size = static_cast<int>(tables_.moment_at.size());
  for (int c = 0; c < d_.channels; ++c) {
    double* const out = nodes + static_cast<std::size_t>(1 + c * size) * kCenters + lane;
    if (d_.mixing.empty()) {
      const T* const a = moments_.data() + c * tables_.shape.num_moments;
      for (int k = 0; k < size; ++k) out[k * kCenters] = a[tables_.moment_at[k]];
      continue;
    }
    for (int k = 0; k < size; ++k) out[k * kCenters] = 0.0;
    for (int s = 0; s < d_.num_species; ++s) {
      const T* const a = moments_.data() + s * tables_.shape.num_moments;
      const double w = d_.mixing[c * d_.num_species + s];
      for (int k = 0; k < size; ++k) out[k * kCenters] += w * a[tables_.moment_at[k]];
    }
  }
}

/// The transpose of moments_to_nodes().
template <class T>
void Workspace<T>::adjoints_to_moments(int lane, const double* adjoints) {
  const int size = static_cast<int>(tables_.moment_at.size());
  std::fill_n(moments_.data(), moments_.size(), T(0));
  for (int s = 0; s < d_.num_species; ++s) {
    T* const a = moments_.data() + s * tables_.shape.num_moments;
    for (int c = 0; c < d_.channels; ++c) {
      const double w = d_.mixing.empty() ? static_cast<double>(c == s) : d_.mixing[c * d_.num_species + s];
      if (w == 0.0) continue;
      const double* const in = adjoints + static_cast<std::size_t>(1 + c * size) * kCenters + lane;
      for (int k = 0; k < size; ++k) a[tables_.moment_at[k]] += static_cast<T>(w * in[k * kCenters]);
    }
  }
}

/// The moments of a center, its own included, in moments_.
template <class T>
void Workspace<T>::sum_moments(const Neighborhood& neighborhood, int center_species) {
  std::fill_n(moments_.data(), moments_.size(), T(0));
  for (int n = 0; n < d_.radial_counts[0]; ++n)
    moments_[center_species * tables_.shape.num_moments + n] =
        static_cast<T>(d_.center[center_species * d_.radial_counts[0] + n]);
  kernels<T>().moments(tables_.shape, neighborhood.view, moments_.data());
}

/// All nodes of up to kCenters centers, whose neighborhoods are kept from number `first` on. Lanes without a
/// center stay finite.
template <class T>
void Workspace<T>::fill_nodes(const Graph& graph, Span<const std::size_t> centers, std::size_t first,
                              double* nodes) {
  while (kept_.size() < first + centers.size()) kept_.push_back(std::make_unique<Neighborhood>());
  std::fill_n(nodes, static_cast<std::size_t>(products_.first_target) * kCenters, 0.0);
  for (std::size_t lane = 0; lane < centers.size(); ++lane) {
    kept_[first + lane]->load(tables_, graph, centers[lane]);
    sum_moments(*kept_[first + lane], graph.species[graph.centers[centers[lane]]]);
    nodes[lane] = 1.0;
    moments_to_nodes(static_cast<int>(lane), nodes);
  }
  kernels<double>().products(products_, nodes);
}

/// 1 / |features| of each lane, or 1 where they are not normalized.
template <class T>
std::array<double, kCenters> Workspace<T>::scales(const double* nodes) const {
  std::array<double, kCenters> scale;
  scale.fill(d_.normalize ? 0.0 : 1.0);
  if (!d_.normalize) return scale;
  for (const int node : d_.features)
    for (int lane = 0; lane < kCenters; ++lane)
      scale[lane] += nodes[node * kCenters + lane] * nodes[node * kCenters + lane];
  for (double& square : scale) square = square > 0.0 ? 1.0 / std::sqrt(square) : 0.0;
  return scale;
}

/// Applies the derivative of p / |p|, which is its own transpose, to vectors that stand at the features'
/// nodes: v -> (v - p (p·v) / |p|²) / |p|.
template <class T>
void Workspace<T>::differentiate_norm(const double* nodes, double* vectors) const {
  if (!d_.normalize) return;
  const auto scale = scales(nodes);
  std::array<double, kCenters> along{};
  for (const int node : d_.features)
    for (int lane = 0; lane < kCenters; ++lane)
      along[lane] += nodes[node * kCenters + lane] * vectors[node * kCenters + lane];
  for (const int node : d_.features)
    for (int lane = 0; lane < kCenters; ++lane) {
      double& v = vectors[node * kCenters + lane];
      v = (v - along[lane] * scale[lane] * scale[lane] * nodes[node * kCenters + lane]) * scale[lane];
    }
}

template <class T>
void Workspace<T>::forward(const Graph& graph, Span<const std::size_t> centers, double* features,
                           std::size_t stride) {
  const std::size_t size = static_cast<std::size_t>(products_.num_nodes) * kCenters;
  double* nodes = nodes_.resize(runs_of(centers.size(), kCenters) * size);
  for (std::size_t first = 0; first < centers.size(); first += kCenters, nodes += size) {
    const std::size_t count = std::min<std::size_t>(kCenters, centers.size() - first);
    fill_nodes(graph, centers.subspan(first, count), first, nodes);
    const auto scale = scales(nodes);
    for (std::size_t k = 0; k < d_.features.size(); ++k)
      for (std::size_t lane = 0; lane < count; ++lane)
        features[(first + lane) * stride + k] = scale[lane] * nodes[d_.features[k] * kCenters + lane];
  }
}

template <class T>
void Workspace<T>::reverse(const Graph& graph, Span<const std::size_t> centers, const double* cotangents,
                           std::size_t stride, Span<double> edge_gradients) {
  const std::size_t size = static_cast<std::size_t>(products_.num_nodes) * kCenters;
  const double* nodes = nodes_.data();
  for (std::size_t first = 0; first < centers.size(); first += kCenters, nodes += size) {
    const std::size_t count = std::min<std::size_t>(kCenters, centers.size() - first);
    std::fill_n(adjoints_.data(), size, 0.0);
    for (std::size_t k = 0; k < d_.features.size(); ++k)
      for (std::size_t lane = 0; lane < count; ++lane)
        adjoints_[d_.features[k] * kCenters + lane] = cotangents[(first + lane) * stride + k];
    differentiate_norm(nodes, adjoints_.data());
    kernels<double>().products_reverse(products_, nodes, adjoints_.data());
    for (std::size_t lane = 0; lane < count; ++lane) {
      const Neighborhood& neighborhood = *kept_[first + lane];
      const Neighbors<T>& n = neighborhood.view;
      adjoints_to_moments(static_cast<int>(lane), adjoints_.data());
      kernels<T>().reverse(tables_.shape, n, moments_.data());
      double* const gradients = &edge_gradients[3 * graph.offsets[centers[first + lane]]];
      for (int k = 0; k < n.count; ++k) {
        double* const g = gradients + 3 * neighborhood.order[k];
        g[0] = n.vx[k];
        g[1] = n.vy[k];
        g[2] = n.vz[k];
      }
    }
  }
}

template <class T>
void Workspace<T>::tangent(const Graph& graph, Span<const std::size_t> centers, Span<const double> directions,
                           double* tangents, std::size_t stride) {
  double* const nodes = nodes_.resize(static_cast<std::size_t>(products_.num_nodes) * kCenters);
  for (std::size_t first = 0; first < centers.size(); first += kCenters) {
    const auto batch = centers.subspan(first, std::min<std::size_t>(kCenters, centers.size() - first));
    fill_nodes(graph, batch, 0, nodes);
    std::fill_n(adjoints_.data(), static_cast<std::size_t>(products_.first_target) * kCenters, 0.0);
    for (std::size_t lane = 0; lane < batch.size(); ++lane) {
      Neighbors<T>& n = kept_[lane]->view;
      for (int k = 0; k < n.count; ++k) {
        const double* const v = &directions[3 * (graph.offsets[batch[lane]] + kept_[lane]->order[k])];
        n.vx[k] = static_cast<T>(v[0]);
        n.vy[k] = static_cast<T>(v[1]);
        n.vz[k] = static_cast<T>(v[2]);
      }
      std::fill_n(moments_.data(), moments_.size(), T(0));
      kernels<T>().tangent(tables_.shape, n, moments_.data());
      moments_to_nodes(static_cast<int>(lane), adjoints_.data());
    }
    kernels<double>().products_tangent(products_, nodes, adjoints_.data());
    differentiate_norm(nodes, adjoints_.data());
    for (std::size_t k = 0; k < d_.features.size(); ++k)
      for (std::size_t lane = 0; lane < batch.size(); ++lane)
        tangents[(first + lane) * stride + k] = adjoints_[d_.features[k] * kCenters + lane];
  }
}

/// Directions take the place of centers: every lane has the same nodes, and one coordinate that moves.
template <class T>
void Workspace<T>::jacobian(const Graph& graph, std::size_t center, double* jacobian, std::size_t stride) {
  double* const nodes = nodes_.resize(static_cast<std::size_t>(products_.num_nodes) * kCenters);
  fill_nodes(graph, {&center, 1}, 0, nodes);
  one_.resize(products_.num_nodes);
  for (int node = 0; node < products_.num_nodes; ++node) {
    one_[node] = nodes[node * kCenters];
    std::fill_n(nodes + node * kCenters, kCenters, one_[node]);
  }
  std::fill_n(adjoints_.data(), static_cast<std::size_t>(products_.first_target) * kCenters, 0.0);

  const Neighborhood& neighborhood = *kept_[0];
  const Neighbors<T>& all = neighborhood.view;
  alignas(64) T values[8][kRun<T>] = {};
  Neighbors<T> one{1,       values[0], values[1], values[2], values[3], values[4],
                   nullptr, nullptr,   values[5], values[6], values[7]};
  double* rows[kCenters];
  int lane = 0;
  for (int move = 0; move < 3 * all.count; ++move) {
    const int k = move / 3, axis = move % 3;
    one.table = all.table + k;
    one.species = all.species + k;
    const T place[8] = {all.x[k],     all.y[k],     all.z[k],     all.inv_r[k],
                        all.place[k], T(axis == 0), T(axis == 1), T(axis == 2)};
    for (int q = 0; q < 8; ++q) values[q][0] = place[q];
    std::fill_n(moments_.data(), moments_.size(), T(0));
    kernels<T>().tangent(tables_.shape, one, moments_.data());
    moments_to_nodes(lane, adjoints_.data());
    rows[lane++] = jacobian + (3 * neighborhood.order[k] + axis) * stride;
    if (lane < kCenters && move + 1 < 3 * all.count) continue;
    kernels<double>().products_tangents_of_one(products_, one_.data(), adjoints_.data());
    differentiate_norm(nodes, adjoints_.data());
    for (std::size_t f = 0; f < d_.features.size(); ++f)
      for (int l = 0; l < lane; ++l) rows[l][f] = adjoints_[d_.features[f] * kCenters + l];
    lane = 0;
  }
}

template struct Tables<float>;
template struct Tables<double>;
template class Workspace<float>;
template class Workspace<double>;

NEARSIGHT_CHOOSE_KERNELS(float)
NEARSIGHT_CHOOSE_KERNELS(double)

}  // namespace ace
}  // namespace nearsight
