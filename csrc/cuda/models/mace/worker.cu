#include <algorithm>

#include "core/models/mace/definition.hpp"
#include "core/models/mace/mace.hpp"
#include "cuda/models/mace/mace.hpp"
#include "cuda/models/mace/worker.hpp"

namespace nearsight {
namespace cuda {
namespace mace {
namespace {

// Centers of a model of one interaction that are seen at once, and the share of the card's memory that their
// features may have.
constexpr std::size_t kLargestTile = 65536, kMemoryShare = 16;

}  // namespace

template <class T>
MacePotential<T>::MacePotential(Definition definition, const Stream& stream)
    : tables_(std::move(definition), stream), kept_(tables_.num_layers()) {}

template <class T>
std::size_t MacePotential<T>::tile() const {
  if (tables_.num_layers() > 1) return 0;
  const LayerTables<T>& layer = tables_.layer(0);
  const std::size_t species = tables_.definition().num_species();
  const std::size_t moments = tables_.definition().num_harmonics() * species * layer.compression.rank;
  const std::size_t features = width(4 * layer.messages + 3 * layer.outputs);
  const std::size_t room = device_memory().total / kMemoryShare / ((moments + features) * sizeof(T));
  return std::min(std::max<std::size_t>(room, kTileRows), kLargestTile);
}

/// Makes the tables of the species, and tiles of rows: all, and those with readouts.
template <class T>
void MacePotential<T>::split(const Stream& stream, const Graph<T>& graph) {
  tables_.require(graph.species, stream);
  for (int which = 0; which < 2; ++which) {
    const int end = which == 0 ? graph.edges.num_rows : graph.num_rows;
    std::vector<RowTile> tiles;
    for (const typename Graph<T>::Run& run : graph.runs) {
      const int last = std::min(run.last - graph.edges.first_row, end);
      for (int first = run.first - graph.edges.first_row; first < last; first += kTileRows)
        tiles.push_back({first, std::min(kTileRows, last - first), run.species});
    }
    if (tiles == host_tiles_[which]) continue;
    host_tiles_[which] = tiles;
    tiles_[which].upload(stream, {tiles.data(), tiles.size()});
  }
}

template <class T>
typename MacePotential<T>::Rows MacePotential<T>::rows_of(int t, const Graph<T>& graph) const {
  if (is_last(t)) return {graph.num_rows, &tiles_[1]};
  return {graph.edges.num_rows, &tiles_[0]};
}

template <class T>
MomentWork<T> MacePotential<T>::moment_work(const Graph<T>& graph) const {
  return {graph.edges,         rows_of(0, graph).count, tables_.layer(0).functions.view,
          tables_.slot_of(),   tables_.slots(),         tables_.harmonics(),
          tables_.pair_terms()};
}

template <class T>
ProductWork<T> MacePotential<T>::product_work(int t, const Rows& rows) const {
  const LayerTables<T>& layer = tables_.layer(t);
  return {layer.polynomials,       layer.weights.data(), layer.num_weights,
          tables_.channels(),      rows.tiles->data(),   static_cast<int>(rows.tiles->size()),
          kept_[t].messages.data()};
}

template <class T>
ReadoutWork<T> MacePotential<T>::readout_work(int t, const Graph<T>& graph) const {
  const LayerTables<T>& layer = tables_.layer(t);
  const bool is_hidden = layer.hidden_width > 0;
  return {graph.num_rows,
          tables_.definition().columns,
          layer.readout_inputs,
          is_hidden,
          is_hidden ? kept_[t].hidden.data() : kept_[t].features.data(),
          is_hidden ? layer.hidden_width : width(layer.outputs),
          layer.readout.data(),
          tables_.scale()};
}

template <class T>
PathWork<T> MacePotential<T>::path_work(int t, const Edges<T>& edges, int rows,
                                        const EdgeArrays<T>& arrays) const {
  const LayerTables<T>& layer = tables_.layer(t);
  return {edges,
          rows,
          arrays,
          tables_.definition().num_harmonics(),
          layer.functions.view.count,
          layer.paths.data(),
          layer.num_paths,
          layer.num_phi,
          layer.phi.view(),
          layer.phi_behind.view(),
          layer.harmonics.view(),
          layer.radial.data(),
          tables_.channels(),
          kept_[t].sources.data(),
          width(layer.inputs),
          width(layer.sums)};
}

/// Harmonics and functions of the edges for layer t.
template <class T>
void MacePotential<T>::prepare_edges(const Stream& stream, int t, const Graph<T>& graph) {
  if (prepared_ == t) return;
  prepared_ = t;
  const Functions<T>& functions = tables_.layer(t).functions.view;
  const std::size_t places = graph.num_places;
  edge_arrays(
      stream, graph.edges, tables_.harmonics(), functions,
      {edge_harmonics_.resize(places * tables_.definition().num_harmonics()),
       edge_functions_.resize(places * functions.count), edge_slopes_.resize(places * functions.count)});
}

template <class T>
void MacePotential<T>::forward(const Stream& stream, const Graph<T>& graph, double* readouts) {
  split(stream, graph);
  prepared_ = 0;
  for (int t = 0; t < tables_.num_layers(); ++t) {
    sum_messages(stream, t, graph);
    update(stream, t, graph);
    read_out_layer(stream, t, graph, readouts);
    if (!is_last(t)) send(stream, t, graph);
  }
}

/// Messages m, with density and selection.
template <class T>
void MacePotential<T>::sum_messages(const Stream& stream, int t, const Graph<T>& graph) {
  const LayerTables<T>& layer = tables_.layer(t);
  const Rows rows = rows_of(t, graph);
  const std::size_t count = rows.count;
  Kept& kept = kept_[t];
  int row = width(layer.sums);
  if (t == 0) {
    const MomentWork<T> work = moment_work(graph);
    row = tables_.definition().num_harmonics() * work.slots * work.functions.count;
    moments(stream, work, sums_.resize(count * row), pair_energies_.resize(count));
  } else {
    prepare_edges(stream, t, graph);
    path_sums(stream,
              path_work(t, graph.edges, rows.count,
                        {edge_harmonics_.data(), edge_functions_.data(), edge_slopes_.data()}),
              sums_.resize(count * row));
  }
  const std::size_t size = count * width(layer.messages);
  T* const messages = kept.messages.resize(size);
  T* const raw = layer.select.forward.empty() ? messages : raw_messages_.resize(size);
  LinearWork<T> combine =
      layer.combine.forward.work(*rows.tiles, sums_.data(), row, raw, width(layer.messages));
  if (layer.has_density()) {
    densities(stream, graph.edges, rows.count, layer.density.view, kept.inverse_density.resize(count));
    combine.row_scale = kept.inverse_density.data();
  }
  multiply(stream, combine);
  if (raw != messages)
    multiply(stream, layer.select.forward.work(*rows.tiles, raw, width(layer.messages), messages,
                                               width(layer.messages)));
}

/// New features h from the polynomials of the messages.
template <class T>
void MacePotential<T>::update(const Stream& stream, int t, const Graph<T>& graph) {
  const LayerTables<T>& layer = tables_.layer(t);
  const Rows rows = rows_of(t, graph);
  const int row = width(layer.outputs);
  const std::size_t size = static_cast<std::size_t>(rows.count) * row;
  products(stream, product_work(t, rows), products_.resize(size));
  LinearWork<T> work =
      layer.update.forward.work(*rows.tiles, products_.data(), row, kept_[t].features.resize(size), row);
  work.constant = layer.constant.data();
  multiply(stream, work);
  if (layer.skip.forward.empty()) return;
  work = layer.skip.forward.work(*rows.tiles, kept_[t - 1].features.data(), width(layer.inputs),
                                 kept_[t].features.data(), row);
  work.add = true;
  multiply(stream, work);
}

template <class T>
void MacePotential<T>::read_out_layer(const Stream& stream, int t, const Graph<T>& graph, double* readouts) {
  const LayerTables<T>& layer = tables_.layer(t);
  if (layer.hidden_width > 0)
    multiply(stream,
             layer.hidden.forward.work(
                 tiles_[1], kept_[t].features.data(), width(layer.outputs),
                 kept_[t].hidden.resize(static_cast<std::size_t>(graph.num_rows) * layer.hidden_width),
                 layer.hidden_width));
  const std::int32_t* const species = graph.edges.species + graph.edges.first_row;
  read_out(stream, readout_work(t, graph),
           {t == 0 ? species : nullptr, tables_.shift(), pair_energies_.data()}, readouts);
}

/// Rows that neighbors read in the next layer. Of ghosts they come from their owners, but without an exchange
/// the outermost ones are no centers: what their neighbors make of them reaches no owned atom.
template <class T>
void MacePotential<T>::send(const Stream& stream, int t, const Graph<T>& graph) {
  const LayerTables<T>& layer = tables_.layer(t);
  const int row = width(layer.outputs);
  Buffer<T>& sources = kept_[t + 1].sources;
  sources.resize(static_cast<std::size_t>(graph.num_atoms) * row);
  const std::size_t centers = static_cast<std::size_t>(graph.num_centers) * row;
  if (sources.size() > centers)
    fill_bytes(stream, sources.data() + centers, 0, (sources.size() - centers) * sizeof(T));
  multiply(stream, tables_.layer(t + 1).up.forward.work(tiles_[0], kept_[t].features.data(), row,
                                                        sources.data(), row));
  if (graph.exchange) graph.exchange->forward(sources.data(), row);
}

template <class T>
void MacePotential<T>::reverse(const Stream& stream, const Graph<T>& graph, const double* cotangents,
                               Vec4<T>* gradients) {
  const int last = tables_.num_layers() - 1;
  bool has_density = false;
  for (int t = 0; t <= last; ++t) {
    kept_[t].adjoints.clear(stream, kept_[t].features.size());
    has_density |= tables_.layer(t).has_density();
  }
  const std::size_t places = graph.num_places;
  if (last > 0) of_harmonics_.clear(stream, places * tables_.definition().num_harmonics());
  if (last > 0 || has_density) of_distances_.clear(stream, places);
  if (last == 0 && graph.num_rows < graph.edges.num_rows)
    fill_bytes(stream, gradients, 0, places * sizeof(Vec4<T>));
  for (int t = last; t >= 0; --t) {
    if (t < last) {
      const int row = width(tables_.layer(t).outputs);
      LinearWork<T> up = tables_.layer(t + 1).up.reverse.work(tiles_[0], of_sources_.data(), row,
                                                              kept_[t].adjoints.data(), row);
      up.add = true;
      multiply(stream, up);
    }
    read_out_layer_reverse(stream, t, graph, cotangents);
    const T* const of_raw = update_reverse(stream, t, graph);
    const LayerTables<T>& layer = tables_.layer(t);
    const MomentWork<T> moments = moment_work(graph);
    const int row = t > 0 ? width(layer.sums)
                          : tables_.definition().num_harmonics() * moments.slots * moments.functions.count;
    const std::size_t size = static_cast<std::size_t>(rows_of(t, graph).count) * row;
    sums_.resize(size);
    // A degree may have no message.
    if (t == 0 && layer.messages < tables_.definition().num_harmonics()) sums_.clear(stream, size);
    LinearWork<T> combine = layer.combine.reverse.work(*rows_of(t, graph).tiles, of_raw,
                                                       width(layer.messages), sums_.data(), row);
    if (layer.has_density()) combine.row_scale = kept_[t].inverse_density.data();
    multiply(stream, combine);
    if (t > 0)
      later_messages_reverse(stream, t, graph);
    else
      moments_reverse(stream, moments, sums_.data(),
                      {last > 0 ? of_harmonics_.data() : nullptr,
                       last > 0 || has_density ? of_distances_.data() : nullptr},
                      cotangents, graph.num_rows, tables_.definition().columns, gradients);
  }
}

template <class T>
void MacePotential<T>::read_out_layer_reverse(const Stream& stream, int t, const Graph<T>& graph,
                                              const double* cotangents) {
  const LayerTables<T>& layer = tables_.layer(t);
  const int row = width(layer.outputs);
  const ReadoutWork<T> work = readout_work(t, graph);
  if (layer.hidden_width == 0)
    return read_out_reverse(stream, work, cotangents, kept_[t].adjoints.data(), row);
  read_out_reverse(stream, work, cotangents, of_hidden_.resize(kept_[t].hidden.size()), layer.hidden_width);
  LinearWork<T> hidden = layer.hidden.reverse.work(tiles_[1], of_hidden_.data(), layer.hidden_width,
                                                   kept_[t].adjoints.data(), row);
  hidden.add = true;
  multiply(stream, hidden);
}

/// Adjoints of the messages as the sums over edges gave them, but for the density; adds to the adjoints of
/// the features of the layer before.
template <class T>
const T* MacePotential<T>::update_reverse(const Stream& stream, int t, const Graph<T>& graph) {
  const LayerTables<T>& layer = tables_.layer(t);
  const Rows rows = rows_of(t, graph);
  const std::size_t count = rows.count;
  const int row = width(layer.outputs), messages = width(layer.messages);
  Kept& kept = kept_[t];
  multiply(stream, layer.update.reverse.work(*rows.tiles, kept.adjoints.data(), row,
                                             products_.resize(count * row), row));
  T* const of_messages = of_messages_.resize(count * messages);
  products_reverse(stream, product_work(t, rows), products_.data(), of_messages);
  if (layer.has_density())
    densities_reverse(stream, graph.edges, rows.count, layer.density.view, kept.inverse_density.data(),
                      kept.messages.data(), of_messages, messages, of_distances_.data());
  if (!layer.skip.reverse.empty()) {
    LinearWork<T> skip = layer.skip.reverse.work(*rows.tiles, kept.adjoints.data(), row,
                                                 kept_[t - 1].adjoints.data(), width(layer.inputs));
    skip.add = true;
    multiply(stream, skip);
  }
  if (layer.select.reverse.empty()) return of_messages;
  T* const of_raw = of_raw_messages_.resize(count * messages);
  multiply(stream, layer.select.reverse.work(*rows.tiles, of_messages, messages, of_raw, messages));
  return of_raw;
}

template <class T>
void MacePotential<T>::later_messages_reverse(const Stream& stream, int t, const Graph<T>& graph) {
  prepare_edges(stream, t, graph);
  const EdgeArrays<T> arrays{edge_harmonics_.data(), edge_functions_.data(), edge_slopes_.data()};
  path_edges_reverse(stream, path_work(t, graph.edges, rows_of(t, graph).count, arrays), sums_.data(),
                     {of_harmonics_.data(), of_distances_.data()});
  sources_reverse(stream, t, graph);
}

template <class T>
void MacePotential<T>::sources_reverse(const Stream& stream, int t, const Graph<T>& graph) {
  const int row = width(tables_.layer(t).inputs), receivers = rows_of(t, graph).count;
  T* const of_sources = of_sources_.resize(static_cast<std::size_t>(graph.num_atoms) * row);
  const EdgeArrays<T> arrays{edge_harmonics_.data(), edge_functions_.data(), nullptr};
  path_sources_reverse(stream, path_work(t, graph.edges, graph.num_centers, arrays), sums_.data(), receivers,
                       of_sources);
  if (!graph.exchange) return;
  const Functions<T>& functions = tables_.layer(t).functions.view;
  const std::size_t places = graph.num_source_places;
  const EdgeArrays<T> behind{source_harmonics_.resize(places * tables_.definition().num_harmonics()),
                             source_functions_.resize(places * functions.count), nullptr};
  edge_arrays(stream, graph.sources, tables_.harmonics(), functions, behind);
  path_sources_reverse(stream, path_work(t, graph.sources, graph.sources.num_rows, behind), sums_.data(),
                       receivers, of_sources);
  graph.exchange->reverse(of_sources, row);
}

template class MacePotential<float>;
template class MacePotential<double>;

}  // namespace mace

template <class T>
std::unique_ptr<Potential<T>> make_mace(const ModelFile& file, const Stream& stream, std::string& reason) {
  mace::Definition definition = nearsight::mace::read_definition(file);
  reason = nearsight::mace::unsupported(definition);
  if (nearsight::mace::wants_analytic_radials())
    reason = "NEARSIGHT_RADIALS is analytic in the environment, which only CPUs have";
  if (!reason.empty()) return nullptr;
  return std::make_unique<mace::MacePotential<T>>(std::move(definition), stream);
}

template std::unique_ptr<Potential<float>> make_mace(const ModelFile&, const Stream&, std::string&);
template std::unique_ptr<Potential<double>> make_mace(const ModelFile&, const Stream&, std::string&);

}  // namespace cuda
}  // namespace nearsight
