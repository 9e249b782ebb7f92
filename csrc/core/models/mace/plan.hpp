#pragma once
#include <vector>

#include "core/models/mace/definition.hpp"
#include "core/models/mace/radial.hpp"

namespace nearsight {
namespace mace {

/// The polynomials of a layer as trees, see Polynomials.
struct Trees {
  std::vector<int> first_root;
  std::vector<Node> roots, middles, leaves;
  std::vector<int> weight_of;  // [terms of the layer]
  int num_weights = 0;
};

/// What engines on CPUs and on GPUs make their tables from, in double and without padding. The definition
/// must outlive it.
class Plan {
 public:
  Plan(const Definition& definition, bool mixed);
  Plan(const Plan&) = delete;  // networks point into the definition, grids are chosen once
  Plan& operator=(const Plan&) = delete;

  const Definition& definition() const { return d_; }
  const Grid& grid() const { return grid_; }
  /// Distinct sums of the radii of two species, Å, and which of them a pair has.
  const std::vector<double>& pairs() const { return pairs_; }
  int pair_of(int a, int b) const { return pair_of_[a * d_.num_species() + b]; }

  const RadialNetwork& network(int t) const { return networks_[t]; }
  const RadialNetwork& density(int t) const { return densities_[t]; }
  /// Few functions that stand for the last hidden layer of a layer's radial network.
  Compression compressed(int t) const;
  /// Value, slope and curvature by the place on the grid of these functions, [distance][kJet][rank].
  std::vector<double> functions(int t, const Compression& c, Span<const double> distances, double pair) const;

  Trees trees(int t) const;
  /// Weights of a layer's trees for centers of species z, [weight][channel].
  std::vector<double> product_weights(int t, const Trees& trees, int z) const;
  /// What the first layer's moments of neighbors of species z give to the k-th message irrep, [function]
  /// [channel]: the rest of the radial network, embedding and message map in one.
  std::vector<double> source(const Compression& c, int k, int z) const;

 private:
  void find_pairs();

  const Definition& d_;
  const bool mixed_;
  Grid grid_;
  std::vector<double> pairs_, samples_;  // samples: pairs that tolerances are measured for
  std::vector<int> pair_of_;
  std::vector<RadialNetwork> networks_, densities_;
};

}  // namespace mace
}  // namespace nearsight
