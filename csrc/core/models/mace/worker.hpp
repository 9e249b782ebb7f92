#pragma once
#include <memory>
#include <vector>

#include "core/engine/potential.hpp"
#include "core/engine/threads.hpp"
#include "core/models/mace/engine.hpp"
#include "core/models/mace/tile_edges.hpp"

namespace nearsight {
namespace mace {

constexpr int kTile = 32;  // receivers whose sums over edges are in the cache together

/// Forward and reverse. Rows of a tile are sorted by species. Features of a tile lie as [irrep][row][2 l + 1]
/// [channels], those that neighbors read as [atom of the domain][component][channels].
template <class T>
class MaceWorker final : public Worker {
 public:
  MaceWorker(const Engine<T>& engine, const WorkerOptions& options);
  ~MaceWorker() override;

  void forward(const Graph& graph, Span<double> readouts) override;
  void reverse(const Graph& graph, Span<const double> cotangents, Span<double> edge_gradients) override;

 private:
  struct Tile {
    std::size_t first;
    int count;
    bool owned;
  };
  struct Scratch;  // what one thread owns
  struct Pass;     // one layer, one tile

  void split(const Graph& graph);
  void require(const Graph& graph);
  template <class Body>
  void for_tiles(bool only_owned, const Body& body);
  void check_readouts(const Graph& graph, Span<const double> readouts) const;
  [[noreturn]] void fail(const Graph& graph, std::size_t row, const char* what) const;

  void forward_tile(const Pass& pass, Span<double> readouts);
  void combine(const Pass& pass, T* messages);
  void first_messages(const Pass& pass, T* messages);
  void later_messages(const Pass& pass, T* messages);
  void normalize(const Pass& pass, T* messages);
  void update(const Pass& pass, const T* products);
  void read_out(const Pass& pass, Span<double> readouts);
  void send(const Pass& pass);

  void reverse_tile(const Pass& pass, Span<const double> cotangents, Span<double> edge_gradients);
  void receive(const Pass& pass);
  void read_out_reverse(const Pass& pass, Span<const double> cotangents);
  void products_reverse(const Pass& pass);
  void normalize_reverse(const Pass& pass);
  void first_messages_reverse(const Pass& pass);
  void later_messages_reverse(const Pass& pass);
  void write_gradients(const Pass& pass, Span<const double> cotangents, Span<double> edge_gradients);
  void sum_adjoints(int t, std::size_t atoms);

  const Engine<T>& engine_;
  const Definition& d_;
  const int channels_;  // padded
  const Exchange* exchange_;
  ThreadPool threads_;
  std::vector<std::unique_ptr<Scratch>> scratch_;
  std::vector<bool> known_;   // [species]
  std::vector<int> species_;  // that are known
  std::vector<Tile> tiles_;
  std::vector<int> order_;  // [rows] center of the graph
  // Of each layer; those of rows in the order of the tiles.
  struct Kept {
    AlignedBuffer<T> sources;             // u [atoms][components][channels] of the input
    AlignedBuffer<T> messages;            // m
    AlignedBuffer<T> features, adjoints;  // h of the output
    std::vector<double> inverse_density;  // 1 / (1 + ρ)
  };
  std::vector<Kept> kept_;
  AlignedBuffer<T> received_;  // adjoints of the sources of the layer after the one in reverse
};

}  // namespace mace
}  // namespace nearsight
