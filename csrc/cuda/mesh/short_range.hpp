#pragma once
#include <vector>

#include "core/mesh/kernels.hpp"
#include "core/mesh/region.hpp"
#include "cuda/mesh/charges.hpp"
#include "cuda/primitives.hpp"

namespace nearsight {
namespace cuda {

/// How the box is cut into cells, and which of them a cell's charges see.
struct CellGrid {
  int size[3];   // along the lattice vectors
  int reach[3];  // cells that the list reaches over, on each side

  __host__ __device__ int num_cells() const { return size[0] * size[1] * size[2]; }
  int num_offsets() const { return (2 * reach[0] + 1) * (2 * reach[1] + 1) * (2 * reach[2] + 1); }
};

/// Cells of a width, Å, or wider ones where few charges are in much space. Throws Error (argument) for a
/// reach, Å, over absurdly many images.
CellGrid make_cells(const Box& box, double width, double reach, std::size_t num_charges);

/// starts[c] = the first of the sorted keys that is at least c << 32; [num_places + 1].
void find_starts(const Stream& stream, int count, int num_places, const std::uint64_t* keys,
                 std::int32_t* starts);

/// Where a charge was when the list was made: its cell, and of which image of the box.
struct Anchor {
  int cell, box[3];
};

/// Neighbors of this rank's charges, numbers in the order of cells: of charge k [rows[k], rows[k + 1]), the
/// number of the neighbor and above `bits` that of the offset between their cells, which tells the image.
struct NeighborRows {
  int count;
  int bits;
  const std::int64_t* rows;
  const std::uint32_t* neighbors;
};

/// The twin of core's ShortRange, in numbers T with sums in double. Charges are sorted by cells, those of
/// this rank before those of others; each has a list of its own, which eight lanes share. Positions are
/// relative to the middles of cells, so that floats do; a neighbor is at the difference of two of them plus
/// the offset between the cells.
template <class T>
class ShortRange {
 public:
  ShortRange(double alpha, double cutoff, double skin);

  /// The charges of this rank and those of others that they see, for place(): other ones than in the last
  /// call where its list, of any rank, may lack pairs now. They are valid until the next call and as long as
  /// `own`. Collective.
  Charges collect(const Charges& own, const Box& box, const std::vector<Region>& regions, Ranks& ranks);

  /// Puts them where they are now, with a new list if it takes one. `positions` are those of this rank's on
  /// the host. `moved`: whether positions, widths or box have changed. Waits for the device where it makes a
  /// list.
  void place(const Stream& stream, const DeviceCharges& charges, Span<const double> positions, const Box& box,
             bool moved);

  /// Writes the sums over pairs, of this rank's charges.
  void sum(const Stream& stream, const ChargeSums& sums);

  /// Numbers of the host's charges in the order of cells, of this rank's first.
  const std::int32_t* order() const { return order_.data(); }
  /// Rows of ChargeSums::virials that sum() writes for n charges of this rank.
  static std::size_t num_rows(std::size_t n);
  long num_lists() const { return num_lists_; }

 private:
  void sort(const Stream& stream, const DeviceCharges& charges, const Box& box);
  void move(const Stream& stream, const DeviceCharges& charges, const Box& box);
  void find_neighbors(const Stream& stream);
  NeighborRows rows() const;
  void launch_pairs(const Stream& stream, bool fields, const ChargeSums& sums);

  pairs::Series<T> series_;
  Skin skin_;
  ChargeSurroundings surroundings_;
  Primitives primitives_;
  CellGrid grid_{};
  Mat3 vectors_{};           // of the box
  int own_ = 0, parts_ = 1;  // of the charges
  int bits_ = 0;
  bool stale_ = true, gaussian_ = false, known_ = false;
  long num_lists_ = 0;
  Buffer<std::uint64_t> keys_;
  Buffer<std::int32_t> order_, starts_, counts_;  // [n], [parts · cells + 1], [own]
  Buffer<Anchor> anchors_;                        // [n]
  Buffer<Vec4<T>> offsets_;                       // [num_offsets] Å
  Buffer<Vec4<T>> places_;                        // [n] relative to the cell, Å, and the charge, e
  Buffer<T> values_, widths2_;                    // [n] e, Å²
  Buffer<std::int64_t> rows_;
  Buffer<std::uint32_t> neighbors_;
  Buffer<T> coefficients_;  // of neighbors, 1/Å
};

extern template class ShortRange<float>;
extern template class ShortRange<double>;

}  // namespace cuda
}  // namespace nearsight
