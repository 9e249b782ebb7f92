#include "core/models/mace/worker.hpp"

#include <cmath>

#include "core/engine/error.hpp"
#include "core/engine/warning.hpp"
#include "core/models/mace/pairs.hpp"
#include "core/models/mace/pass.hpp"
#include "core/models/shared/denormals.hpp"

namespace nearsight {
namespace mace {

template <class T>
MaceWorker<T>::MaceWorker(const Engine<T>& engine, const WorkerOptions& options)
    : engine_(engine),
      d_(engine.definition()),
      channels_(engine.channels()),
      exchange_(options.exchange),
      threads_(options.num_threads),
      known_(d_.num_species(), false),
      kept_(d_.layers.size()) {
  for (int k = 0; k < threads_.size(); ++k) scratch_.push_back(std::make_unique<Scratch>());
}
template <class T>
MaceWorker<T>::~MaceWorker() = default;

/// Tiles of owned rows, then of ghosts; in each the rows by species.
template <class T>
void MaceWorker<T>::split(const Graph& graph) {
  tiles_.clear();
  for (const auto& scratch : scratch_) scratch->loaded = Scratch::kNothing;
  order_.resize(graph.centers.size());
  const auto add = [&](std::size_t begin, std::size_t end, bool owned) {
    for (std::size_t first = begin; first < end; first += kTile) {
      const int count = static_cast<int>(std::min<std::size_t>(kTile, end - first));
      tiles_.push_back({first, count, owned});
      for (int k = 0; k < count; ++k) order_[first + k] = static_cast<int>(first + k);
      std::stable_sort(order_.begin() + first, order_.begin() + first + count, [&](int a, int b) {
        return graph.species[graph.centers[a]] < graph.species[graph.centers[b]];
      });
    }
  };
  add(0, graph.num_rows, true);
  add(graph.num_rows, graph.centers.size(), false);
}

template <class T>
void MaceWorker<T>::require(const Graph& graph) {
  bool is_new = false;
  const auto see = [&](int atom) {
    const int z = graph.species[atom];
    if (known_[z]) return;
    known_[z] = is_new = true;
    species_.push_back(z);
  };
  for (const int atom : graph.centers) see(atom);
  for (const int atom : graph.neighbors) see(atom);
  if (is_new) engine_.require(species_);
}

template <class T>
template <class Body>
void MaceWorker<T>::for_tiles(bool only_owned, const Body& body) {
  std::size_t count = tiles_.size();
  while (only_owned && count > 0 && !tiles_[count - 1].owned) --count;
  threads_.split(count, [&](int thread, std::size_t first, std::size_t last) {
    const FlushDenormals flush;
    for (std::size_t k = first; k < last; ++k) body(tiles_[k], *scratch_[thread]);
  });
}

template <class T>
void MaceWorker<T>::forward(const Graph& graph, Span<double> readouts) {
  split(graph);
  require(graph);
  const int layers = static_cast<int>(d_.layers.size());
  std::fill_n(readouts.data(), readouts.size(), 0.0);
  for (std::size_t row = 0; row < graph.num_rows; ++row)
    readouts[row * d_.columns] = d_.shift[graph.species[graph.centers[row]]];
  for (int t = 0; t < layers; ++t) {
    Kept& kept = kept_[t];
    const std::size_t rows = t + 1 < layers ? graph.centers.size() : graph.num_rows;
    kept.messages.resize(rows * num_components(d_.layers[t].message) * channels_);
    kept.features.resize(rows * num_components(d_.layers[t].output) * channels_);
    kept.inverse_density.resize(rows);
    if (t + 1 < layers) {
      AlignedBuffer<T>& sources = kept_[t + 1].sources;
      sources.resize(graph.species.size() * num_components(d_.layers[t].output) * channels_);
      // Of ghosts come from their owners, but without an exchange the outermost ones are no centers: what
      // their neighbors make of them reaches no owned atom.
      if (graph.centers.size() < graph.species.size() && !exchange_)
        std::fill_n(sources.data(), sources.size(), T(0));
    }
    if (t > 0 && exchange_)
      exchange_->forward({kept.sources.data(), num_components(d_.layers[t].input) * channels_,
                          std::is_same<T, double>::value});
    for_tiles(t + 1 == layers, [&](const Tile& tile, Scratch& scratch) {
      forward_tile(Pass(*this, t, graph, tile, scratch), readouts);
    });
  }
  check_readouts(graph, readouts);
}

template <class T>
void MaceWorker<T>::forward_tile(const Pass& pass, Span<double> readouts) {
  Scratch& s = pass.scratch;
  const int count = pass.tile.count;
  pass.load(engine_);
  s.edges.choose_layer(engine_, pass.t);
  const std::size_t inputs = num_components(pass.layer.message), outputs = num_components(pass.layer.output);
  T* const messages = kept_[pass.t].messages.data() + pass.tile.first * inputs * channels_;
  combine(pass, messages);
  const Layout in(pass.layer.message, count, channels_), out(pass.layer.output, count, channels_);
  T* const products = s.products.resize(count * outputs * channels_);
  for (const SpeciesRun& run : pass.runs) {
    const AlignedBuffer<T>& weights = engine_.species(pass.t, run.species).weights;
    kernels<T>().products({&pass.tables.polynomials,
                           weights.data(),
                           pass.tables.trees.num_weights,
                           channels_,
                           run.first,
                           run.last,
                           in.of(messages),
                           out.of(products),
                           {}});
  }
  update(pass, products);
  if (pass.tile.owned) read_out(pass, readouts);
  if (pass.t + 1 < static_cast<int>(d_.layers.size())) send(pass);
}

/// Messages m, with density and selection.
template <class T>
void MaceWorker<T>::combine(const Pass& pass, T* messages) {
  const bool selects = pass.layer.select[0] != nullptr;
  const int count = pass.tile.count, components = num_components(pass.layer.message);
  T* const raw = selects ? pass.scratch.messages.resize(count * components * channels_) : messages;
  if (pass.t == 0)
    first_messages(pass, raw);
  else
    later_messages(pass, raw);
  if (!pass.layer.density.empty()) normalize(pass, raw);
  if (!selects) return;
  for (const SpeciesRun& run : pass.runs)
    for (std::size_t k = 0; k < pass.layer.message.size(); ++k) {
      const Irrep& irrep = pass.layer.message[k];
      map_rows(engine_.species(pass.t, run.species).select[k].forward, count, run.first, run.last, channels_,
               irrep, raw, irrep, messages, false);
    }
}

/// New features h from the products.
template <class T>
void MaceWorker<T>::update(const Pass& pass, const T* products) {
  const int count = pass.tile.count;
  const std::size_t outputs = num_components(pass.layer.output), inputs = num_components(pass.layer.input);
  T* const features = kept_[pass.t].features.data() + pass.tile.first * outputs * channels_;
  for (std::size_t k = 0; k < pass.layer.output.size(); ++k) {
    const Irrep& irrep = pass.layer.output[k];
    map_rows(pass.tables.update[k].forward, count, 0, count, channels_, irrep, products, irrep, features,
             false);
  }
  for (const SpeciesRun& run : pass.runs) {
    const SpeciesTables<T>& species = engine_.species(pass.t, run.species);
    if (pass.layer.constant)
      for (int k = run.first * channels_; k < run.last * channels_; ++k)
        features[k] += species.constant.data()[k % channels_];
    for (std::size_t k = 0; k < pass.layer.output.size(); ++k)
      if (pass.layer.skip[k])
        map_rows(species.skip[k].forward, count, run.first, run.last, channels_,
                 pass.layer.input[pass.layer.skip_from[k]],
                 kept_[pass.t - 1].features.data() + pass.tile.first * inputs * channels_,
                 pass.layer.output[k], features, true);
  }
}

/// Rows that neighbors read in the next layer.
template <class T>
void MaceWorker<T>::send(const Pass& pass) {
  const int count = pass.tile.count, components = num_components(pass.layer.output);
  const T* const features =
      kept_[pass.t].features.data() + pass.tile.first * static_cast<std::size_t>(components) * channels_;
  T* const sources = pass.scratch.sums.resize(count * components * channels_);
  for (std::size_t k = 0; k < pass.layer.output.size(); ++k) {
    const Irrep& irrep = pass.layer.output[k];
    map_rows(engine_.layer(pass.t + 1).up[k].forward, count, 0, count, channels_, irrep, features, irrep,
             sources, false);
  }
  for (int p = 0; p < count; ++p) {
    const std::size_t atom = pass.graph.centers[pass.rows[p]];
    T* const row = kept_[pass.t + 1].sources.data() + atom * components * channels_;
    for (const Irrep& irrep : pass.layer.output)
      std::copy_n(sources + (irrep.first * count + p * irrep.size()) * channels_, irrep.size() * channels_,
                  row + irrep.first * channels_);
  }
}

template <class T>
void MaceWorker<T>::sum_adjoints(int t, std::size_t atoms) {
  const std::size_t size = atoms * num_components(d_.layers[t].input) * channels_;
  T* const sum = scratch_[0]->adjoints.data();
  threads_.split(size, [&](int, std::size_t first, std::size_t last) {
    for (std::size_t other = 1; other < scratch_.size(); ++other) {
      const T* const more = scratch_[other]->adjoints.data();
      for (std::size_t k = first; k < last; ++k) sum[k] += more[k];
    }
  });
  if (exchange_)
    exchange_->reverse({sum, num_components(d_.layers[t].input) * channels_, std::is_same<T, double>::value});
}

template <class T>
void MaceWorker<T>::reverse(const Graph& graph, Span<const double> cotangents, Span<double> edge_gradients) {
  std::fill_n(edge_gradients.data(), edge_gradients.size(), 0.0);
  for (std::size_t t = 0; t < d_.layers.size(); ++t) {
    AlignedBuffer<T>& adjoints = kept_[t].adjoints;
    std::fill_n(adjoints.resize(kept_[t].features.size()), kept_[t].features.size(), T(0));
  }
  for (int t = static_cast<int>(d_.layers.size()) - 1; t >= 0; --t) {
    const bool last = t + 1 == static_cast<int>(d_.layers.size());
    const std::size_t width = num_components(d_.layers[t].input) * channels_;
    threads_.run([&](int thread) {
      AlignedBuffer<T>& adjoints = scratch_[thread]->adjoints;
      if (t + 1 < static_cast<int>(d_.layers.size()) && thread == 0) std::swap(received_, adjoints);
      if (t > 0)
        std::fill_n(adjoints.resize(graph.species.size() * width), graph.species.size() * width, T(0));
    });
    for_tiles(last, [&](const Tile& tile, Scratch& scratch) {
      reverse_tile(Pass(*this, t, graph, tile, scratch), cotangents, edge_gradients);
    });
    if (t > 0) sum_adjoints(t, graph.species.size());
  }
}

template <class T>
void MaceWorker<T>::reverse_tile(const Pass& pass, Span<const double> cotangents,
                                 Span<double> edge_gradients) {
  Scratch& s = pass.scratch;
  pass.load(engine_);
  s.edges.choose_layer(engine_, pass.t);
  s.edges.clear_adjoints();
  if (pass.t + 1 < static_cast<int>(d_.layers.size())) receive(pass);
  if (pass.tile.owned) read_out_reverse(pass, cotangents);
  products_reverse(pass);
  normalize_reverse(pass);
  if (pass.t == 0)
    first_messages_reverse(pass);
  else
    later_messages_reverse(pass);
  write_gradients(pass, cotangents, edge_gradients);
}

/// Adds what the next layer's neighbors found to the adjoints of the features.
template <class T>
void MaceWorker<T>::receive(const Pass& pass) {
  const int count = pass.tile.count, components = num_components(pass.layer.output);
  T* const adjoints =
      kept_[pass.t].adjoints.data() + pass.tile.first * static_cast<std::size_t>(components) * channels_;
  T* const sources = pass.scratch.sums.resize(count * components * channels_);
  for (int p = 0; p < count; ++p) {
    const std::size_t atom = pass.graph.centers[pass.rows[p]];
    const T* const row = received_.data() + atom * components * channels_;
    for (const Irrep& irrep : pass.layer.output)
      std::copy_n(row + irrep.first * channels_, irrep.size() * channels_,
                  sources + (irrep.first * count + p * irrep.size()) * channels_);
  }
  for (std::size_t k = 0; k < pass.layer.output.size(); ++k) {
    const Irrep& irrep = pass.layer.output[k];
    map_rows(engine_.layer(pass.t + 1).up[k].reverse, count, 0, count, channels_, irrep, sources, irrep,
             adjoints, true);
  }
}

/// Adjoints of the messages as the sums over edges gave them, but for the density, in the scratch.
template <class T>
void MaceWorker<T>::products_reverse(const Pass& pass) {
  Scratch& s = pass.scratch;
  const int count = pass.tile.count;
  const std::size_t inputs = num_components(pass.layer.message), outputs = num_components(pass.layer.output);
  const T* const adjoints = kept_[pass.t].adjoints.data() + pass.tile.first * outputs * channels_;
  T* const messages = kept_[pass.t].messages.data() + pass.tile.first * inputs * channels_;
  T* const products = s.products.resize(count * outputs * channels_);
  for (std::size_t k = 0; k < pass.layer.output.size(); ++k) {
    const Irrep& irrep = pass.layer.output[k];
    map_rows(pass.tables.update[k].reverse, count, 0, count, channels_, irrep, adjoints, irrep, products,
             false);
  }
  T* const found = s.message_adjoints.resize(count * inputs * channels_);
  const bool selects = pass.layer.select[0] != nullptr;
  T* const target = selects ? s.messages.resize(count * inputs * channels_) : found;
  const Layout in(pass.layer.message, count, channels_), out(pass.layer.output, count, channels_);
  for (const SpeciesRun& run : pass.runs) {
    const SpeciesTables<T>& species = engine_.species(pass.t, run.species);
    kernels<T>().products_reverse({&pass.tables.polynomials, species.weights.data(),
                                   pass.tables.trees.num_weights, channels_, run.first, run.last,
                                   in.of(messages), out.of(products), in.of(target)});
    for (std::size_t k = 0; k < pass.layer.message.size(); ++k)
      if (selects)
        map_rows(species.select[k].reverse, count, run.first, run.last, channels_, pass.layer.message[k],
                 target, pass.layer.message[k], found, false);
    for (std::size_t k = 0; k < pass.layer.output.size(); ++k)
      if (pass.layer.skip[k])
        map_rows(species.skip[k].reverse, count, run.first, run.last, channels_, pass.layer.output[k],
                 adjoints, pass.layer.input[pass.layer.skip_from[k]],
                 kept_[pass.t - 1].adjoints.data() +
                     pass.tile.first * num_components(pass.layer.input) * static_cast<std::size_t>(channels_),
                 true);
  }
}

template <class T>
void MaceWorker<T>::write_gradients(const Pass& pass, Span<const double> cotangents,
                                    Span<double> edge_gradients) {
  Scratch& s = pass.scratch;
  for (int p = 0; p < pass.tile.count; ++p) {
    const Edges<T>& v = s.edges[p];
    kernels<T>().gradients(engine_.harmonics(), v);
    const double cotangent = pass.tile.owned ? cotangents[pass.rows[p] * d_.columns] : 0.0;
    double finite = 0.0;
    for (int e = 0; e < v.count; ++e) {
      const typename TileEdges<T>::Edge& edge = s.edges.edges(p)[e];
      const double* const d = &pass.graph.vectors[3 * edge.number];
      double slope = edge.slope;
      if (pass.t == 0)
        slope += cotangent * (pair_energy(d_, s.edges.receiver_species(p), edge.species, v.r[e]).slope +
                              close_repulsion(v.r[e], engine_.grid().first()).slope);
      double* const g = &edge_gradients[3 * edge.number];
      g[0] += v.gx[e] + slope / v.r[e] * d[0];
      g[1] += v.gy[e] + slope / v.r[e] * d[1];
      g[2] += v.gz[e] + slope / v.r[e] * d[2];
      finite += (g[0] + g[1] + g[2]) * 0.0;
    }
    if (std::isnan(finite)) fail(pass.graph, pass.rows[p], "the forces around");
  }
}

/// Names the atom and what is close to it.
template <class T>
void MaceWorker<T>::fail(const Graph& graph, std::size_t row, const char* what) const {
  constexpr std::size_t kNamed = 5;
  std::vector<std::pair<double, int>> near;
  for (auto e = graph.offsets[row]; e < graph.offsets[row + 1]; ++e) {
    const double* const d = &graph.vectors[3 * e];
    near.emplace_back(std::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]), graph.neighbors[e]);
  }
  std::sort(near.begin(), near.end());
  const auto name = [&](int atom) { return d_.species[graph.species[atom]] + " " + std::to_string(atom); };
  std::string text = std::string(what) + " atom " + name(graph.centers[row]) +
                     " (counted from 0) are not finite numbers; it has " + std::to_string(near.size()) +
                     " neighbors";
  for (std::size_t k = 0; k < std::min(kNamed, near.size()); ++k)
    text += (k ? ", " : ", the nearest are ") + name(near[k].second) + " at " +
            std::to_string(near[k].first) + " Å";
  throw Error(ErrorKind::numeric, text +
                                      ": the structure is far outside what the model was trained on, or the "
                                      "simulation has become unstable");
}

template <class T>
void MaceWorker<T>::check_readouts(const Graph& graph, Span<const double> readouts) const {
  for (std::size_t k = 0; k < readouts.size(); ++k)
    if (!std::isfinite(readouts[k])) fail(graph, k / d_.columns, "energy and features of");
}

template class MaceWorker<float>;
template class MaceWorker<double>;

NEARSIGHT_CHOOSE_KERNELS(float)
NEARSIGHT_CHOOSE_KERNELS(double)

}  // namespace mace
}  // namespace nearsight
