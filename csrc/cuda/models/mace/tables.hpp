#pragma once
// Weights and tables of a model in device memory, in the order in which kernels read them.
#include <memory>
#include <vector>

#include "core/models/mace/plan.hpp"
#include "cuda/models/mace/moments.hpp"
#include "cuda/models/mace/paths.hpp"
#include "cuda/models/mace/products.hpp"

namespace nearsight {
namespace cuda {
namespace mace {

using nearsight::mace::Compression;
using nearsight::mace::Definition;
using nearsight::mace::Irreps;
using nearsight::mace::Layer;
using nearsight::mace::Matrix;
using nearsight::mace::Plan;
using nearsight::mace::Trees;

/// Matrices of one step of a layer, see LinearWork.
template <class T>
class Map {
 public:
  explicit Map(int columns = 0) : columns_(columns) {}

  /// Matrix number `n` of `species` of them, value(species, row, column) below inner and columns; then the
  /// parts that use it.
  template <class Value>
  void add_matrix(int inner, int species, const Value& value);
  void add_part(int from, int to) { parts_.push_back({from, to, inner_, first_}); }
  void upload(const Stream& stream);

  bool empty() const { return parts_.empty(); }
  /// Rows of `tiles`: y = x times the matrices.
  LinearWork<T> work(const Buffer<RowTile>& tiles, const T* x, int x_row, T* y, int y_row) const;

 private:
  int columns_, inner_ = 0;
  std::int64_t first_ = 0;            // place of the matrix added last
  std::vector<std::vector<T>> host_;  // [species]
  std::vector<Part> parts_;
  std::int64_t stride_ = 0;
  Buffer<T> weights_;
  Buffer<Part> device_parts_;
};

/// What is done forward with a matrix and in reverse with its transpose.
template <class T>
struct MapPair {
  Map<T> forward, reverse;
};

/// Functions of the distance for the pairs of species that occur.
template <class T>
struct FunctionTables {
  Buffer<T> tables;
  Buffer<std::int32_t> table_of;
  Functions<T> view;
};

/// One layer. Components of features and messages are rows of `channels` numbers.
template <class T>
struct LayerTables {
  int inputs, messages, outputs;                 // components
  int sums = 0;                                  // rows of A
  MapPair<T> combine, up, select, update, skip;  // combine: of the first layer from its moments
  Buffer<T> constant;                            // [species][channels], or empty
  Buffer<int> first_root;
  Buffer<nearsight::mace::Node> roots, middles, leaves;
  Buffer<T> weights;
  nearsight::mace::Polynomials polynomials;
  int num_weights;
  // Of later layers.
  Buffer<PathTable> paths;
  int num_paths = 0, num_phi = 0;
  struct CouplingTable {
    Buffer<std::int32_t> first;
    Buffer<CouplingTerm<T>> terms;
    Couplings<T> view() const { return {first.data(), terms.data()}; }
  } phi, phi_behind, harmonics;
  Buffer<T> radial;  // [functions][paths][channels]
  Compression compression;
  FunctionTables<T> functions, density;
  // Readout: the hidden layer, or empty; the last one in double [inputs][columns].
  MapPair<T> hidden;
  int hidden_width = 0, readout_inputs;
  Buffer<double> readout;

  bool has_density() const { return density_network != nullptr; }
  const nearsight::mace::RadialNetwork* density_network = nullptr;
};

template <class T>
class Tables {
 public:
  Tables(Definition definition, const Stream& stream);

  /// Makes what these species need, in their order: slots of the first layer, tables of pairs. An empty list
  /// are all.
  void require(const std::vector<int>& species, const Stream& stream);

  const Definition& definition() const { return d_; }
  int channels() const { return channels_; }  // padded
  int num_layers() const { return static_cast<int>(layers_.size()); }
  const LayerTables<T>& layer(int t) const { return *layers_[t]; }
  const HarmonicFactors<T>& harmonics() const { return harmonics_; }
  int slots() const { return static_cast<int>(present_.size()); }
  const std::int32_t* slot_of() const { return slot_of_.data(); }
  PairTerms pair_terms() const;
  const double* shift() const { return shift_.data(); }
  const double* scale() const { return scale_.data(); }

 private:
  void make_layer(int t, const Stream& stream);
  void make_products(int t, const Stream& stream);
  void make_paths(int t, const Stream& stream);
  void make_readout(int t, const Stream& stream);
  void make_sources(const Stream& stream);
  template <class Evaluate>
  void make_functions(int count, const Stream& stream, const Evaluate& evaluate, FunctionTables<T>& tables);
  void add_squares(const Irreps& from, const Irreps& to, const std::vector<int>& from_of,
                   const std::vector<Matrix>& matrices, int species, const Stream& stream, MapPair<T>& maps);

  const Definition d_;
  const Plan plan_;
  const int channels_;
  const HarmonicFactors<T> harmonics_;
  std::vector<std::unique_ptr<LayerTables<T>>> layers_;
  std::vector<int> present_;
  Buffer<std::int32_t> slot_of_;
  Buffer<double> numbers_, radii_, limits_, shift_, scale_;
};

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
