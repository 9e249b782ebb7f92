#pragma once
#include <vector>

#include "cuda/engine/potential.hpp"
#include "cuda/models/mace/readout.hpp"
#include "cuda/models/mace/tables.hpp"

namespace nearsight {
namespace cuda {
namespace mace {

/// Forward and reverse; the twin of core's MaceWorker. Features lie as [row][component][channels], A of the
/// later layers as [row][message irrep][m][path][channels].
template <class T>
class MacePotential final : public Potential<T> {
 public:
  MacePotential(Definition definition, const Stream& stream);

  void forward(const Stream& stream, const Graph<T>& graph, double* readouts) override;
  void reverse(const Stream& stream, const Graph<T>& graph, const double* cotangents,
               Vec4<T>* gradients) override;
  std::size_t tile() const override;
  bool wants_sources() const override { return tables_.num_layers() > 1; }
  bool exchanges() const override { return tables_.num_layers() > 1; }

 private:
  /// Rows of a layer that receive messages, and those of them with a readout.
  struct Rows {
    int count;
    const Buffer<RowTile>* tiles;
  };
  /// Of one layer, from forward for reverse.
  struct Kept {
    Buffer<T> sources;             // u [atoms][inputs][channels]
    Buffer<T> messages;            // m as they enter the polynomials
    Buffer<T> inverse_density;     // 1 / (1 + ρ)
    Buffer<T> features, adjoints;  // h of the output
    Buffer<T> hidden;              // of the readout
  };

  void split(const Stream& stream, const Graph<T>& graph);
  Rows rows_of(int t, const Graph<T>& graph) const;
  bool is_last(int t) const { return t + 1 == tables_.num_layers(); }
  int width(int components) const { return components * tables_.channels(); }

  MomentWork<T> moment_work(const Graph<T>& graph) const;
  ProductWork<T> product_work(int t, const Rows& rows) const;
  ReadoutWork<T> readout_work(int t, const Graph<T>& graph) const;
  PathWork<T> path_work(int t, const Edges<T>& edges, int rows, const EdgeArrays<T>& arrays) const;
  void prepare_edges(const Stream& stream, int t, const Graph<T>& graph);

  void sum_messages(const Stream& stream, int t, const Graph<T>& graph);
  void update(const Stream& stream, int t, const Graph<T>& graph);
  void read_out_layer(const Stream& stream, int t, const Graph<T>& graph, double* readouts);
  void send(const Stream& stream, int t, const Graph<T>& graph);

  void read_out_layer_reverse(const Stream& stream, int t, const Graph<T>& graph, const double* cotangents);
  const T* update_reverse(const Stream& stream, int t, const Graph<T>& graph);
  void later_messages_reverse(const Stream& stream, int t, const Graph<T>& graph);
  void sources_reverse(const Stream& stream, int t, const Graph<T>& graph);

  Tables<T> tables_;
  std::vector<Kept> kept_;
  std::vector<RowTile> host_tiles_[2];
  Buffer<RowTile> tiles_[2];      // of all rows; of those with readouts
  Buffer<double> pair_energies_;  // [rows]
  Buffer<T> sums_;                // moments or A, then their adjoints
  Buffer<T> raw_messages_, of_messages_, of_raw_messages_, products_, of_hidden_, of_sources_;
  // Edges as later layers see them, and what reverse has found of them.
  int prepared_ = 0;  // layer whose functions are there
  Buffer<T> edge_harmonics_, edge_functions_, edge_slopes_, source_harmonics_, source_functions_;
  Buffer<T> of_harmonics_, of_distances_;
};

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
