#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/engine/graph.hpp"
#include "core/neighbors/neighbor_list.hpp"

namespace nearsight {

/// Order of the nine components of virials in centroid form: xx, yy, zz, xy, xz, yz, yx, zx, zy.
constexpr int kCentroidRow[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2};
constexpr int kCentroidColumn[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};

/// What the host says of a system with charges.
struct Outside {
  std::optional<double> total_charge{};  // e, of the whole system
  std::array<double, 3> field{};         // V/Å, uniform
  // In place of a total charge: molecules, numbered from 0 in all ranks, and the charge of each.
  Span<const int> molecules{};            // [atoms that the process owns]
  Span<const double> molecule_charges{};  // [molecules] e; empty: no molecules
  bool has_molecules() const { return !molecule_charges.empty(); }
};

struct DeviceArrays;

/// The part of a system that one process sees: owned atoms first, then ghosts. See ns_domain in the C API.
struct Domain {
  std::size_t num_owned = 0;
  Span<const double> positions;  // [3 * atoms] Å
  Span<const int> species;       // [atoms], -1: outside the model
  Cell cell{};                   // of the whole system; only couples with charges and dispersion look at it
  Outside outside{};             // likewise
  Span<double> memory{};         // [owned][Model::memory] in and out, or empty: nothing is known of before
  const DeviceArrays* arrays = nullptr;  // of a device, whose positions may be missing above
};

/// A host's full neighbor list, indexed by atom; entries are masked first.
struct HostList {
  Span<const int> centers;
  const int* num_neighbors = nullptr;
  const int* const* neighbors = nullptr;
  int mask = -1;
};

/// Å; closer pairs have no meaning for any potential, and their direction is round-off.
constexpr double kMinDistance = 1e-3;
/// Throws Error (numeric) for two atoms on top of each other, of which one is called `name`.
[[noreturn]] void throw_too_close(double distance, const std::string& name);

/// Growing arrays behind a Graph; reused from tile to tile.
class EdgeBuffer {
 public:
  void clear();
  /// Appends the edges of `center` within the cutoff; throws Error (numeric) for atoms on top of each other.
  void append(const Domain& domain, double cutoff, int center, const HostList& list);
  /// The list numbers its atoms from `first` of the domain on.
  void append(const Domain& domain, double cutoff, int center, const NeighborList& list, const Cell& cell,
              int first = 0);
  Graph graph(const Domain& domain) const;
  std::size_t num_rows() const { return num_rows_; }

 private:
  void reserve(std::size_t more);
  void finish(const Domain& domain, int center, double min_squared_distance, int number);

  std::vector<int> centers_, neighbors_;
  std::vector<std::int64_t> offsets_{0};
  std::vector<double> vectors_;
  std::size_t num_edges_ = 0, num_rows_ = 0;
};

}  // namespace nearsight
