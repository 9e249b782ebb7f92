#include <algorithm>
#include <cmath>

#include "cuda/models/mace/tables.hpp"

namespace nearsight {
namespace cuda {
namespace mace {
namespace {

constexpr std::size_t kBatch = 64;  // knots that are evaluated together

int padded(int count, int to) {
  return (count + to - 1) / to * to;
}

template <class T>
void put(const Stream& stream, const std::vector<T>& from, Buffer<T>& to) {
  to.upload(stream, {from.data(), from.size()});
}

int paths_to(const Layer& layer, int irrep) {
  return static_cast<int>(
      std::count_if(layer.paths.begin(), layer.paths.end(),
                    [&](const nearsight::mace::Path& path) { return path.out == irrep; }));
}

}  // namespace

template <class T>
template <class Value>
void Map<T>::add_matrix(int inner, int species, const Value& value) {
  inner_ = inner;
  host_.resize(species);
  first_ = static_cast<std::int64_t>(host_[0].size());
  for (int z = 0; z < species; ++z)
    for (int row = 0; row < inner; ++row)
      for (int column = 0; column < columns_; ++column)
        host_[z].push_back(static_cast<T>(value(z, row, column)));
}

template <class T>
void Map<T>::upload(const Stream& stream) {
  if (parts_.empty()) return;
  stride_ = host_.size() > 1 ? static_cast<std::int64_t>(host_[0].size()) : 0;
  std::vector<T> all;
  for (const std::vector<T>& one : host_) all.insert(all.end(), one.begin(), one.end());
  put(stream, all, weights_);
  put(stream, parts_, device_parts_);
  host_.clear();
}

template <class T>
LinearWork<T> Map<T>::work(const Buffer<RowTile>& tiles, const T* x, int x_row, T* y, int y_row) const {
  return {tiles.data(),
          static_cast<int>(tiles.size()),
          device_parts_.data(),
          static_cast<int>(parts_.size()),
          columns_,
          weights_.data(),
          stride_,
          x,
          x_row,
          y,
          y_row,
          false,
          nullptr,
          nullptr};
}

template <class T>
Tables<T>::Tables(Definition definition, const Stream& stream)
    : d_(std::move(definition)),
      plan_(d_, sizeof(T) == 4),
      channels_(padded(d_.channels, kWarp)),
      harmonics_(harmonic_factors<T>(d_.l_max, std::sqrt(4 * 3.14159265358979323846))) {
  for (std::size_t t = 0; t < d_.layers.size(); ++t) {
    layers_.push_back(std::make_unique<LayerTables<T>>());
    make_layer(static_cast<int>(t), stream);
  }
  put(stream, d_.zbl.numbers, numbers_);
  put(stream, d_.zbl.radii, radii_);
  if (d_.walls.limits)
    limits_.upload(stream,
                   {d_.walls.limits, static_cast<std::size_t>(3 * d_.num_species() * d_.num_species())});
  shift_.upload(stream, {d_.shift, static_cast<std::size_t>(d_.num_species())});
  scale_.upload(stream, {d_.scale, static_cast<std::size_t>(d_.columns)});
}

template <class T>
PairTerms Tables<T>::pair_terms() const {
  return {{d_.zbl.order, d_.zbl.exponent, d_.zbl.prefactor, d_.zbl.scale, numbers_.data(), radii_.data()},
          {d_.walls.slope, d_.walls.repulsion, d_.walls.num_species, limits_.data()},
          plan_.grid().first()};
}

/// Maps of K × K matrices from irrep from_of[k] to irrep k, where there is one.
template <class T>
void Tables<T>::add_squares(const Irreps& from, const Irreps& to, const std::vector<int>& from_of,
                            const std::vector<Matrix>& matrices, int species, const Stream& stream,
                            MapPair<T>& maps) {
  const int k = d_.channels;
  maps.forward = Map<T>(channels_);
  maps.reverse = Map<T>(channels_);
  for (std::size_t n = 0; n < matrices.size(); ++n) {
    const Matrix matrix = matrices[n];
    if (!matrix) continue;
    const auto at = [&](int z, int in, int out) {
      return in < k && out < k ? matrix[(static_cast<std::size_t>(z) * k + out) * k + in] : 0.0;
    };
    maps.forward.add_matrix(channels_, species, at);
    maps.reverse.add_matrix(channels_, species, [&](int z, int out, int in) { return at(z, in, out); });
    for (int m = 0; m < to[n].size(); ++m) {
      const int source = (from[from_of[n]].first + m) * channels_, target = (to[n].first + m) * channels_;
      maps.forward.add_part(source, target);
      maps.reverse.add_part(target, source);
    }
  }
  maps.forward.upload(stream);
  maps.reverse.upload(stream);
}

template <class T>
void Tables<T>::make_layer(int t, const Stream& stream) {
  const Layer& layer = d_.layers[t];
  LayerTables<T>& tables = *layers_[t];
  tables.inputs = num_components(layer.input);
  tables.messages = num_components(layer.message);
  tables.outputs = num_components(layer.output);
  const auto same = [](const Irreps& irreps) {
    std::vector<int> numbers;
    for (std::size_t k = 0; k < irreps.size(); ++k) numbers.push_back(static_cast<int>(k));
    return numbers;
  };
  const int species = d_.num_species();
  add_squares(layer.input, layer.input, same(layer.input), layer.up, 1, stream, tables.up);
  add_squares(layer.message, layer.message, same(layer.message), layer.select, species, stream,
              tables.select);
  add_squares(layer.output, layer.output, same(layer.output), layer.update, 1, stream, tables.update);
  add_squares(layer.input, layer.output, layer.skip_from, layer.skip, species, stream, tables.skip);
  if (layer.constant) {
    std::vector<T> constant;
    for (int z = 0; z < species; ++z)
      for (int c = 0; c < channels_; ++c)
        constant.push_back(c < d_.channels ? static_cast<T>(layer.constant[z * d_.channels + c]) : T(0));
    put(stream, constant, tables.constant);
  }
  tables.compression = plan_.compressed(t);
  if (!layer.density.empty()) tables.density_network = &plan_.density(t);
  make_products(t, stream);
  make_readout(t, stream);
  if (t > 0) make_paths(t, stream);
}

template <class T>
void Tables<T>::make_products(int t, const Stream& stream) {
  LayerTables<T>& tables = *layers_[t];
  const Trees trees = plan_.trees(t);
  put(stream, trees.first_root, tables.first_root);
  put(stream, trees.roots, tables.roots);
  put(stream, trees.middles, tables.middles);
  put(stream, trees.leaves, tables.leaves);
  tables.polynomials = {tables.messages,     tables.outputs,        tables.first_root.data(),
                        tables.roots.data(), tables.middles.data(), tables.leaves.data()};
  tables.num_weights = trees.num_weights;
  std::vector<T> weights;
  for (int z = 0; z < d_.num_species(); ++z) {
    const std::vector<double> found = plan_.product_weights(t, trees, z);
    for (int row = 0; row < trees.num_weights; ++row)
      for (int c = 0; c < channels_; ++c)
        weights.push_back(c < d_.channels ? static_cast<T>(found[row * d_.channels + c]) : T(0));
  }
  put(stream, weights, tables.weights);
}

template <class T>
void Tables<T>::make_readout(int t, const Stream& stream) {
  const nearsight::mace::Dense& readout = d_.layers[t].readout;
  LayerTables<T>& tables = *layers_[t];
  const std::vector<double>& last = readout.weights.back();
  tables.readout.upload(stream, {last.data(), last.size()});
  tables.readout_inputs = static_cast<int>(last.size()) / d_.columns;
  if (readout.weights.size() == 1) return;
  const int width = readout.widths[1];
  const auto at = [&](int, int in, int out) {
    return in < d_.channels && out < width ? readout.weights[0][in * width + out] : 0.0;
  };
  tables.hidden_width = padded(width, 4);
  tables.hidden.forward = Map<T>(tables.hidden_width);
  tables.hidden.forward.add_matrix(channels_, 1, at);
  tables.hidden.reverse = Map<T>(channels_);
  tables.hidden.reverse.add_matrix(tables.hidden_width, 1,
                                   [&](int z, int out, int in) { return at(z, in, out); });
  for (Map<T>* const map : {&tables.hidden.forward, &tables.hidden.reverse}) {
    map->add_part(0, 0);
    map->upload(stream);
  }
}

/// Paths, couplings and the map of A to the messages.
template <class T>
void Tables<T>::make_paths(int t, const Stream& stream) {
  const Layer& layer = d_.layers[t];
  LayerTables<T>& tables = *layers_[t];
  const int k = d_.channels, num_paths = static_cast<int>(layer.paths.size());
  std::vector<int> start;
  for (std::size_t n = 0; n < layer.message.size(); ++n) {
    start.push_back(tables.sums);
    tables.sums += layer.message[n].size() * paths_to(layer, static_cast<int>(n));
  }
  std::vector<PathTable> paths;
  std::vector<std::vector<CouplingTerm<T>>> of_phi, behind, of_harmonics(d_.num_harmonics());
  for (int n = 0; n < num_paths; ++n) {
    const nearsight::mace::Path& path = layer.paths[n];
    const nearsight::mace::Irrep &in = layer.input[path.in], &out = layer.message[path.out];
    const int first = static_cast<int>(of_phi.size()), size = in.size() * out.size();
    paths.push_back({in.l, out.l, in.first, start[path.out] + path.place, paths_to(layer, path.out), first});
    of_phi.resize(first + padded(size, 4));
    behind.resize(of_phi.size());
    for (std::size_t row = path.first_row; row < layer.couplings.size(); ++row) {
      const nearsight::mace::Coupling& c = layer.couplings[row];
      if (c.phi >= path.first_phi + size) break;
      const int phi = first + c.phi - path.first_phi;
      const T coefficient = static_cast<T>(c.coefficient);
      of_phi[phi].push_back({c.y, coefficient});
      behind[phi].push_back({c.y, path.l2 % 2 ? -coefficient : coefficient});
      of_harmonics[c.y].push_back({phi, coefficient});
    }
  }
  put(stream, paths, tables.paths);
  tables.num_paths = num_paths;
  tables.num_phi = static_cast<int>(of_phi.size());
  const auto put_couplings = [&](const std::vector<std::vector<CouplingTerm<T>>>& lists,
                                 typename LayerTables<T>::CouplingTable& table) {
    std::vector<std::int32_t> firsts{0};
    std::vector<CouplingTerm<T>> terms;
    for (const auto& list : lists) {
      terms.insert(terms.end(), list.begin(), list.end());
      firsts.push_back(static_cast<std::int32_t>(terms.size()));
    }
    put(stream, firsts, table.first);
    put(stream, terms, table.terms);
  };
  put_couplings(of_phi, tables.phi);
  put_couplings(behind, tables.phi_behind);
  put_couplings(of_harmonics, tables.harmonics);

  const Compression& c = tables.compression;
  std::vector<T> radial;
  for (int b = 0; b < padded(c.rank, 4); ++b)
    for (int n = 0; n < num_paths; ++n)
      for (int a = 0; a < channels_; ++a)
        radial.push_back(
            b < c.rank && a < k
                ? static_cast<T>(c.expansion[(static_cast<std::size_t>(b) * num_paths + n) * k + a])
                : T(0));
  put(stream, radial, tables.radial);

  tables.combine.forward = Map<T>(channels_);
  tables.combine.reverse = Map<T>(channels_);
  for (std::size_t n = 0; n < layer.message.size(); ++n) {
    const int count = paths_to(layer, static_cast<int>(n));
    const Matrix matrix = layer.combine[n];
    const auto at = [&](int path, int in, int out) {
      return in < k && out < k ? matrix[(static_cast<std::size_t>(out) * count + path) * k + in] : 0.0;
    };
    tables.combine.forward.add_matrix(
        count * channels_, 1, [&](int, int in, int out) { return at(in / channels_, in % channels_, out); });
    const auto place = [&](int m) { return (layer.message[n].first + m) * channels_; };
    const auto sums = [&](int m, int path) { return (start[n] + m * count + path) * channels_; };
    for (int m = 0; m < layer.message[n].size(); ++m) tables.combine.forward.add_part(sums(m, 0), place(m));
    for (int path = 0; path < count; ++path) {
      tables.combine.reverse.add_matrix(channels_, 1,
                                        [&](int, int out, int in) { return at(path, in, out); });
      for (int m = 0; m < layer.message[n].size(); ++m)
        tables.combine.reverse.add_part(place(m), sums(m, path));
    }
  }
  tables.combine.forward.upload(stream);
  tables.combine.reverse.upload(stream);
}

/// The map of the first layer's moments to messages, for the species that occur.
template <class T>
void Tables<T>::make_sources(const Stream& stream) {
  const Layer& layer = d_.layers[0];
  LayerTables<T>& tables = *layers_[0];
  const Compression& c = tables.compression;
  const int functions = padded(c.rank, 4), inner = slots() * functions;
  tables.combine.forward = Map<T>(channels_);
  tables.combine.reverse = Map<T>(inner);
  for (std::size_t n = 0; n < layer.message.size(); ++n) {
    std::vector<std::vector<double>> matrices;
    for (const int z : present_) matrices.push_back(plan_.source(c, static_cast<int>(n), z));
    const auto at = [&](int in, int out) {
      const int slot = in / functions, b = in % functions;
      return b < c.rank && out < d_.channels ? matrices[slot][b * d_.channels + out] : 0.0;
    };
    tables.combine.forward.add_matrix(inner, 1, [&](int, int in, int out) { return at(in, out); });
    tables.combine.reverse.add_matrix(channels_, 1, [&](int, int out, int in) { return at(in, out); });
    const int l = layer.message[n].l;
    for (int m = 0; m < 2 * l + 1; ++m) {
      const int moments = (l * l + m) * inner, messages = (layer.message[n].first + m) * channels_;
      tables.combine.forward.add_part(moments, messages);
      tables.combine.reverse.add_part(messages, moments);
    }
  }
  tables.combine.forward.upload(stream);
  tables.combine.reverse.upload(stream);
}

/// evaluate(distances, pair) gives [distance][kJet][numbers], of which there are at most `count`.
template <class T>
template <class Evaluate>
void Tables<T>::make_functions(int count, const Stream& stream, const Evaluate& evaluate,
                               FunctionTables<T>& tables) {
  const nearsight::mace::Grid& grid = plan_.grid();
  const std::size_t knots = grid.intervals() + 1;
  std::vector<double> distances(knots);
  for (std::size_t k = 0; k < knots; ++k) distances[k] = grid.knot(static_cast<int>(k));
  std::vector<T> values;
  std::vector<int> table_of_pair(plan_.pairs().size(), -1);
  std::vector<std::int32_t> table_of(static_cast<std::size_t>(d_.num_species()) * d_.num_species(), 0);
  int made = 0;
  for (const int a : present_)
    for (const int b : present_) {
      int& table = table_of_pair[plan_.pair_of(a, b)];
      if (table < 0) {
        table = made++;
        for (std::size_t k = 0; k < knots; k += kBatch) {
          const Span<const double> batch{distances.data() + k, std::min(kBatch, knots - k)};
          const std::vector<double> found = evaluate(batch, plan_.pairs()[plan_.pair_of(a, b)]);
          const std::size_t rows = batch.size() * kJet, width = found.size() / rows;
          for (std::size_t row = 0; row < rows; ++row)
            for (std::size_t n = 0; n < static_cast<std::size_t>(count); ++n)
              values.push_back(n < width ? static_cast<T>(found[row * width + n]) : T(0));
        }
      }
      table_of[a * d_.num_species() + b] = table;
    }
  put(stream, values, tables.tables);
  put(stream, table_of, tables.table_of);
  const nearsight::mace::KnotScale s = grid.scale();
  tables.view = {{static_cast<T>(s.first), static_cast<T>(s.shape), static_cast<T>(s.start),
                  static_cast<T>(s.per_step), s.intervals},
                 tables.tables.data(),
                 tables.table_of.data(),
                 d_.num_species(),
                 count};
}

template <class T>
void Tables<T>::require(const std::vector<int>& species, const Stream& stream) {
  std::vector<int> wanted = present_;
  for (int z = 0; z < d_.num_species(); ++z)
    if (species.empty() || std::find(species.begin(), species.end(), z) != species.end()) wanted.push_back(z);
  std::sort(wanted.begin(), wanted.end());
  wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
  if (wanted == present_) return;
  stream.synchronize();  // tables may be in use
  present_ = wanted;
  std::vector<std::int32_t> slot_of(d_.num_species(), 0);
  for (int slot = 0; slot < slots(); ++slot) slot_of[present_[slot]] = slot;
  put(stream, slot_of, slot_of_);
  make_sources(stream);
  for (int t = 0; t < num_layers(); ++t) {
    LayerTables<T>& tables = *layers_[t];
    make_functions(
        padded(tables.compression.rank, 4), stream,
        [&](Span<const double> distances, double pair) {
          return plan_.functions(t, tables.compression, distances, pair);
        },
        tables.functions);
    if (!tables.has_density()) continue;
    make_functions(
        1, stream,
        [&](Span<const double> distances, double pair) {
          nearsight::mace::Jets jets = tables.density_network->outputs(distances, pair);
          plan_.grid().rescale(distances, jets);
          std::vector<double> found;
          for (std::size_t p = 0; p < distances.size(); ++p)
            for (int order = 0; order < kJet; ++order) found.push_back(*jets.row(p, order));
          return found;
        },
        tables.density);
  }
}

template class Map<float>;
template class Map<double>;
template class Tables<float>;
template class Tables<double>;

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
