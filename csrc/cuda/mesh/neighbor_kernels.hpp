#pragma once
// Lists of neighbors of charges in a periodic box, smaller than the cutoff or not.
#include "cuda/mesh/short_range.hpp"

namespace nearsight {
namespace cuda {

/// keys[i] = cell of charge i << 32 | i, of other ranks' behind all cells.
__global__ void find_cells(DeviceCharges charges, Axes axes, CellGrid grid, std::uint64_t* keys) {
  const std::size_t i = thread_number();
  if (i >= static_cast<std::size_t>(charges.count)) return;
  int cell = i < static_cast<std::size_t>(charges.own) ? 0 : 1;
  for (int d = 0; d < 3; ++d) {
    const double s = axes.fraction(charges.positions + 3 * i, d), f = s - floor(s);
    const int c = static_cast<int>(f * grid.size[d]);
    cell = cell * grid.size[d] + (c < grid.size[d] ? c : grid.size[d] - 1);
  }
  keys[i] = static_cast<std::uint64_t>(cell) << 32 | i;
}

__global__ void find_anchors(DeviceCharges charges, Axes axes, int num_cells, const std::uint64_t* keys,
                             std::int32_t* order, Anchor* anchors) {
  const std::size_t k = thread_number();
  if (k >= static_cast<std::size_t>(charges.count)) return;
  const std::size_t i = keys[k] & 0xffffffffu;
  Anchor anchor;
  anchor.cell = static_cast<int>(keys[k] >> 32) % num_cells;
  for (int d = 0; d < 3; ++d)
    anchor.box[d] = static_cast<int>(floor(axes.fraction(charges.positions + 3 * i, d)));
  order[k] = static_cast<std::int32_t>(i);
  anchors[k] = anchor;
}

__global__ void search_starts(int count, int num_places, const std::uint64_t* keys, std::int32_t* starts) {
  const std::size_t place = thread_number();
  if (place > static_cast<std::size_t>(num_places)) return;
  int low = 0, high = count;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (keys[middle] >> 32 < place)
      low = middle + 1;
    else
      high = middle;
  }
  starts[place] = low;
}

/// Coordinates of a cell.
__device__ inline void cell_place(const CellGrid& grid, int cell, int* place) {
  for (int d = 2; d >= 0; --d, cell /= grid.size[d + 1]) place[d] = cell % grid.size[d];
}

template <class T>
__global__ void place_charges(DeviceCharges charges, Axes axes, CellGrid grid, const std::int32_t* order,
                              const Anchor* anchors, Vec4<T>* places, T* values, T* widths2) {
  const std::size_t k = thread_number();
  if (k >= static_cast<std::size_t>(charges.count)) return;
  const std::size_t i = order[k];
  const Anchor anchor = anchors[k];
  int cell[3];
  cell_place(grid, anchor.cell, cell);
  double r[3];
  for (int c = 0; c < 3; ++c) r[c] = charges.positions[3 * i + c];
  for (int d = 0; d < 3; ++d) {
    const double middle = anchor.box[d] + (cell[d] + 0.5) / grid.size[d];
    for (int c = 0; c < 3; ++c) r[c] -= middle * axes.vectors[3 * d + c];
  }
  const T q = static_cast<T>(charges.values[i]);
  places[k] = {static_cast<T>(r[0]), static_cast<T>(r[1]), static_cast<T>(r[2]), q};
  values[k] = q;
  const double width = charges.widths ? charges.widths[i] : 0.0;
  widths2[k] = static_cast<T>(width * width);
}

template <class T>
struct NeighborSearch {
  int own, parts, bits;
  T reach2;  // Å²
  CellGrid grid;
  const std::int32_t* starts;
  const Anchor* anchors;
  const Vec4<T>* places;
  const Vec4<T>* offsets;
};

/// Calls found(bits of the lanes with a neighbor, neighbor) for 32 candidates at a time of charge k. By a
/// warp.
template <class T, class Found>
__device__ inline void search_around(const NeighborSearch<T>& search, int k, const Found& found) {
  const CellGrid& grid = search.grid;
  const Vec4<T> here = search.places[k];
  int home[3];
  cell_place(grid, search.anchors[k].cell, home);
  std::uint32_t code = 0;
  int shift[3];
  for (shift[0] = -grid.reach[0]; shift[0] <= grid.reach[0]; ++shift[0])
    for (shift[1] = -grid.reach[1]; shift[1] <= grid.reach[1]; ++shift[1])
      for (shift[2] = -grid.reach[2]; shift[2] <= grid.reach[2]; ++shift[2], ++code) {
        int cell = 0;
        for (int d = 0; d < 3; ++d) {
          const int c = (home[d] + shift[d]) % grid.size[d];
          cell = cell * grid.size[d] + (c < 0 ? c + grid.size[d] : c);
        }
        const bool own_cell = shift[0] == 0 && shift[1] == 0 && shift[2] == 0;
        const Vec4<T> offset = search.offsets[code];
        for (int part = 0; part < search.parts; ++part, cell += grid.num_cells()) {
          const int last = search.starts[cell + 1];
          for (int first = search.starts[cell]; first < last; first += kWarp) {
            const int j = first + static_cast<int>(lane_number());
            bool near = j < last && !(own_cell && j == k);
            if (near) {
              const Vec4<T> there = search.places[j];
              const T x = there.x - here.x + offset.x, y = there.y - here.y + offset.y,
                      z = there.z - here.z + offset.z;
              near = x * x + y * y + z * z < search.reach2;
            }
            found(__ballot_sync(kAllLanes, near), near, code << search.bits | static_cast<std::uint32_t>(j));
          }
        }
      }
}

template <class T>
__global__ void count_neighbors(NeighborSearch<T> search, std::int32_t* counts) {
  const std::size_t k = warp_number();
  if (k >= static_cast<std::size_t>(search.own)) return;
  int count = 0;
  search_around(search, static_cast<int>(k),
                [&](unsigned hits, bool, std::uint32_t) { count += __popc(hits); });
  if (lane_number() == 0) counts[k] = count;
}

template <class T>
__global__ void write_neighbors(NeighborSearch<T> search, const std::int64_t* rows,
                                std::uint32_t* neighbors) {
  const std::size_t k = warp_number();
  if (k >= static_cast<std::size_t>(search.own)) return;
  std::int64_t next = rows[k];
  const unsigned below = (1u << lane_number()) - 1;
  search_around(search, static_cast<int>(k), [&](unsigned hits, bool near, std::uint32_t neighbor) {
    if (near) neighbors[next + __popc(hits & below)] = neighbor;
    next += __popc(hits);
  });
}

}  // namespace cuda
}  // namespace nearsight
