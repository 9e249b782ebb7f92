#include "core/models/ace/ace.hpp"

#include <algorithm>
#include <cmath>

namespace nearsight {
namespace ace {
namespace {

constexpr int kCenters = kRun<double>;  // whose products are evaluated side by side

int runs_of(std::size_t count, int run) {
  return static_cast<int>((count + run - 1) / run);
}

/// Factors of the recursions of the normalized Legendre polynomials (nearsight.models.harmonics).
template <class T>
void fill_recursions(Shape<T>& s) {
  double diagonal = std::sqrt(0.25 / 3.14159265358979323846);
  for (int m = 0; m <= s.l_max; ++m) {
    if (m > 0) diagonal *= std::sqrt((2.0 * m + 1.0) / (2.0 * m) * (m == 1 ? 2.0 : 1.0));
    s.diagonal[m] = static_cast<T>(diagonal);
    for (int l = m; l <= s.l_max; ++l) {
      const double l2 = double(l) * l, m2 = double(m) * m;
      const int k = l * (l + 1) / 2 + m;
      s.a[k] = l > m ? static_cast<T>(std::sqrt((4.0 * l2 - 1.0) / (l2 - m2))) : T(0);
      s.b[k] = l > m + 1 ? static_cast<T>(std::sqrt(((l - 1.0) * (l - 1.0) - m2) * (2.0 * l + 1.0) /
                                                    ((2.0 * l - 3.0) * (l2 - m2))))
                         : T(0);
      s.d[k] = static_cast<T>(std::sqrt((l - m) * (l + m + 1.0) * (m == 0 ? 0.5 : 1.0)));
    }
  }
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
  for (int l = 0; l <= s.l_max; ++l) {
    s.runs[l] = runs_of(d.radial_counts[l], run);
    s.first_column[l] = place[d.radial_first[l]];
    s.first_moment[l] = s.num_moments;
    for (int m = 0; m < 2 * l + 1; ++m) {
      for (int n = 0; n < d.radial_counts[l]; ++n) moment_at.push_back(s.num_moments + n);
      s.num_moments += s.runs[l] * run;
    }
  }
  fill_recursions(s);
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

template <class T>
Workspace<T>::Workspace(const Tables<T>& tables)
    : tables_(tables), d_(tables.definition), products_(d_.products()) {
  moments_.resize(static_cast<std::size_t>(d_.num_species) * tables.shape.num_moments);
  adjoints_.resize(static_cast<std::size_t>(products_.num_nodes) * kCenters);
  features_.resize(d_.features.size());
}

/// Sorts the edges of a center by species and finds their place in the radial tables.
template <class T>
void Workspace<T>::load(const Graph& graph, std::size_t center) {
  const std::size_t begin = graph.offsets[center], count = graph.offsets[center + 1] - begin;
  const int* const neighbors = graph.neighbors.data() + begin;
  const int center_species = graph.species[graph.centers[center]];
  counts_.assign(d_.num_species + 1, 0);
  for (std::size_t e = 0; e < count; ++e) ++counts_[graph.species[neighbors[e]] + 1];
  for (int s = 0; s < d_.num_species; ++s) counts_[s + 1] += counts_[s];
  order_.resize(count);
  for (std::size_t e = 0; e < count; ++e) order_[counts_[graph.species[neighbors[e]]]++] = e;

  const std::size_t stride = static_cast<std::size_t>(runs_of(count, kRun<T>)) * kRun<T>;
  T* array = arrays_.resize(8 * stride);
  for (T** a : {&neighbors_.x, &neighbors_.y, &neighbors_.z, &neighbors_.inv_r, &neighbors_.place,
                &neighbors_.vx, &neighbors_.vy, &neighbors_.vz}) {
    *a = array;
    array += stride;
  }
  rows_.resize(stride);
  species_.resize(stride);
  neighbors_.count = static_cast<int>(count);
  neighbors_.table = rows_.data();
  neighbors_.species = species_.data();
  const std::size_t knot_size = 3 * static_cast<std::size_t>(tables_.shape.num_columns);
  const double per_step = (d_.num_knots - 1) / d_.cutoff;
  for (std::size_t k = 0; k < count; ++k) {
    const double* const v = graph.vectors.data() + 3 * (begin + order_[k]);
    const double r = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]), inv_r = 1.0 / r;
    const double steps = std::min(r * per_step, d_.num_knots - 1.0);
    const int knot = std::min(static_cast<int>(steps), d_.num_knots - 2);
    const int species = graph.species[neighbors[order_[k]]];
    const std::size_t table = d_.table_of[center_species * d_.num_species + species];
    neighbors_.x[k] = static_cast<T>(v[0] * inv_r);
    neighbors_.y[k] = static_cast<T>(v[1] * inv_r);
    neighbors_.z[k] = static_cast<T>(v[2] * inv_r);
    neighbors_.inv_r[k] = static_cast<T>(inv_r);
    neighbors_.place[k] = static_cast<T>(steps - knot);
    rows_[k] = tables_.radial.data() + (table * d_.num_knots + knot) * knot_size;
    species_[k] = species;
  }
  for (std::size_t k = count; k < stride; ++k) {
    neighbors_.x[k] = neighbors_.inv_r[k] = T(1);
    neighbors_.y[k] = neighbors_.z[k] = neighbors_.vx[k] = neighbors_.vy[k] = neighbors_.vz[k] = T(0);
  }
}

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

/// The moments of a center, its own included, in moments_; after load().
template <class T>
void Workspace<T>::sum_moments(int center_species) {
  std::fill_n(moments_.data(), moments_.size(), T(0));
  for (int n = 0; n < d_.radial_counts[0]; ++n)
    moments_[center_species * tables_.shape.num_moments + n] =
        static_cast<T>(d_.center[center_species * d_.radial_counts[0] + n]);
  kernels<T>().moments(tables_.shape, neighbors_, moments_.data());
}

/// All nodes of up to kCenters centers; lanes without a center stay finite.
template <class T>
void Workspace<T>::fill_nodes(const Graph& graph, Span<const std::size_t> centers, double* nodes) {
  std::fill_n(nodes, static_cast<std::size_t>(products_.first_target) * kCenters, 0.0);
  for (std::size_t lane = 0; lane < centers.size(); ++lane) {
    load(graph, centers[lane]);
    sum_moments(graph.species[graph.centers[centers[lane]]]);
    nodes[lane] = 1.0;
    moments_to_nodes(static_cast<int>(lane), nodes);
  }
  kernels<double>().products(products_, nodes);
}

/// Norm of the features, or 1 where they are not normalized.
template <class T>
double Workspace<T>::norm(const double* nodes, int lane) const {
  if (!d_.normalize) return 1.0;
  double square = 0.0;
  for (const int node : d_.features) square += nodes[node * kCenters + lane] * nodes[node * kCenters + lane];
  return std::sqrt(square);
}

/// The derivative of p / |p| applied to a vector, which is its own transpose: (v - p (p·v) / |p|²) / |p|.
template <class T>
void Workspace<T>::differentiate_norm(const double* nodes, int lane, double* vector) const {
  if (!d_.normalize) return;
  const double length = norm(nodes, lane);
  double along = 0.0;
  for (std::size_t k = 0; k < d_.features.size(); ++k)
    along += nodes[d_.features[k] * kCenters + lane] * vector[k];
  along /= length * length;
  for (std::size_t k = 0; k < d_.features.size(); ++k)
    vector[k] = (vector[k] - along * nodes[d_.features[k] * kCenters + lane]) / length;
}

template <class T>
void Workspace<T>::forward(const Graph& graph, Span<const std::size_t> centers, double* features,
                           std::size_t stride) {
  const std::size_t size = static_cast<std::size_t>(products_.num_nodes) * kCenters;
  double* nodes = nodes_.resize(runs_of(centers.size(), kCenters) * size);
  for (std::size_t first = 0; first < centers.size(); first += kCenters, nodes += size) {
    const std::size_t count = std::min<std::size_t>(kCenters, centers.size() - first);
    fill_nodes(graph, centers.subspan(first, count), nodes);
    for (std::size_t lane = 0; lane < count; ++lane) {
      const double scale = 1.0 / norm(nodes, static_cast<int>(lane));
      double* const row = features + (first + lane) * stride;
      for (std::size_t k = 0; k < d_.features.size(); ++k)
        row[k] = scale * nodes[d_.features[k] * kCenters + lane];
    }
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
    for (std::size_t lane = 0; lane < count; ++lane) {
      std::copy_n(cotangents + (first + lane) * stride, features_.size(), features_.data());
      differentiate_norm(nodes, static_cast<int>(lane), features_.data());
      for (std::size_t k = 0; k < features_.size(); ++k)
        adjoints_[d_.features[k] * kCenters + lane] += features_[k];
    }
    kernels<double>().products_reverse(products_, nodes, adjoints_.data());
    for (std::size_t lane = 0; lane < count; ++lane) {
      const std::size_t center = centers[first + lane];
      load(graph, center);
      adjoints_to_moments(static_cast<int>(lane), adjoints_.data());
      kernels<T>().reverse(tables_.shape, neighbors_, moments_.data());
      for (std::size_t k = 0; k < order_.size(); ++k) {
        double* const g = &edge_gradients[3 * (graph.offsets[center] + order_[k])];
        g[0] = neighbors_.vx[k];
        g[1] = neighbors_.vy[k];
        g[2] = neighbors_.vz[k];
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
    fill_nodes(graph, batch, nodes);
    std::fill_n(adjoints_.data(), static_cast<std::size_t>(products_.first_target) * kCenters, 0.0);
    for (std::size_t lane = 0; lane < batch.size(); ++lane) {
      load(graph, batch[lane]);
      for (std::size_t k = 0; k < order_.size(); ++k) {
        const double* const v = &directions[3 * (graph.offsets[batch[lane]] + order_[k])];
        neighbors_.vx[k] = static_cast<T>(v[0]);
        neighbors_.vy[k] = static_cast<T>(v[1]);
        neighbors_.vz[k] = static_cast<T>(v[2]);
      }
      std::fill_n(moments_.data(), moments_.size(), T(0));
      kernels<T>().tangent(tables_.shape, neighbors_, moments_.data());
      moments_to_nodes(static_cast<int>(lane), adjoints_.data());
    }
    kernels<double>().products_tangent(products_, nodes, adjoints_.data());
    for (std::size_t lane = 0; lane < batch.size(); ++lane)
      write_tangents(nodes, static_cast<int>(lane), tangents + (first + lane) * stride);
  }
}

template <class T>
void Workspace<T>::write_tangents(const double* nodes, int lane, double* row) const {
  for (std::size_t k = 0; k < d_.features.size(); ++k) row[k] = adjoints_.data()[d_.features[k] * kCenters + lane];
  differentiate_norm(nodes, lane, row);
}

/// Directions take the place of centers: every lane has the same nodes, and one coordinate that moves.
template <class T>
void Workspace<T>::jacobian(const Graph& graph, std::size_t center, double* jacobian, std::size_t stride) {
  double* const nodes = nodes_.resize(static_cast<std::size_t>(products_.num_nodes) * kCenters);
  const std::size_t same[kCenters] = {center, center, center, center, center, center, center, center};
  fill_nodes(graph, {same, 1}, nodes);
  for (std::size_t node = 0; node < static_cast<std::size_t>(products_.num_nodes); ++node)
    std::fill_n(nodes + node * kCenters, kCenters, nodes[node * kCenters]);
  std::fill_n(adjoints_.data(), static_cast<std::size_t>(products_.first_target) * kCenters, 0.0);
  load(graph, center);

  alignas(64) T values[8][kRun<T>] = {};
  Neighbors<T> one{1,       values[0], values[1], values[2], values[3], values[4],
                   nullptr, nullptr,   values[5], values[6], values[7]};
  std::size_t rows[kCenters];
  int lane = 0;
  for (std::size_t k = 0; k < order_.size(); ++k) {
    one.table = neighbors_.table + k;
    one.species = neighbors_.species + k;
    values[0][0] = neighbors_.x[k];
    values[1][0] = neighbors_.y[k];
    values[2][0] = neighbors_.z[k];
    values[3][0] = neighbors_.inv_r[k];
    values[4][0] = neighbors_.place[k];
    for (int axis = 0; axis < 3; ++axis) {
      for (int a = 0; a < 3; ++a) values[5 + a][0] = a == axis ? T(1) : T(0);
      std::fill_n(moments_.data(), moments_.size(), T(0));
      kernels<T>().tangent(tables_.shape, one, moments_.data());
      moments_to_nodes(lane, adjoints_.data());
      rows[lane++] = 3 * order_[k] + axis;
      if (lane < kCenters && !(k + 1 == order_.size() && axis == 2)) continue;
      kernels<double>().products_tangent(products_, nodes, adjoints_.data());
      while (lane > 0) {
        --lane;
        write_tangents(nodes, lane, jacobian + rows[lane] * stride);
      }
    }
  }
}

template struct Tables<float>;
template struct Tables<double>;
template class Workspace<float>;
template class Workspace<double>;

NEARSIGHT_CHOOSE_KERNELS(float, kernels_float)
NEARSIGHT_CHOOSE_KERNELS(double, kernels_double)

}  // namespace ace
}  // namespace nearsight
