#pragma once
// What the parts of a worker share: the rows of a tile, its features, products of matrices.
#include <algorithm>

#include "core/models/mace/worker.hpp"

namespace nearsight {
namespace mace {

template <class T>
struct MaceWorker<T>::Scratch {
  TileEdges<T> edges;
  AlignedBuffer<T> sums, messages, message_adjoints, products, hidden, phi, adjoints;
  std::vector<double> inputs;  // of the last dense layer of a readout, one row
  static constexpr std::size_t kNothing = -1;
  std::size_t loaded = kNothing;  // first row of the tile whose edges are here
};

/// Rows first … last - 1 of a tile have one species.
struct SpeciesRun {
  int species, first, last;
};

template <class T>
struct MaceWorker<T>::Pass {
  int t;
  const Graph& graph;
  const Tile& tile;
  Scratch& scratch;
  const Layer& layer;
  const LayerTables<T>& tables;
  const int* rows;  // centers
  std::vector<SpeciesRun> runs;

  Pass(MaceWorker& worker, int layer_number, const Graph& g, const Tile& one, Scratch& own)
      : t(layer_number),
        graph(g),
        tile(one),
        scratch(own),
        layer(worker.d_.layers[t]),
        tables(worker.engine_.layer(t)),
        rows(worker.order_.data() + one.first) {
    for (int p = 0; p < tile.count; ++p) {
      const int z = graph.species[graph.centers[rows[p]]];
      if (runs.empty() || runs.back().species != z) runs.push_back({z, p, p});
      runs.back().last = p + 1;
    }
  }

  /// Edges stay from layer to layer where a thread has but one tile.
  void load(const Engine<T>& engine) const {
    if (scratch.loaded == tile.first) return;
    scratch.edges.load(engine, graph, rows, tile.count);
    scratch.loaded = tile.first;
  }
};

/// Where the components of a tile's features are.
struct Layout {
  std::vector<int> offset, stride;

  Layout(const Irreps& irreps, int rows, int channels) {
    for (const Irrep& irrep : irreps)
      for (int m = 0; m < irrep.size(); ++m) {
        offset.push_back((irrep.first * rows + m) * channels);
        stride.push_back(irrep.size() * channels);
      }
  }

  template <class T>
  Components<T> of(T* features) const {
    return {features, offset.data(), stride.data()};
  }
};

/// A product for one irrep of rows first … last - 1 of a tile, from features x to features y of other irreps.
template <class T>
void map_rows(const Panels<T>& panels, int count, int first, int last, int channels, const Irrep& from,
              const T* x, const Irrep& to, T* y, bool add) {
  const int size = from.size();
  multiply((last - first) * size, x + (from.first * count + first * size) * channels, channels, panels,
           y + (to.first * count + first * size) * channels, channels, add);
}

}  // namespace mace
}  // namespace nearsight
