#pragma once
// Products of features with matrices: rows of atoms, one matrix for each irrep, of each species or of all.
#include <cstdint>

#include "cuda/device.hpp"

namespace nearsight {
namespace cuda {
namespace mace {

constexpr int kTileRows = 64;  // of one block

/// At most kTileRows rows of one species.
struct RowTile {
  int first, count, species;

  friend bool operator==(const RowTile& a, const RowTile& b) {
    return a.first == b.first && a.count == b.count && a.species == b.species;
  }
};

/// y[to ...] of a row is x[from ...] of the same row, [inner], times a matrix [inner][columns].
struct Part {
  int from, to, inner;   // inner: a multiple of 4
  std::int64_t weights;  // place of the matrix among those of a species
};

template <class T>
struct LinearWork {
  const RowTile* tiles;
  int num_tiles;
  const Part* parts;
  int num_parts, columns;  // columns: a multiple of 4
  const T* weights;
  std::int64_t species_stride;  // 0: the same weights for all
  const T* x;
  std::int64_t x_row;  // numbers in a row
  T* y;
  std::int64_t y_row;
  bool add;            // to what y holds
  const T* row_scale;  // [rows] multiplies the products, or null
  const T* constant;   // [species][columns] added to the first part, or null
};

template <class T>
void multiply(const Stream& stream, const LinearWork<T>& work);

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
