#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "core/engine/batch.hpp"
#include "core/neighbors/cell.hpp"
#include "cuda/device.hpp"
#include "cuda/primitives.hpp"

namespace nearsight {
namespace cuda {

/// Atoms of the host in the order in which a device keeps them: owned centers by species, ghost centers by
/// species, the others; within each of these by place, so that neighbors in space are neighbors in memory.
/// Atoms outside of the model are not among them.
struct AtomOrder {
  int num_atoms = 0, num_rows = 0, num_centers = 0;
  std::vector<int> species_first;  // [2 * species + 1] first owned center of each species, then ghost center
  Buffer<std::int32_t> atoms;      // [atoms] number of the host's atom
  Buffer<std::int32_t> species;    // [atoms]
};

/// The class of each of the host's atoms: its species, + number of species for ghost centers, + twice that
/// for those that are no centers; -1 outside of the model.
using AtomClasses = std::vector<std::int32_t>;

/// Translation of a neighbor in lattice vectors, r_ij = r_j - r_i + image · cell.
struct alignas(8) Image {
  std::int16_t x, y, z;
};

struct Matrix {
  double m[9];
};

/// A system's cell and bins.
struct Box;

/// The systems of a batch in the device's memory.
struct SystemsView {
  const std::int32_t* of_atoms = nullptr;  // [host atoms] system of each; null: one system
  const Matrix* lattices = nullptr;        // [systems]
};

/// A list with skin, made on the device: linked cells, any triclinic cell, any mix of periodic directions,
/// cells smaller than the cutoff. Counted before it is written, so there is nothing that could overflow.
class NeighborList {
 public:
  /// With `all_rows` atoms that are no centers have rows too, in which their centers are.
  NeighborList(double cutoff, double skin, int num_species, bool all_rows);

  /// positions[3 * host atoms] of device memory, Å. Makes the list anew where atoms have moved too far, or
  /// where `changed` says that they are others. Waits for the device. Throws what core's complete() and
  /// check_positions() throw.
  void update(const Stream& stream, Span<const double> positions, const Cell& cell,
              const AtomClasses& classes, bool changed);

  /// The list of several systems, where positions are theirs; it is made anew, without skin to keep it for.
  void update(const Stream& stream, Span<const double> positions, Span<const std::size_t> first_atoms,
              Span<const Cell> cells, const AtomClasses& classes);

  const AtomOrder& order() const { return order_; }
  /// Places of the rows, on the host and the device: [rows + 1].
  const std::vector<std::int64_t>& host_offsets() const { return host_offsets_; }
  const Buffer<std::int64_t>& offsets() const { return offsets_; }
  const Buffer<std::int32_t>& neighbors() const { return neighbors_; }
  /// Of neighbors, for points(); empty without periodic directions.
  const Buffer<Image>& images() const { return images_; }
  /// Positions of the last update().
  const Buffer<Vec4<double>>& points() const { return points_; }
  /// Of the last update(), where it was of one system.
  const Mat3& lattice() const { return lattice_; }
  SystemsView systems() const {
    return systems_.empty() ? SystemsView{} : SystemsView{systems_.data(), lattices_.data()};
  }
  double cutoff() const { return cutoff_; }
  long num_builds() const { return num_builds_; }

 private:
  bool holds(const Stream& stream, const double* positions, std::size_t count, const Cell& cell);
  void make(const Stream& stream, Span<const double> positions, Span<const std::size_t> first_atoms,
            Span<const Cell> cells, const AtomClasses& classes);
  int find_boxes(const Stream& stream, Span<const double> positions, Span<const std::size_t> first_atoms,
                 Span<const Cell> cells);
  void find_order(const Stream& stream, const double* positions, const AtomClasses& classes);
  void find_neighbors_of_all(const Stream& stream, const double* positions, int num_bins);
  void gather(const Stream& stream, const double* positions);

  const double cutoff_, skin_;
  const int num_species_;
  const bool all_rows_;
  long num_builds_ = 0;
  bool valid_ = false, is_periodic_ = false;
  Cell cell_;                 // of the last build
  Buffer<double> last_;       // positions of the last build
  std::size_t num_host_ = 0;  // their atoms
  Mat3 lattice_{};            // of the last update
  Buffer<Box> boxes_;         // of the last build
  Buffer<Matrix> lattices_;   // likewise, of several systems
  Buffer<std::int32_t> systems_;
  AtomOrder order_;
  Primitives primitives_;
  Buffer<std::int32_t> classes_, wraps_, rank_, bin_first_, counts_, neighbors_;
  Buffer<std::uint64_t> search_keys_, order_keys_;
  Buffer<Vec4<double>> points_;            // as given
  Buffer<Vec4<double>> wrapped_, sorted_;  // by number; by bin
  Buffer<std::int32_t> numbers_;           // of sorted_
  Buffer<std::int64_t> offsets_;
  std::vector<std::int64_t> host_offsets_;
  Buffer<Image> images_;
  Buffer<int> flag_;
};

}  // namespace cuda
}  // namespace nearsight
