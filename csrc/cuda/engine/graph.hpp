#pragma once
#include <cstdint>
#include <vector>

#include "cuda/device.hpp"

namespace nearsight {
namespace cuda {

/// Edges of some centers, for kernels. Atoms have the numbers of AtomOrder; centers come first, so that row
/// and atom number of a center are the same. Of row `i` the edges are begin(i) ... begin(i) + counts[i] - 1.
template <class T>
struct Edges {
  int first_row, num_rows;        // of centers seen here: first_row ... first_row + num_rows - 1
  const std::int32_t* species;    // [atoms]
  const std::int64_t* offsets;    // [rows + 1] of all centers: places, of which a row uses the first `counts`
  std::int64_t first_place;       // offsets[first_row]
  const std::int32_t* counts;     // [rows] of all centers
  const std::int32_t* neighbors;  // [places from first_place on] atom j
  const Vec4<T>* vectors;         // likewise: r_ij = r_j - r_i, and |r_ij| < cutoff, Å

  __host__ __device__ std::int64_t begin(int row) const { return offsets[row] - first_place; }
};

/// Features of atoms between the layers of a model, where the host has split the system: rows of device
/// memory in the numbers of AtomOrder.
class RowExchange {
 public:
  virtual ~RowExchange() = default;
  /// rows[atoms][width]: those of ghosts become those of their owners.
  virtual void forward(float* rows, int width) const = 0;
  virtual void forward(double* rows, int width) const = 0;
  /// Those of ghosts are added to those of their owners.
  virtual void reverse(float* rows, int width) const = 0;
  virtual void reverse(double* rows, int width) const = 0;
};

/// What a potential sees: the edges, and what its host code needs to know of them. Centers with readouts
/// (owned atoms) come first, sorted by species, then ghost centers, sorted by species, then the other atoms.
template <class T>
struct Graph {
  Edges<T> edges;
  int num_atoms = 0;
  int num_rows = 0;             // of readouts among edges.num_rows: the first ones
  int num_centers = 0;          // rows of all tiles
  std::int64_t num_places = 0;  // of the edges seen here
  struct Run {
    int species, first, last;  // rows first ... last - 1
  };
  std::vector<Run> runs;     // rows seen here by species, in their order
  std::vector<int> species;  // that occur among all atoms, upward; empty: unknown
  /// Only of potentials that ask for it (Potential::wants_sources): edges of the atoms that are no centers,
  /// to the centers that have them for neighbors, in rows num_centers ... num_atoms - 1. Together with those
  /// of the centers every edge i -> j is there as j -> i too.
  Edges<T> sources{};
  std::int64_t num_source_places = 0;
  const RowExchange* exchange = nullptr;  // null: every neighbor is a center
};

}  // namespace cuda
}  // namespace nearsight
