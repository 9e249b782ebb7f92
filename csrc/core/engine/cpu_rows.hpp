#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "core/engine/edges.hpp"
#include "core/engine/potential.hpp"
#include "core/engine/row_engine.hpp"
#include "core/engine/threads.hpp"

namespace nearsight {

/// Rows in tiles, tiles in threads. The potential, the threads and an exchange outlive it.
class CpuRows final : public RowEngine {
 public:
  /// Appends the edges of a center.
  using Append = std::function<void(EdgeBuffer&, int center)>;

  CpuRows(const Potential& potential, int columns, bool double_precision, const Exchange* exchange,
          ThreadPool& threads);
  ~CpuRows() override;

  /// What follows is about this structure, whose arrays outlive it: rows are those of `owned`, and `ghosts`
  /// are further centers. Extrapolations are found in reverse passes; null spans: not wanted.
  void load(const Domain& domain, Span<const int> owned, Span<const int> ghosts, Append append,
            const Extrapolations& found);

  void forward(Span<double> readouts) override;
  void reverse(Span<const Pull> pulls) override;
  void evaluate(Span<const Pull> pulls, Span<double> readouts) override;
  /// Lists are made by others.
  long num_list_builds() const override { return 0; }

 private:
  struct Memory;  // what a worker needs for reverse
  struct Lane;    // what one thread owns
  struct Tile {
    std::size_t number, first, count;  // rows
  };
  using Body = std::function<void(Lane&, Memory&, const Tile&)>;

  void for_tiles(std::size_t most_kept, const Body& body);
  void run_forward(Memory& memory, const Tile& tile, Span<double> readouts) const;
  void run_reverse(Lane& lane, Memory& memory, Span<const double> cotangents, const EdgeSums& sums) const;
  void open(Span<const Pull> pulls);
  void close(Span<const Pull> pulls);

  const Potential& potential_;
  const std::size_t columns_;
  ThreadPool& threads_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  Domain domain_;
  Span<const int> owned_, ghosts_;
  Append append_;
  Extrapolations found_;
  std::vector<double> readouts_;  // of tiles that run forward again
};

}  // namespace nearsight
