#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "core/models/mace/definition.hpp"
#include "core/models/mace/kernels.hpp"
#include "core/models/mace/panels.hpp"
#include "core/models/mace/plan.hpp"
#include "core/models/shared/aligned.hpp"

namespace nearsight {
namespace mace {

/// A map of the channels and its transpose.
template <class T>
struct Map {
  Panels<T> forward, reverse;
};

/// Radial functions of one pair of species at the knots: [group][knot][kJet][width], or the density.
template <class T>
struct RadialTable {
  AlignedBuffer<T> functions;
  AlignedBuffer<double> density;  // [knot][3]
};

/// What a layer has once.
template <class T>
struct LayerTables {
  std::vector<Map<T>> combine, up, update;  // of the message, input, output irreps
  Panels<T> readout_forward, readout_reverse;
  std::vector<double> readout;  // of the last dense layer of the readout, [in][columns]
  std::vector<Row<T>> couplings;
  Polynomials polynomials;
  Trees trees;
  int groups, width;  // of radial functions: paths and padded channels, or 1 and padded rank
};

/// What a layer has for a species that occurs.
template <class T>
struct SpeciesTables {
  std::vector<Map<T>> source;        // of the first layer and neighbors of this species, for each l
  std::vector<Map<T>> select, skip;  // of the message and output irreps; empty panels: none
  AlignedBuffer<T> weights;          // of the products, [channels / kPad][num_weights][kPad]
  AlignedBuffer<T> constant;         // [channels]
};

/// Weights in the type and order of the kernels. Those of a species are made when it occurs first.
template <class T>
class Engine {
 public:
  /// Tables for interpolation, or radial functions evaluated for every edge: slow, as an oracle.
  enum class Radials { tables, analytic };

  Engine(const Definition& definition, Radials radials);

  /// Makes what these species need, and their pairs; several threads may ask at once.
  void require(const std::vector<int>& species) const;

  const Definition& definition() const { return d_; }
  const Grid& grid() const { return plan_.grid(); }
  bool is_analytic() const { return analytic_; }
  int channels() const { return channels_; }
  const HarmonicFactors<T>& harmonics() const { return harmonics_; }
  const LayerTables<T>& layer(int t) const { return layers_[t]; }
  const SpeciesTables<T>& species(int t, int z) const { return *species_[t][z]; }
  const RadialTable<T>& radial(int t, int a, int b) const { return *radial_[t][plan_.pair_of(a, b)]; }
  double pair(int a, int b) const { return plan_.pairs()[plan_.pair_of(a, b)]; }
  /// Writes the functions at distances, as the knots of a table are; groups are `stride` apart.
  void fill_knots(int t, Span<const double> distances, double pair, T* knots, std::size_t stride) const;
  const RadialNetwork& density(int t) const { return plan_.density(t); }

 private:
  void make_layer(int t);
  std::unique_ptr<SpeciesTables<T>> make_species(int t, int z) const;
  std::unique_ptr<RadialTable<T>> make_radial(int t, double pair) const;
  Map<T> map(Matrix matrix, int groups = 1) const;

  const Definition& d_;
  const int channels_;  // padded
  const bool analytic_;
  const Plan plan_;
  HarmonicFactors<T> harmonics_;
  Compression first_;  // of the radial functions of the first layer
  std::vector<LayerTables<T>> layers_;
  mutable std::mutex mutex_;
  mutable std::vector<std::vector<std::unique_ptr<SpeciesTables<T>>>> species_;  // [layers][species]
  mutable std::vector<std::vector<std::unique_ptr<RadialTable<T>>>> radial_;     // [layers][pairs]
};

}  // namespace mace
}  // namespace nearsight
