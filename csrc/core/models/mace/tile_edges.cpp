#include "core/models/mace/tile_edges.hpp"

#include <algorithm>
#include <cmath>

namespace nearsight {
namespace mace {
namespace {

// Arrays of an edge: unit vector, 1/r, gradient, slope; then weights, harmonics and their adjoints.
constexpr int kSingles = 8;
constexpr int kArrays = kSingles + 4 * kJet + 2 * kMaxHarmonics;

template <class T>
int padded_to_runs(std::size_t count) {
  return static_cast<int>((count + kRun<T> - 1) / kRun<T> * kRun<T>);
}

}  // namespace

template <class T>
void TileEdges<T>::find_species(const Graph& graph, const int* rows, int count, int num_species) {
  slot_of_.assign(num_species, -1);
  present_.clear();
  for (int p = 0; p < count; ++p)
    for (auto e = graph.offsets[rows[p]]; e < graph.offsets[rows[p] + 1]; ++e)
      slot_of_[graph.species[graph.neighbors[e]]] = 0;
  for (int z = 0; z < num_species; ++z)
    if (slot_of_[z] == 0) {
      slot_of_[z] = static_cast<int>(present_.size());
      present_.push_back(z);
    }
}

/// A counting sort by species.
template <class T>
void TileEdges<T>::sort(const Graph& graph, int center, int receiver) {
  const std::size_t slots = present_.size(), begin = graph.offsets[center], end = graph.offsets[center + 1];
  int* const bounds = bounds_.data() + receiver * (slots + 1);
  std::fill_n(bounds, slots + 1, 0);
  for (std::size_t e = begin; e < end; ++e) ++bounds[slot_of_[graph.species[graph.neighbors[e]]] + 1];
  for (std::size_t s = 0; s < slots; ++s) bounds[s + 1] += bounds[s];
  cursor_.assign(bounds, bounds + slots);
  for (std::size_t e = begin; e < end; ++e) {
    const int neighbor = graph.neighbors[e], z = graph.species[neighbor];
    edges_[first_[receiver] + cursor_[slot_of_[z]]++] = {static_cast<std::int64_t>(e), neighbor, z, 0, 0, {}};
  }
}

template <class T>
void TileEdges<T>::load(const Engine<T>& engine, const Graph& graph, const int* rows, int count) {
  find_species(graph, rows, count, engine.definition().num_species());
  views_.resize(count);
  first_.resize(count);
  counts_.resize(count);
  species_.resize(count);
  bounds_.resize(count * (present_.size() + 1));
  std::size_t total = 0, padded = 0;
  longest_ = 0;
  for (int p = 0; p < count; ++p) {
    first_[p] = total;
    counts_[p] = graph.offsets[rows[p] + 1] - graph.offsets[rows[p]];
    species_[p] = graph.species[graph.centers[rows[p]]];
    total += counts_[p];
    padded += padded_to_runs<T>(counts_[p]);
    longest_ = std::max(longest_, padded_to_runs<T>(counts_[p]));
  }
  edges_.resize(total);
  tables_.resize(total);
  features_.resize(total);
  adjoints_.resize(total);
  T* array = arrays_.resize(padded * kArrays);
  for (int p = 0; p < count; ++p) {
    Edges<T>& v = views_[p];
    v.count = static_cast<int>(counts_[p]);
    v.stride = padded_to_runs<T>(counts_[p]);
    const auto take = [&](int rows_of_array) {
      T* const taken = array;
      array += static_cast<std::size_t>(rows_of_array) * v.stride;
      return taken;
    };
    v.x = take(1), v.y = take(1), v.z = take(1), v.inv_r = take(1);
    v.gx = take(1), v.gy = take(1), v.gz = take(1), v.slopes = take(1);
    v.weights = take(4 * kJet);
    v.harmonics = take(kMaxHarmonics);
    v.harmonic_adjoints = take(kMaxHarmonics);
    v.tables = tables_.data() + first_[p];
    v.features = features_.data() + first_[p];
    v.adjoints = adjoints_.data() + first_[p];
    sort(graph, rows[p], p);
    fill(engine, graph, p);
    kernels<T>().harmonics(engine.harmonics(), v);
  }
}

/// Geometry in double, rounded at the end.
template <class T>
void TileEdges<T>::fill(const Engine<T>& engine, const Graph& graph, int receiver) {
  const Edges<T>& v = views_[receiver];
  for (int e = 0; e < v.count; ++e) {
    Edge& edge = edges_[first_[receiver] + e];
    const double* const d = &graph.vectors[3 * edge.number];
    edge.r = std::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
    edge.place = engine.grid().locate(edge.r);
    const double inverse = 1 / edge.r;
    v.x[e] = static_cast<T>(d[0] * inverse);
    v.y[e] = static_cast<T>(d[1] * inverse);
    v.z[e] = static_cast<T>(d[2] * inverse);
    v.inv_r[e] = static_cast<T>(inverse);
    double w[4 * kJet];
    Grid::Place place = edge.place;
    if (engine.is_analytic()) place.within = 0.0;  // the table's knots are the edges
    hermite_weights(place, w);
    // Closer than the tables begin, the functions stay as they are there.
    if (edge.r < engine.grid().first()) std::fill_n(w + 2 * kJet, 2 * kJet, 0.0);
    for (int k = 0; k < 4 * kJet; ++k) v.weights[k * v.stride + e] = static_cast<T>(w[k]);
  }
  for (int e = v.count; e < v.stride; ++e) {
    v.x[e] = v.inv_r[e] = T(1);
    v.y[e] = v.z[e] = T(0);
    for (int k = 0; k < 4 * kJet; ++k) v.weights[k * v.stride + e] = T(0);
  }
}

template <class T>
void TileEdges<T>::choose_layer(const Engine<T>& engine, int t) {
  if (engine.is_analytic()) return evaluate_functions(engine, t);
  const std::ptrdiff_t knot = kJet * engine.layer(t).width;
  group_stride_ = knot * (engine.grid().intervals() + 1);
  for (int p = 0; p < size(); ++p)
    for (std::size_t e = first_[p]; e < first_[p] + counts_[p]; ++e)
      tables_[e] =
          engine.radial(t, species_[p], edges_[e].species).functions.data() + edges_[e].place.knot * knot;
}

/// A table whose knots are the edges.
template <class T>
void TileEdges<T>::evaluate_functions(const Engine<T>& engine, int t) {
  const std::ptrdiff_t knot = kJet * engine.layer(t).width;
  group_stride_ = knot * (edges_.size() + 1);
  T* const values = functions_.resize(engine.layer(t).groups * group_stride_);
  std::fill_n(values, engine.layer(t).groups * group_stride_, T(0));
  std::vector<double> distances;
  for (const Edge& edge : edges_) distances.push_back(std::max(edge.r, engine.grid().first()));
  for (std::size_t e = 0; e < edges_.size(); ++e) tables_[e] = values + e * knot;
  for (int p = 0; p < size(); ++p)
    for (std::size_t slot = 0; slot < present_.size(); ++slot) {
      const std::size_t begin = first_[p] + bounds(p)[slot], end = first_[p] + bounds(p)[slot + 1];
      if (begin < end)
        engine.fill_knots(t, {distances.data() + begin, end - begin},
                          engine.pair(species_[p], present_[slot]), values + begin * knot, group_stride_);
    }
}

template <class T>
void TileEdges<T>::choose_features(const T* features, T* adjoints, int width) {
  for (std::size_t e = 0; e < edges_.size(); ++e) {
    features_[e] = features + static_cast<std::size_t>(edges_[e].neighbor) * width;
    adjoints_[e] = adjoints + static_cast<std::size_t>(edges_[e].neighbor) * width;
  }
}

template <class T>
void TileEdges<T>::clear_adjoints() {
  for (const Edges<T>& v : views_) {
    std::fill_n(v.harmonic_adjoints, kMaxHarmonics * v.stride, T(0));
    std::fill_n(v.slopes, v.stride, T(0));
  }
  for (Edge& edge : edges_) edge.slope = 0.0;
}

template class TileEdges<float>;
template class TileEdges<double>;

}  // namespace mace
}  // namespace nearsight
