#pragma once
#include <vector>

#include "core/engine/graph.hpp"
#include "core/models/mace/engine.hpp"

namespace nearsight {
namespace mace {

/// The edges of a tile of receivers in the arrays of the kernels, sorted by the species of the neighbor.
template <class T>
class TileEdges {
 public:
  /// What the kernels do not need, in double.
  struct Edge {
    std::int64_t number;  // in the graph
    int neighbor, species;
    double slope;  // dE/dr that is not of the kernels
  };

  /// Receivers are the graph's centers[rows[0 … count - 1]].
  void load(const Engine<T>& engine, const Graph& graph, const int* rows, int count);
  /// Points to the radial functions of a layer; analytic ones are evaluated here.
  void choose_layer(const Engine<T>& engine, int t);
  /// Rows [atoms][width] of the neighbors; adjoints may be null.
  void choose_features(const T* features, T* adjoints, int width);
  /// Zeros what the reverse kernels add to.
  void clear_adjoints();

  int size() const { return static_cast<int>(views_.size()); }
  const Edges<T>& operator[](int receiver) const { return views_[receiver]; }
  Span<Edge> edges(int receiver) { return {edges_.data() + first_[receiver], counts_[receiver]}; }
  int receiver_species(int receiver) const { return species_[receiver]; }
  /// Distance of a path's functions in a table.
  std::ptrdiff_t group_stride() const { return group_stride_; }
  int longest() const { return longest_; }  // receiver, in padded edges

  /// The species among the neighbors of the tile, and the neighbors of each.
  const std::vector<int>& neighbor_species() const { return present_; }
  Span<const int> bounds(int receiver) const {  // [neighbor_species().size() + 1]
    const std::size_t n = present_.size() + 1;
    return {bounds_.data() + receiver * n, n};
  }

 private:
  void find_species(const Graph& graph, const int* rows, int count, int num_species);
  void sort(const Graph& graph, int center, int receiver);
  void evaluate_functions(const Engine<T>& engine, int t);

  std::vector<Edges<T>> views_;
  std::vector<std::size_t> first_, counts_;  // [receivers] edges without padding
  std::vector<int> species_, present_, slot_of_, bounds_, cursor_;
  std::vector<Edge> edges_;
  std::vector<const T*> tables_, features_;
  std::vector<T*> adjoints_;
  AlignedBuffer<T> arrays_, functions_;
  AlignedBuffer<double> vectors_;
  AlignedBuffer<int> knots_;
  std::ptrdiff_t group_stride_ = 0;
  int longest_ = 0;
};

}  // namespace mace
}  // namespace nearsight
