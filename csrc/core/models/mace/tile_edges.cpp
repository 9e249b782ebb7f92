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
  const Edges<T>& v = views_[receiver];
  for (std::size_t e = begin; e < end; ++e) {
    const int neighbor = graph.neighbors[e], z = graph.species[neighbor], place = cursor_[slot_of_[z]]++;
    edges_[first_[receiver] + place] = {static_cast<std::int64_t>(e), neighbor, z, 0.0};
    for (int a = 0; a < 3; ++a) v.vectors[a][place] = graph.vectors[3 * e + a];
  }
  for (int e = v.count; e < v.stride; ++e) {
    v.vectors[0][e] = 1.0;
    v.vectors[1][e] = v.vectors[2][e] = 0.0;
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
  double* lengths = vectors_.resize(padded * 4);
  int* knots = knots_.resize(padded);
  for (int p = 0; p < count; ++p) {
    Edges<T>& v = views_[p];
    v.count = static_cast<int>(counts_[p]);
    v.stride = padded_to_runs<T>(counts_[p]);
    const auto take = [&](int rows_of_array) {
      T* const taken = array;
      array += static_cast<std::size_t>(rows_of_array) * v.stride;
      return taken;
    };
    for (double*& component : v.vectors) component = lengths, lengths += v.stride;
    v.r = lengths, lengths += v.stride;
    v.knots = knots, knots += v.stride;
    v.x = take(1), v.y = take(1), v.z = take(1), v.inv_r = take(1);
    v.gx = take(1), v.gy = take(1), v.gz = take(1), v.slopes = take(1);
    v.weights = take(4 * kJet);
    v.harmonics = take(kMaxHarmonics);
    v.harmonic_adjoints = take(kMaxHarmonics);
    v.tables = tables_.data() + first_[p];
    v.features = features_.data() + first_[p];
    v.adjoints = adjoints_.data() + first_[p];
    sort(graph, rows[p], p);
    kernels<T>().geometry(engine.grid().scale(), engine.is_analytic(), v);
    kernels<T>().harmonics(engine.harmonics(), v);
  }
}

template <class T>
void TileEdges<T>::choose_layer(const Engine<T>& engine, int t) {
  if (engine.is_analytic()) return evaluate_functions(engine, t);
  const std::ptrdiff_t knot = kJet * engine.layer(t).width;
  group_stride_ = knot * (engine.grid().intervals() + 1);
  for (int p = 0; p < size(); ++p)
    for (std::size_t slot = 0; slot < present_.size(); ++slot) {
      const T* const table = engine.radial(t, species_[p], present_[slot]).functions.data();
      for (int e = bounds(p)[slot]; e < bounds(p)[slot + 1]; ++e)
        tables_[first_[p] + e] = table + views_[p].knots[e] * knot;
    }
}

/// A table whose knots are the edges.
template <class T>
void TileEdges<T>::evaluate_functions(const Engine<T>& engine, int t) {
  const std::ptrdiff_t knot = kJet * engine.layer(t).width;
  group_stride_ = knot * (edges_.size() + 1);
  T* const values = functions_.resize(engine.layer(t).groups * group_stride_);
  std::fill_n(values, engine.layer(t).groups * group_stride_, T(0));
  std::vector<double> distances;
  for (const Edges<T>& v : views_)
    for (int e = 0; e < v.count; ++e) distances.push_back(std::max(v.r[e], engine.grid().first()));
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
