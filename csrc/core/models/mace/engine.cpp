#include "core/models/mace/engine.hpp"

#include <algorithm>
#include <cmath>
#include <map>

namespace nearsight {
namespace mace {
namespace {

/// Tolerances, relative to the largest slope, of interpolation and of the first layer's compression: in mixed
/// precision they are below the round-off.
template <class T>
constexpr double kInterpolation = sizeof(T) == 4 ? 3e-6 : 1e-9;
template <class T>
constexpr double kCompression = sizeof(T) == 4 ? 1e-7 : 1e-13;
template <class T>
std::vector<int> intervals() {
  return sizeof(T) == 4 ? std::vector<int>{256, 512, 1024} : std::vector<int>{1024, 2048, 4096};
}
/// Pairs of species that are sampled to choose them.
constexpr std::size_t kMaxPairs = 12;
constexpr std::size_t kBatch = 64;  // knots that are evaluated together

}  // namespace

template <class T>
Engine<T>::Engine(const Definition& definition, Radials radials)
    : d_(definition),
      channels_(padded(definition.channels)),
      analytic_(radials == Radials::analytic),
      grid_(definition.cutoff, intervals<T>()[0]),
      harmonics_(harmonic_factors<T>(definition.l_max, std::sqrt(4 * 3.14159265358979323846))) {
  find_pairs();
  for (const Layer& layer : d_.layers) {
    networks_.emplace_back(d_, layer.radial, RadialNetwork::Ending::plain);
    densities_.emplace_back(d_, layer.density, RadialNetwork::Ending::density);
  }
  const std::size_t layers = d_.layers.size();
  layers_.resize(layers);
  monomials_.resize(layers);
  species_.resize(layers);
  radial_.resize(layers);
  std::vector<double> samples;
  for (std::size_t k = 0; k < pairs_.size(); k += 1 + (pairs_.size() - 1) / kMaxPairs)
    samples.push_back(pairs_[k]);
  if (samples.back() != pairs_.back()) samples.push_back(pairs_.back());
  first_ = compress(networks_[0], d_.cutoff, samples, kCompression<T>);
  int most = 0;
  for (const auto* const networks : {&networks_, &densities_})
    for (const RadialNetwork& network : *networks)
      if (!network.dense().empty())
        most =
            std::max(most, choose_intervals(network, d_.cutoff, samples, intervals<T>(), kInterpolation<T>));
  grid_ = Grid(d_.cutoff, most);
  for (std::size_t t = 0; t < layers; ++t) {
    species_[t].resize(d_.num_species());
    radial_[t].resize(pairs_.size());
    make_layer(static_cast<int>(t));
  }
}

template <class T>
void Engine<T>::find_pairs() {
  const int n = d_.num_species();
  const std::vector<double>& radii = d_.transform.radii;
  for (int a = 0; a < n; ++a)
    for (int b = 0; b < n; ++b) pairs_.push_back(radii.empty() ? 0.0 : radii[a] + radii[b]);
  const std::vector<double> all = pairs_;
  std::sort(pairs_.begin(), pairs_.end());
  pairs_.erase(std::unique(pairs_.begin(), pairs_.end()), pairs_.end());
  for (const double sum : all)
    pair_of_.push_back(
        static_cast<int>(std::lower_bound(pairs_.begin(), pairs_.end(), sum) - pairs_.begin()));
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
  make_polynomials(layer, tables);
  tables.polynomials = {num_components(layer.message), num_components(layer.output), tables.first_root.data(),
                        tables.roots.data(),           tables.middles.data(),        tables.leaves.data()};
}

/// Sorts the terms into trees; a term's factors are the way from the root, the others fill in.
template <class T>
void Engine<T>::make_polynomials(const Layer& layer, LayerTables<T>& tables) {
  using Key = std::vector<int>;
  std::map<Key, int> numbers;  // of the monomials of an output, in the order of their way from the root
  const auto key_of = [](const Term& term) {
    Key key{term.output};
    for (const int factor : term.factors)
      if (factor >= 0) key.push_back(factor);
    return key;
  };
  for (const Term& term : layer.terms)
    for (Key key = key_of(term); key.size() > 1; key.pop_back()) numbers.emplace(key, -1);
  std::map<Key, int> weight_of;
  for (const Term& term : layer.terms) weight_of.emplace(key_of(term), static_cast<int>(weight_of.size()));
  for (const Term& term : layer.terms)
    monomials_[&layer - d_.layers.data()].push_back(weight_of[key_of(term)]);
  tables.num_weights = static_cast<int>(weight_of.size());
  const auto weight = [&](const Key& key) {
    const auto found = weight_of.find(key);
    return found == weight_of.end() ? -1 : found->second;
  };
  tables.first_root.push_back(0);
  for (int output = 0; output < num_components(layer.output); ++output) {
    for (auto it = numbers.lower_bound({output}); it != numbers.end() && it->first[0] == output; ++it) {
      const Key& key = it->first;
      const Node node{key.back(), weight(key), 0, 0};
      const auto append = [&](std::vector<Node>& list, std::vector<Node>& children) {
        list.push_back(node);
        list.back().first = list.back().last = static_cast<int>(children.size());
      };
      if (key.size() == 2) {
        append(tables.roots, tables.middles);
      } else if (key.size() == 3) {
        append(tables.middles, tables.leaves);
        tables.roots.back().last = static_cast<int>(tables.middles.size());
      } else {
        tables.leaves.push_back(node);
        tables.middles.back().last = static_cast<int>(tables.leaves.size());
      }
    }
    tables.first_root.push_back(static_cast<int>(tables.roots.size()));
  }
}

template <class T>
std::unique_ptr<SpeciesTables<T>> Engine<T>::make_species(int t, int z) const {
  const Layer& layer = d_.layers[t];
  auto tables = std::make_unique<SpeciesTables<T>>();
  const int k = d_.channels, n = layers_[t].num_weights;
  const std::size_t square = static_cast<std::size_t>(z) * k * k;
  for (const Matrix m : layer.select) tables->select.push_back(map(m ? m + square : nullptr));
  for (const Matrix m : layer.skip) tables->skip.push_back(map(m ? m + square : nullptr));
  T* const constant = tables->constant.resize(channels_);
  for (int c = 0; c < channels_; ++c)
    constant[c] = layer.constant && c < k ? static_cast<T>(layer.constant[z * k + c]) : T(0);
  std::vector<double> weights(static_cast<std::size_t>(n) * k, 0.0);
  for (std::size_t row = 0; row < layer.terms.size(); ++row) {
    const Term& term = layer.terms[row];
    const double* const w =
        layer.polynomials + (static_cast<std::size_t>(z) * layer.num_polynomials + term.eta) * k;
    for (int c = 0; c < k; ++c) weights[monomials_[t][row] * k + c] += term.coefficient * w[c];
  }
  T* const out = tables->weights.resize(static_cast<std::size_t>(n) * channels_);
  for (int row = 0; row < n; ++row)
    for (int c = 0; c < channels_; ++c)
      out[(c / kPad * n + row) * kPad + c % kPad] = c < k ? static_cast<T>(weights[row * k + c]) : T(0);
  if (t > 0) return tables;
  // m_l = Σ_b M_l[b] Σ_k expansion[b][l, k] embedding[z][k] message_l[k'][k]
  for (std::size_t l = 0; l < layer.message.size(); ++l) {
    const auto path = std::find_if(layer.paths.begin(), layer.paths.end(),
                                   [&](const Path& p) { return p.out == static_cast<int>(l); });
    const std::size_t place = path - layer.paths.begin(), outputs = layer.paths.size() * k;
    std::vector<double> product(static_cast<std::size_t>(first_.rank) * k, 0.0);
    for (int b = 0; b < first_.rank; ++b)
      for (int c = 0; c < k; ++c) {
        double sum = 0.0;
        for (int a = 0; a < k; ++a)
          sum += first_.expansion[b * outputs + place * k + a] * d_.embedding[z * k + a] *
                 layer.combine[l][c * k + a];
        product[b * k + c] = sum;
      }
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
  Jets jets = t == 0 ? networks_[0].hidden(distances, pair) : networks_[t].outputs(distances, pair);
  grid_.rescale(distances, jets);
  for (std::size_t p = 0; p < distances.size(); ++p)
    for (int order = 0; order < kJet; ++order) {
      const double* const from = jets.row(p, order);
      T* const knot = knots + (p * kJet + order) * tables.width;
      for (int group = 0; group < tables.groups; ++group) {
        T* const to = knot + group * stride;
        std::fill_n(to, tables.width, T(0));
        for (int c = 0; c < d_.channels && t > 0; ++c) to[c] = static_cast<T>(from[group * d_.channels + c]);
      }
      for (int b = 0; b < first_.rank && t == 0; ++b) {
        double sum = 0.0;
        for (std::size_t a = 0; a < jets.size(); ++a) sum += from[a] * first_.projection[a * first_.rank + b];
        knot[b] = static_cast<T>(sum);
      }
    }
}

template <class T>
std::unique_ptr<RadialTable<T>> Engine<T>::make_radial(int t, double pair) const {
  auto table = std::make_unique<RadialTable<T>>();
  const std::size_t knots = grid_.intervals() + 1, knot = static_cast<std::size_t>(kJet) * layers_[t].width;
  std::vector<double> distances(knots);
  for (std::size_t k = 0; k < knots; ++k) distances[k] = grid_.knot(static_cast<int>(k));
  if (!analytic_) {
    T* const out = table->functions.resize(layers_[t].groups * knots * knot);
    for (std::size_t k = 0; k < knots; k += kBatch)
      fill_knots(t, {distances.data() + k, std::min(kBatch, knots - k)}, pair, out + k * knot, knots * knot);
  }
  if (d_.layers[t].density.empty()) return table;
  double* const out = table->density.resize(3 * knots);
  Jets jets = densities_[t].outputs(distances, pair);
  grid_.rescale(distances, jets);
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
        const int pair = pair_of_[a * d_.num_species() + b];
        if (!radial_[t][pair]) radial_[t][pair] = make_radial(static_cast<int>(t), pairs_[pair]);
      }
    }
}

template class Engine<float>;
template class Engine<double>;

}  // namespace mace
}  // namespace nearsight
