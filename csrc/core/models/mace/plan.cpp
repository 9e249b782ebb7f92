#include "core/models/mace/plan.hpp"

#include <algorithm>
#include <map>

namespace nearsight {
namespace mace {
namespace {

/// Tolerances, relative to the largest slope, of interpolation and of compression: in mixed precision they
/// are below the round-off.
constexpr double kInterpolation[2] = {1e-9, 3e-6}, kCompression[2] = {1e-13, 1e-7};
const std::vector<int> kIntervals[2] = {{1024, 2048, 4096}, {256, 512, 1024}};
/// Pairs of species that are sampled to choose them.
constexpr std::size_t kMaxPairs = 12;

}  // namespace

Plan::Plan(const Definition& definition, bool mixed)
    : d_(definition), mixed_(mixed), grid_(definition.cutoff, kIntervals[mixed][0]) {
  find_pairs();
  for (const Layer& layer : d_.layers) {
    networks_.emplace_back(d_, layer.radial, RadialNetwork::Ending::plain);
    densities_.emplace_back(d_, layer.density, RadialNetwork::Ending::density);
  }
  for (std::size_t k = 0; k < pairs_.size(); k += 1 + (pairs_.size() - 1) / kMaxPairs)
    samples_.push_back(pairs_[k]);
  if (samples_.back() != pairs_.back()) samples_.push_back(pairs_.back());
  int most = 0;
  for (const auto* const networks : {&networks_, &densities_})
    for (const RadialNetwork& network : *networks)
      if (!network.dense().empty())
        most = std::max(
            most, choose_intervals(network, d_.cutoff, samples_, kIntervals[mixed], kInterpolation[mixed]));
  grid_ = Grid(d_.cutoff, most);
}

void Plan::find_pairs() {
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

Compression Plan::compressed(int t) const {
  return compress(networks_[t], d_.cutoff, samples_, kCompression[mixed_]);
}

std::vector<double> Plan::functions(int t, const Compression& c, Span<const double> distances,
                                    double pair) const {
  Jets jets = networks_[t].hidden(distances, pair);
  grid_.rescale(distances, jets);
  std::vector<double> found(distances.size() * kJet * c.rank);
  for (std::size_t p = 0; p < distances.size(); ++p)
    for (int order = 0; order < kJet; ++order)
      for (int b = 0; b < c.rank; ++b) {
        double sum = 0.0;
        for (std::size_t a = 0; a < jets.size(); ++a)
          sum += jets.row(p, order)[a] * c.projection[a * c.rank + b];
        found[(p * kJet + order) * c.rank + b] = sum;
      }
  return found;
}

/// Sorts the terms into trees; a term's factors are the way from the root, the others fill in.
Trees Plan::trees(int t) const {
  const Layer& layer = d_.layers[t];
  Trees trees;
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
  for (const Term& term : layer.terms) trees.weight_of.push_back(weight_of[key_of(term)]);
  trees.num_weights = static_cast<int>(weight_of.size());
  const auto weight = [&](const Key& key) {
    const auto found = weight_of.find(key);
    return found == weight_of.end() ? -1 : found->second;
  };
  trees.first_root.push_back(0);
  for (int output = 0; output < num_components(layer.output); ++output) {
    for (auto it = numbers.lower_bound({output}); it != numbers.end() && it->first[0] == output; ++it) {
      const Key& key = it->first;
      const Node node{key.back(), weight(key), 0, 0};
      const auto append = [&](std::vector<Node>& list, std::vector<Node>& children) {
        list.push_back(node);
        list.back().first = list.back().last = static_cast<int>(children.size());
      };
      if (key.size() == 2) {
        append(trees.roots, trees.middles);
      } else if (key.size() == 3) {
        append(trees.middles, trees.leaves);
        trees.roots.back().last = static_cast<int>(trees.middles.size());
      } else {
        trees.leaves.push_back(node);
        trees.middles.back().last = static_cast<int>(trees.leaves.size());
      }
    }
    trees.first_root.push_back(static_cast<int>(trees.roots.size()));
  }
  return trees;
}

std::vector<double> Plan::product_weights(int t, const Trees& trees, int z) const {
  const Layer& layer = d_.layers[t];
  const int k = d_.channels;
  std::vector<double> weights(static_cast<std::size_t>(trees.num_weights) * k, 0.0);
  for (std::size_t row = 0; row < layer.terms.size(); ++row) {
    const Term& term = layer.terms[row];
    const double* const w =
        layer.polynomials + (static_cast<std::size_t>(z) * layer.num_polynomials + term.eta) * k;
    for (int c = 0; c < k; ++c) weights[trees.weight_of[row] * k + c] += term.coefficient * w[c];
  }
  return weights;
}

/// m_l = Σ_b M_l[b] Σ_k expansion[b][l, k] embedding[z][k] message_l[k'][k]
std::vector<double> Plan::source(const Compression& c, int k_irrep, int z) const {
  const Layer& layer = d_.layers[0];
  const int k = d_.channels;
  const auto path =
      std::find_if(layer.paths.begin(), layer.paths.end(), [&](const Path& p) { return p.out == k_irrep; });
  const std::size_t place = path - layer.paths.begin(), outputs = layer.paths.size() * k;
  std::vector<double> product(static_cast<std::size_t>(c.rank) * k, 0.0);
  for (int b = 0; b < c.rank; ++b)
    for (int out = 0; out < k; ++out) {
      double sum = 0.0;
      for (int a = 0; a < k; ++a)
        sum += c.expansion[b * outputs + place * k + a] * d_.embedding[z * k + a] *
               layer.combine[k_irrep][out * k + a];
      product[b * k + out] = sum;
    }
  return product;
}

}  // namespace mace
}  // namespace nearsight
