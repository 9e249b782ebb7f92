#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "core/engine/graph.hpp"
#include "core/neighbors/neighbor_list.hpp"

namespace nearsight {

/// The part of a system that one process sees: owned atoms first, then ghosts. See ns_domain in the C API.
struct Domain {
  std::size_t num_owned = 0;
  Span<const double> positions;          // [3 * atoms] Å
  Span<const int> species;               // [atoms], -1: outside the model
  Cell cell{};                           // of the whole system; only couples with charges look at it
  std::optional<double> total_charge{};  // e, of the whole system
};

/// A host's full neighbor list, indexed by atom; entries are masked first.
struct HostList {
  Span<const int> centers;
  const int* num_neighbors = nullptr;
  const int* const* neighbors = nullptr;
  int mask = -1;
};

/// Growing arrays behind a Graph; reused from tile to tile.
class EdgeBuffer {
 public:
  void clear();
  /// Appends the edges of `center` within the cutoff; throws Error (numeric) for atoms on top of each other.
  void append(const Domain& domain, double cutoff, int center, const HostList& list);
  void append(const Domain& domain, double cutoff, int center, const NeighborList& list, const Cell& cell);
  Graph graph(const Domain& domain) const;
  std::size_t num_rows() const { return num_rows_; }

 private:
  void reserve(std::size_t more);
  void finish(const Domain& domain, int center, double min_squared_distance, bool numbered);

  std::vector<int> centers_, neighbors_;
  std::vector<std::int64_t> offsets_{0};
  std::vector<double> vectors_;
  std::size_t num_edges_ = 0, num_rows_ = 0;
};

}  // namespace nearsight
