#include "core/models/ani/ani.hpp"

#include <algorithm>
#include <cmath>

#include "core/models/shared/denormals.hpp"

namespace nearsight {
namespace ani {

template <class T>
struct Workspace<T>::Neighborhood {
  struct Arrays {
    AlignedBuffer<T> values;
    std::vector<int> first, count, fill, edge;  // edge: number of each entry among the center's, -1: padding
  };
  std::size_t num_edges;
  Shells<T> shells;
  Arrays arrays[2];  // radial, angular

  Shell<T>& shell(int which) { return which == 0 ? shells.radial : shells.angular; }
};

template <class T>
Workspace<T>::Workspace(const Constants& c) : constants_(c) {
  radial_shifts_.assign(c.radial_shifts.begin(), c.radial_shifts.end());
  angular_shifts_.assign(c.angular_shifts.begin(), c.angular_shifts.end());
  for (const double angle : c.angles) {
    cos_angles_.push_back(static_cast<T>(std::cos(angle)));
    sin_angles_.push_back(static_cast<T>(std::sin(angle)));
  }
  terms_ = {
      c.cutoff_function,
      c.num_species,
      {T(c.radial_eta), static_cast<int>(radial_shifts_.size()), radial_shifts_.data()},
      {T(c.angular_eta), T(c.zeta), static_cast<int>(angular_shifts_.size()),
       static_cast<int>(cos_angles_.size()), angular_shifts_.data(), cos_angles_.data(), sin_angles_.data()}};
}

template <class T>
Workspace<T>::~Workspace() = default;

template <class T>
void Workspace<T>::load(const Graph& graph, std::size_t c, Neighborhood& n) {
  const std::size_t begin = graph.offsets[c];
  n.num_edges = graph.offsets[c + 1] - begin;
  distances_.resize(n.num_edges);
  for (std::size_t e = 0; e < n.num_edges; ++e) {
    const double* const v = &graph.vectors[3 * (begin + e)];
    distances_[e] = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
  }
  for (const int which : {0, 1}) {
    fill(graph, c, which, n);
    kernels<T>().prepare(constants_.cutoff_function, n.shell(which));
  }
}

template <class T>
void Workspace<T>::fill(const Graph& graph, std::size_t c, int which, Neighborhood& n) const {
  const double cutoff = which == 0 ? constants_.radial_cutoff : constants_.angular_cutoff;
  const int* const neighbors = graph.neighbors.data() + graph.offsets[c];
  const double* const vectors = graph.vectors.data() + 3 * graph.offsets[c];
  auto& a = n.arrays[which];
  Shell<T>& s = n.shell(which);
  a.count.assign(constants_.num_species, 0);
  for (std::size_t e = 0; e < n.num_edges; ++e)
    if (distances_[e] < cutoff) ++a.count[graph.species[neighbors[e]]];
  a.first.clear();
  s.stride = 0;
  for (const int count : a.count) {
    a.first.push_back(s.stride);
    s.stride += padded(count);
  }
  s.cutoff = T(cutoff);
  s.first = a.first.data();
  s.count = a.count.data();
  T* p = a.values.resize(static_cast<std::size_t>(s.stride) * 11);
  for (T** array : {&s.x, &s.y, &s.z, &s.r, &s.inv_r, &s.fc, &s.dfc, &s.gx, &s.gy, &s.gz, &s.gr}) {
    *array = p;
    p += s.stride;
  }
  // Padding lies beyond the cutoff, where every function is exactly zero.
  a.edge.assign(s.stride, -1);
  std::fill_n(s.x, s.stride, T(2 * cutoff));
  std::fill_n(s.y, 2 * s.stride, T(0));
  std::fill_n(s.r, s.stride, T(2 * cutoff));
  a.fill = a.first;
  for (std::size_t e = 0; e < n.num_edges; ++e) {
    if (!(distances_[e] < cutoff)) continue;
    const int k = a.fill[graph.species[neighbors[e]]]++;
    s.x[k] = T(vectors[3 * e]);
    s.y[k] = T(vectors[3 * e + 1]);
    s.z[k] = T(vectors[3 * e + 2]);
    s.r[k] = T(distances_[e]);
    a.edge[k] = static_cast<int>(e);
  }
}

/// Gives the kernels room for the largest neighborhood.
template <class T>
void Workspace<T>::set_room(Neighborhood& n) {
  std::size_t neighbors = 0;
  for (const int count : n.arrays[1].count) neighbors += count;
  const std::size_t functions = std::max(terms_.radial.num_shifts, constants_.functions_of_pair());
  const std::size_t angles = 2 * terms_.angular.num_angles;
  n.shells.pair_stride = padded(static_cast<int>(neighbors * (neighbors + 1) / 2)) + kPad;
  n.shells.sums = work_.resize((functions + angles) * kPad + 6 * n.shells.pair_stride);
  n.shells.angles = n.shells.sums + functions * kPad;
  n.shells.pairs = n.shells.angles + angles * kPad;
}

/// Species and pairs of species among the neighbors.
template <class T>
void Workspace<T>::mark_active(const Neighborhood& n) {
  const int species = constants_.num_species;
  const std::vector<int>&radial = n.arrays[0].count, &angular = n.arrays[1].count;
  for (int a = 0, pair = species; a < species; ++a) {
    seen_[a] |= radial[a] > 0;
    for (int b = a; b < species; ++b, ++pair)
      seen_[pair] |= a == b ? angular[a] > 1 : angular[a] && angular[b];
  }
}

template <class T>
void Workspace<T>::collect_active() {
  active_.clear();
  int first = 0;
  for (int n = 0; n < static_cast<int>(seen_.size()); ++n) {
    const int size = n < constants_.num_species ? terms_.radial.num_shifts : constants_.functions_of_pair();
    if (seen_[n] && !active_.empty() && active_.back().last == first)
      active_.back().last += size;
    else if (seen_[n])
      active_.push_back({first, first + size});
    first += size;
  }
}

template <class T>
void Workspace<T>::forward(const Graph& graph, Span<const std::size_t> centers, double* features,
                           std::size_t stride) {
  const FlushDenormals flush;
  prepare(graph, centers, features, stride);
  for (std::size_t k = 0; k < centers.size(); ++k) {
    Neighborhood& n = *neighborhoods_[k];
    set_room(n);
    std::fill_n(features + k * stride, constants_.num_features(), 0.0);
    kernels<T>().features(terms_, n.shells, features + k * stride);
  }
}

template <class T>
void Workspace<T>::prepare(const Graph& graph, Span<const std::size_t> centers, double*, std::size_t) {
  while (neighborhoods_.size() < centers.size()) neighborhoods_.push_back(std::make_unique<Neighborhood>());
  seen_.assign(constants_.num_species + constants_.num_pairs(), 0);
  for (std::size_t k = 0; k < centers.size(); ++k) {
    load(graph, centers[k], *neighborhoods_[k]);
    mark_active(*neighborhoods_[k]);
  }
  collect_active();
}

template <class T>
void Workspace<T>::reverse(const Graph& graph, Span<const std::size_t> centers, const double* cotangents,
                           std::size_t stride, Span<double> edge_gradients) {
  const FlushDenormals flush;
  cotangents_.resize(constants_.num_features());
  for (std::size_t k = 0; k < centers.size(); ++k) {
    Neighborhood& n = *neighborhoods_[k];
    set_room(n);
    for (const Range range : active_)
      for (int f = range.first; f < range.last; ++f)
        cotangents_[f] = static_cast<T>(cotangents[k * stride + f]);
    kernels<T>().reverse(terms_, n.shells, cotangents_.data());

    double* const gradients = edge_gradients.data() + 3 * graph.offsets[centers[k]];
    std::fill_n(gradients, 3 * n.num_edges, 0.0);
    for (const int which : {0, 1}) {
      const Shell<T>& s = n.shell(which);
      const std::vector<int>& edge = n.arrays[which].edge;
      for (int i = 0; i < s.stride; ++i) {
        if (edge[i] < 0) continue;
        gradients[3 * edge[i]] += s.gx[i];
        gradients[3 * edge[i] + 1] += s.gy[i];
        gradients[3 * edge[i] + 2] += s.gz[i];
      }
    }
  }
}

template <class T>
void Workspace<T>::tangent(const Graph& graph, Span<const std::size_t> centers, Span<const double> directions,
                           double* tangents, std::size_t stride) {
  const FlushDenormals flush;
  Neighborhood n;
  for (std::size_t k = 0; k < centers.size(); ++k) {
    load(graph, centers[k], n);
    set_room(n);
    const double* const v = directions.data() + 3 * graph.offsets[centers[k]];
    for (const int which : {0, 1}) {
      Shell<T>& s = n.shell(which);
      const std::vector<int>& edge = n.arrays[which].edge;
      std::fill_n(s.gx, 3 * s.stride, T(0));
      for (int i = 0; i < s.stride; ++i) {
        if (edge[i] < 0) continue;
        s.gx[i] = T(v[3 * edge[i]]);
        s.gy[i] = T(v[3 * edge[i] + 1]);
        s.gz[i] = T(v[3 * edge[i] + 2]);
      }
    }
    std::fill_n(tangents + k * stride, constants_.num_features(), 0.0);
    kernels<T>().tangent(terms_, n.shells, tangents + k * stride);
  }
}

template class Workspace<float>;
template class Workspace<double>;

NEARSIGHT_CHOOSE_KERNELS(float)
NEARSIGHT_CHOOSE_KERNELS(double)

}  // namespace ani
}  // namespace nearsight
