#include "core/models/ani/ani.hpp"

#include <algorithm>
#include <cmath>

#include "core/models/shared/denormals.hpp"

namespace nearsight {
namespace ani {

template <class T>
struct Workspace<T>::ShellArrays {
  AlignedBuffer<T> values;
  std::vector<int> first, count, fill, edge;  // edge: number of each entry among the center's, -1 for padding
};

template <class T>
Workspace<T>::Workspace(const Constants& c) : constants_(c) {
  radial_shifts_.assign(c.radial_shifts.begin(), c.radial_shifts.end());
  angular_shifts_.assign(c.angular_shifts.begin(), c.angular_shifts.end());
  for (const double angle : c.angles) {
    cos_angles_.push_back(static_cast<T>(std::cos(angle)));
    sin_angles_.push_back(static_cast<T>(std::sin(angle)));
  }
  const int num_radial = static_cast<int>(radial_shifts_.size());
  const int num_shifts = static_cast<int>(angular_shifts_.size());
  const int num_angles = static_cast<int>(cos_angles_.size());
  terms_ = {c.cutoff_function,
            c.num_species,
            {T(c.radial_eta), num_radial, radial_shifts_.data()},
            {T(c.angular_eta), T(c.zeta), num_shifts, num_angles, angular_shifts_.data(), cos_angles_.data(),
             sin_angles_.data()}};
  shells_.work = work_.resize(
      kPad * static_cast<std::size_t>(std::max(num_radial, num_shifts * num_angles) + 3 * num_angles));
  for (auto& arrays : arrays_) arrays = std::make_unique<ShellArrays>();
}

template <class T>
Workspace<T>::~Workspace() = default;

template <class T>
void Workspace<T>::load(const Graph& graph, std::size_t c) {
  const std::size_t begin = graph.offsets[c];
  num_edges_ = graph.offsets[c + 1] - begin;
  distances_.resize(num_edges_);
  for (std::size_t e = 0; e < num_edges_; ++e) {
    const double* const v = &graph.vectors[3 * (begin + e)];
    distances_[e] = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
  }
  fill(shells_.radial, *arrays_[0], constants_.radial_cutoff, graph, begin);
  fill(shells_.angular, *arrays_[1], constants_.angular_cutoff, graph, begin);
}

template <class T>
void Workspace<T>::fill(Shell<T>& s, ShellArrays& a, double cutoff, const Graph& graph, std::size_t begin) {
  const int* const neighbors = graph.neighbors.data() + begin;
  const double* const vectors = graph.vectors.data() + 3 * begin;
  a.count.assign(constants_.num_species, 0);
  for (std::size_t e = 0; e < num_edges_; ++e)
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
  std::fill_n(s.y, s.stride, T(0));
  std::fill_n(s.z, s.stride, T(0));
  std::fill_n(s.r, s.stride, T(2 * cutoff));
  a.fill = a.first;
  for (std::size_t e = 0; e < num_edges_; ++e) {
    if (!(distances_[e] < cutoff)) continue;
    const int k = a.fill[graph.species[neighbors[e]]]++;
    s.x[k] = T(vectors[3 * e]);
    s.y[k] = T(vectors[3 * e + 1]);
    s.z[k] = T(vectors[3 * e + 2]);
    s.r[k] = T(distances_[e]);
    a.edge[k] = static_cast<int>(e);
  }
  kernels<T>().prepare(constants_.cutoff_function, s);
}

/// Species and pairs of species among the neighbors of this center.
template <class T>
void Workspace<T>::mark_active(std::vector<char>& seen) const {
  const int species = constants_.num_species;
  const std::vector<int>&radial = arrays_[0]->count, &angular = arrays_[1]->count;
  for (int a = 0, pair = species; a < species; ++a) {
    seen[a] |= radial[a] > 0;
    for (int b = a; b < species; ++b, ++pair)
      seen[pair] |= a == b ? angular[a] > 1 : angular[a] && angular[b];
  }
}

template <class T>
void Workspace<T>::collect_active(const std::vector<char>& seen) {
  active_.clear();
  int first = 0;
  for (std::size_t n = 0; n < seen.size(); ++n) {
    const int size = static_cast<int>(n) < constants_.num_species ? terms_.radial.num_shifts
                                                                  : constants_.functions_of_pair();
    if (seen[n] && !active_.empty() && active_.back().last == first)
      active_.back().last += size;
    else if (seen[n])
      active_.push_back({first, first + size});
    first += size;
  }
}

template <class T>
void Workspace<T>::forward(const Graph& graph, Span<const std::size_t> centers, double* features,
                           std::size_t stride) {
  const FlushDenormals flush;
  seen_.assign(constants_.num_species + constants_.num_pairs(), 0);
  for (std::size_t k = 0; k < centers.size(); ++k) {
    load(graph, centers[k]);
    std::fill_n(features + k * stride, constants_.num_features(), 0.0);
    kernels<T>().features(terms_, shells_, features + k * stride);
    mark_active(seen_);
  }
  collect_active(seen_);
}

template <class T>
void Workspace<T>::reverse(const Graph& graph, Span<const std::size_t> centers, const double* cotangents,
                           std::size_t stride, Span<double> edge_gradients) {
  const FlushDenormals flush;
  cotangents_.resize(constants_.num_features());
  for (std::size_t k = 0; k < centers.size(); ++k) {
    load(graph, centers[k]);
    for (const Range range : active_)
      for (int n = range.first; n < range.last; ++n)
        cotangents_[n] = static_cast<T>(cotangents[k * stride + n]);
    kernels<T>().reverse(terms_, shells_, cotangents_.data());

    double* const gradients = edge_gradients.data() + 3 * graph.offsets[centers[k]];
    std::fill_n(gradients, 3 * num_edges_, 0.0);
    for (const auto* const shell : {&shells_.radial, &shells_.angular}) {
      const std::vector<int>& edge = arrays_[shell == &shells_.angular]->edge;
      for (int n = 0; n < shell->stride; ++n) {
        if (edge[n] < 0) continue;
        gradients[3 * edge[n]] += shell->gx[n];
        gradients[3 * edge[n] + 1] += shell->gy[n];
        gradients[3 * edge[n] + 2] += shell->gz[n];
      }
    }
  }
}

template <class T>
void Workspace<T>::tangent(const Graph& graph, Span<const std::size_t> centers, Span<const double> directions,
                           double* tangents, std::size_t stride) {
  const FlushDenormals flush;
  for (std::size_t k = 0; k < centers.size(); ++k) {
    load(graph, centers[k]);
    const double* const v = directions.data() + 3 * graph.offsets[centers[k]];
    for (const auto* const shell : {&shells_.radial, &shells_.angular}) {
      const std::vector<int>& edge = arrays_[shell == &shells_.angular]->edge;
      for (int n = 0; n < shell->stride; ++n) {
        if (edge[n] < 0) continue;
        shell->gx[n] = T(v[3 * edge[n]]);
        shell->gy[n] = T(v[3 * edge[n] + 1]);
        shell->gz[n] = T(v[3 * edge[n] + 2]);
      }
    }
    std::fill_n(tangents + k * stride, constants_.num_features(), 0.0);
    kernels<T>().tangent(terms_, shells_, tangents + k * stride);
  }
}

template class Workspace<float>;
template class Workspace<double>;

NEARSIGHT_CHOOSE_KERNELS(float, kernels_float)
NEARSIGHT_CHOOSE_KERNELS(double, kernels_double)

}  // namespace ani
}  // namespace nearsight
