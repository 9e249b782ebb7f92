#pragma once
// Blocks of neighboring atoms, and lists of the images of atoms near each block.
#include "core/mesh/periodic.hpp"
#include "cuda/mesh/short_range.hpp"

namespace nearsight {
namespace cuda {

constexpr int kBlockAtoms = 32;  // in the lanes of a warp

/// Where an atom was when the list was made: its cell, and of which image of the box.
struct Home {
  int cell[3], box[3];
};

/// A neighbor of a block: the number of an atom, and the cell of its image relative to that of the first atom
/// of the block.
struct Neighbor {
  static constexpr int kBits = 11, kMiddle = 1 << (kBits - 1);

  __host__ __device__ static std::uint64_t pack(std::uint32_t atom, const int* shift) {
    std::uint64_t entry = 0;
    for (int d = 0; d < 3; ++d) entry = entry << kBits | static_cast<std::uint64_t>(shift[d] + kMiddle);
    return entry << 31 | atom;
  }
  __host__ __device__ static std::uint32_t atom(std::uint64_t entry) { return entry & 0x7fffffffu; }
  __host__ __device__ static int shift(std::uint64_t entry, int d) {
    return static_cast<int>(entry >> (31 + kBits * (2 - d)) & ((1u << kBits) - 1)) - kMiddle;
  }
};

/// Vectors along which cells follow one another, Å.
struct CellVectors {
  double v[9];

  __device__ Vec4<double> moved(Vec4<double> place, int a, int b, int c) const {
    place.x += a * v[0] + b * v[3] + c * v[6];
    place.y += a * v[1] + b * v[4] + c * v[7];
    place.z += a * v[2] + b * v[5] + c * v[8];
    return place;
  }
};

/// Atoms in the order of blocks, for kernels; behind those of this rank, which blocks are made of, others
/// that they see. Neighbors of block b and species s are entries rows[b * num_species + s] ... rows[b *
/// num_species + s + 1] - 1 of a list.
struct BlockAtoms {
  int count, own, num_species;
  const std::int32_t* order;    // numbers of the host
  const std::int32_t* species;  // in the order of blocks
  const Home* homes;
  const Vec4<double>* places;  // relative to the middle of the atom's cell, Å
  CellVectors cells;

  int num_blocks() const { return (own + kBlockAtoms - 1) / kBlockAtoms; }
  /// An atom relative to the cell of another.
  __device__ Vec4<double> place(int atom, const int* origin) const {
    const Home& home = homes[atom];
    return cells.moved(places[atom], home.cell[0] - origin[0], home.cell[1] - origin[1],
                       home.cell[2] - origin[2]);
  }
};

/// Those of a block within a reach of any of its atoms; the atoms themselves included.
struct BlockList {
  Buffer<std::int32_t> counts;
  Buffer<std::int64_t> rows;
  Buffer<std::uint64_t> neighbors;
};

/// Sorts atoms along a path through cells, those of this rank first, and within a cell by species, and finds
/// the images near each block.
class AtomBlocks {
 public:
  /// positions[3 · count], Å, and species[count] of device memory, of which the first `own` are this rank's;
  /// lists reach up to `reach`, Å. Throws what make_cells throws.
  void sort(const Stream& stream, const double* positions, const std::int32_t* species, int num_species,
            std::size_t count, std::size_t own, const Box& box, double reach);

  /// Puts the atoms where they are now.
  void place(const Stream& stream, const double* positions, const Box& box);

  /// Waits for the device.
  void find(const Stream& stream, const Box& box, double reach, BlockList& list);

  BlockAtoms atoms() const;

 private:
  Primitives primitives_;
  CellGrid grid_{};
  int count_ = 0, own_ = 0, num_species_ = 0;
  CellVectors cells_{};
  Buffer<std::uint64_t> keys_;
  Buffer<std::int32_t> order_, species_, starts_;
  Buffer<Home> homes_;
  Buffer<Vec4<double>> places_;
};

}  // namespace cuda
}  // namespace nearsight
