#include "core/models/mace/engine.hpp"

#include <algorithm>
#include <cmath>

namespace nearsight {
namespace mace {
namespace {

constexpr std::size_t kBatch = 64;  // knots that are evaluated together

}  // namespace

template <class T>
Engine<T>::Engine(const Definition& definition, Radials radials)
    : d_(definition),
      channels_(padded(definition.channels)),
      analytic_(radials == Radials::analytic),
      plan_(definition, sizeof(T) == 4),
      harmonics_(harmonic_factors<T>(definition.l_max, std::sqrt(4 * 3.14159265358979323846))),
      first_(plan_.compressed(0)) {
  const std::size_t layers = d_.layers.size();
  layers_.resize(layers);
  species_.resize(layers);
  radial_.resize(layers);
  for (std::size_t t = 0; t < layers; ++t) {
    species_[t].resize(d_.num_species());
    radial_[t].resize(plan_.pairs().size());
    make_layer(static_cast<int>(t));
  }
}

/// From [out][groups K] with padded channels on both sides.
template <class T>
Map<T> Engine<T>::map(Matrix matrix, int groups) const {
  Map<T> m;
  if (!matrix) return m;
  const int k = d_.channels, row = groups * k;
  const auto at = [&](int in, int out) {
    const int group = in / channels_, channel = in % channels_;
    return channel < k && out < k ? matrix[out * row + group * k + channel] : 0.0;
  };
  m.forward = make_panels<T>(groups * channels_, channels_, at);
  m.reverse = make_panels<T>(channels_, groups * channels_, [&](int out, int in) { return at(in, out); });
  return m;
}

template <class T>
void Engine<T>::make_layer(int t) {
  const Layer& layer = d_.layers[t];
  LayerTables<T>& tables = layers_[t];
  tables.groups = t == 0 ? 1 : static_cast<int>(layer.paths.size());
  tables.width = t == 0 ? padded(first_.rank) : channels_;
  for (std::size_t k = 0; k < layer.message.size() && t > 0; ++k) {
    const int paths = std::count_if(layer.paths.begin(), layer.paths.end(),
                                    [&](const Path& path) { return path.out == static_cast<int>(k); });
    tables.combine.push_back(map(layer.combine[k], paths));
  }
  for (const Matrix m : layer.up) tables.up.push_back(map(m));
  for (const Matrix m : layer.update) tables.update.push_back(map(m));
  for (const Path& path : layer.paths) {
    const int size = layer.input[path.in].size() * layer.message[path.out].size();
    for (std::size_t k = path.first_row; k < layer.couplings.size(); ++k) {
      const Coupling& c = layer.couplings[k];
      if (c.phi >= path.first_phi + size) break;
      tables.couplings.push_back({c.phi - path.first_phi, c.y, static_cast<T>(c.coefficient)});
    }
  }
  const Dense& readout = layer.readout;
  tables.readout = readout.weights.back();
  if (readout.weights.size() == 2) {
    const int width = readout.widths[1];
    const std::vector<double>& w = readout.weights[0];
    const auto at = [&](int in, int out) {
      return in < d_.channels && out < width ? w[in * width + out] : 0.0;
    };
    tables.readout_forward = make_panels<T>(channels_, width, at);
    tables.readout_reverse =
        make_panels<T>(padded(width), channels_, [&](int out, int in) { return at(in, out); });
  }
  const Trees& trees = tables.trees = plan_.trees(t);
  tables.polynomials = {num_components(layer.message), num_components(layer.output),
                        trees.first_root.data(),       trees.roots.data(),
                        trees.middles.data(),          trees.leaves.data()};
}

template <class T>
std::unique_ptr<SpeciesTables<T>> Engine<T>::make_species(int t, int z) const {
  const Layer& layer = d_.layers[t];
  auto tables = std::make_unique<SpeciesTables<T>>();
  const Trees& trees = layers_[t].trees;
  const int k = d_.channels, n = trees.num_weights;
  const std::size_t square = static_cast<std::size_t>(z) * k * k;
  for (const Matrix m : layer.select) tables->select.push_back(map(m ? m + square : nullptr));
  for (const Matrix m : layer.skip) tables->skip.push_back(map(m ? m + square : nullptr));
  T* const constant = tables->constant.resize(channels_);
  for (int c = 0; c < channels_; ++c)
    constant[c] = layer.constant && c < k ? static_cast<T>(layer.constant[z * k + c]) : T(0);
  const std::vector<double> weights = plan_.product_weights(t, trees, z);
  T* const out = tables->weights.resize(static_cast<std::size_t>(n) * channels_);
  for (int row = 0; row < n; ++row)
    for (int c = 0; c < channels_; ++c)
      out[(c / kPad * n + row) * kPad + c % kPad] = c < k ? static_cast<T>(weights[row * k + c]) : T(0);
  if (t > 0) return tables;
  for (std::size_t l = 0; l < layer.message.size(); ++l) {
    const std::vector<double> product = plan_.source(first_, static_cast<int>(l), z);
    const auto at = [&](int b, int c) { return b < first_.rank && c < k ? product[b * k + c] : 0.0; };
    Map<T> m;
    m.forward = make_panels<T>(padded(first_.rank), channels_, at);
    m.reverse = make_panels<T>(channels_, padded(first_.rank), [&](int c, int b) { return at(b, c); });
    tables->source.push_back(std::move(m));
  }
  return tables;
}

template <class T>
void Engine<T>::fill_knots(int t, Span<const double> distances, double pair, T* knots,
                           std::size_t stride) const {
  const LayerTables<T>& tables = layers_[t];
  if (t == 0) {
    const std::vector<double> found = plan_.functions(0, first_, distances, pair);
    for (std::size_t row = 0; row < distances.size() * kJet; ++row)
      for (int b = 0; b < tables.width; ++b)
        knots[row * tables.width + b] = b < first_.rank ? static_cast<T>(found[row * first_.rank + b]) : T(0);
    return;
  }
  Jets jets = plan_.network(t).outputs(distances, pair);
  grid().rescale(distances, jets);
  for (std::size_t p = 0; p < distances.size(); ++p)
    for (int order = 0; order < kJet; ++order) {
      const double* const from = jets.row(p, order);
      T* const knot = knots + (p * kJet + order) * tables.width;
      for (int group = 0; group < tables.groups; ++group) {
        T* const to = knot + group * stride;
        std::fill_n(to, tables.width, T(0));
        for (int c = 0; c < d_.channels; ++c) to[c] = static_cast<T>(from[group * d_.channels + c]);
      }
    }
}

template <class T>
std::unique_ptr<RadialTable<T>> Engine<T>::make_radial(int t, double pair) const {
  auto table = std::make_unique<RadialTable<T>>();
  const std::size_t knots = grid().intervals() + 1, knot = static_cast<std::size_t>(kJet) * layers_[t].width;
  std::vector<double> distances(knots);
  for (std::size_t k = 0; k < knots; ++k) distances[k] = grid().knot(static_cast<int>(k));
  if (!analytic_) {
    T* const out = table->functions.resize(layers_[t].groups * knots * knot);
    for (std::size_t k = 0; k < knots; k += kBatch)
      fill_knots(t, {distances.data() + k, std::min(kBatch, knots - k)}, pair, out + k * knot, knots * knot);
  }
  if (d_.layers[t].density.empty()) return table;
  double* const out = table->density.resize(3 * knots);
  Jets jets = density(t).outputs(distances, pair);
  grid().rescale(distances, jets);
  for (std::size_t k = 0; k < knots; ++k)
    for (int order = 0; order < 3; ++order) out[3 * k + order] = *jets.row(k, order);
  return table;
}

template <class T>
void Engine<T>::require(const std::vector<int>& species) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (std::size_t t = 0; t < layers_.size(); ++t)
    for (const int a : species) {
      if (!species_[t][a]) species_[t][a] = make_species(static_cast<int>(t), a);
      for (const int b : species) {
        const int pair = plan_.pair_of(a, b);
        if (!radial_[t][pair]) radial_[t][pair] = make_radial(static_cast<int>(t), plan_.pairs()[pair]);
      }
    }
}

template class Engine<float>;
template class Engine<double>;

}  // namespace mace
}  // namespace nearsight
