#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/engine/error.hpp"
#include "core/mesh/blocks.hpp"
#include "core/mesh/series.hpp"
#include "cuda/mesh/neighbor_kernels.hpp"
#include "cuda/mesh/pair_kernels.hpp"
#include "cuda/mesh/short_range.hpp"

namespace nearsight {
namespace cuda {
namespace {

constexpr double kMargin = 1e-4;     // Å, for the round-off of floats
constexpr double kMostCells = 8;     // for each charge
constexpr double kMostAlong = 1000;  // cells along a lattice vector

/// How many bits numbers below `count` have.
int num_bits(std::size_t count) {
  int bits = 1;
  while (bits < 63 && (std::size_t{1} << bits) < count) ++bits;
  return bits;
}

/// Å between the middles of cells.
template <class T>
std::vector<Vec4<T>> cell_offsets(const CellGrid& grid, const Box& box) {
  std::vector<Vec4<T>> offsets;
  for (int a = -grid.reach[0]; a <= grid.reach[0]; ++a)
    for (int b = -grid.reach[1]; b <= grid.reach[1]; ++b)
      for (int c = -grid.reach[2]; c <= grid.reach[2]; ++c) {
        const Vec3 r = times(
            Vec3{double(a) / grid.size[0], double(b) / grid.size[1], double(c) / grid.size[2]}, box.vectors);
        offsets.push_back({T(r[0]), T(r[1]), T(r[2]), T(0)});
      }
  return offsets;
}

}  // namespace

CellGrid make_cells(const Box& box, double width, double reach, std::size_t num_charges) {
  CellGrid grid;
  double images = static_cast<double>(num_charges);
  Vec3 heights;
  for (int d = 0; d < 3; ++d) {
    heights[d] = 1.0 / norm(Vec3{box.inverse[d], box.inverse[3 + d], box.inverse[6 + d]});
    images *= 1.0 + 2.0 * reach / heights[d];
  }
  check_num_images(reach, images);
  const double most = kMostCells * static_cast<double>(num_charges) + 64.0;
  for (double widen = 1.0;; widen *= 1.25) {
    double total = 1.0;
    for (int d = 0; d < 3; ++d) {
      const double cells = std::max(1.0, std::floor(heights[d] / (widen * width)));
      grid.size[d] = static_cast<int>(std::min(cells, kMostAlong));
      total *= cells;
    }
    if (total <= most) break;
  }
  for (int d = 0; d < 3; ++d) grid.reach[d] = static_cast<int>(std::ceil(reach * grid.size[d] / heights[d]));
  return grid;
}

void find_starts(const Stream& stream, int count, int num_places, const std::uint64_t* keys,
                 std::int32_t* starts) {
  launch(stream, one_each(num_places + 1), search_starts, count, num_places, keys, starts);
}

template <class T>
ShortRange<T>::ShortRange(double alpha, double cutoff, double skin)
    : series_(screening_series<T>(alpha, cutoff)), skin_(cutoff, skin) {}

template <class T>
std::size_t ShortRange<T>::num_rows(std::size_t n) {
  return pair_grid(n).blocks.x;
}

template <class T>
NeighborRows ShortRange<T>::rows() const {
  return {own_, bits_, rows_.data(), neighbors_.data()};
}

template <class T>
Charges ShortRange<T>::collect(const Charges& own, const Box& box, const std::vector<Region>& regions,
                               Ranks& ranks) {
  double stale = skin_.holds(own.positions, box.cell()) ? 0.0 : 1.0;
  ranks.sum({&stale, 1});
  stale_ = stale > 0;
  if (!stale_) return surroundings_.again(own, ranks);
  skin_.stop();  // a list that cannot be made leaves none behind
  known_ = false;
  return surroundings_.within(skin_.reach() + kMargin, own, box, regions, ranks);
}

template <class T>
void ShortRange<T>::place(const Stream& stream, const DeviceCharges& charges, Span<const double> positions,
                          const Box& box, bool moved) {
  gaussian_ = charges.widths;
  if (moved) known_ = false;
  if (!stale_) return move(stream, charges, box);
  vectors_ = {};
  sort(stream, charges, box);
  move(stream, charges, box);
  find_neighbors(stream);
  skin_.start(positions, box.cell());
  ++num_lists_;
}

template <class T>
void ShortRange<T>::sort(const Stream& stream, const DeviceCharges& charges, const Box& box) {
  const std::size_t n = charges.count;
  own_ = charges.own;
  parts_ = charges.num_parts();
  const double reach = skin_.reach() + kMargin;
  grid_ = make_cells(box, reach, reach, n);
  bits_ = num_bits(n);
  if (bits_ + num_bits(grid_.num_offsets()) > 32)
    throw Error(ErrorKind::unsupported,
                std::to_string(n) + " charges that see " + std::to_string(grid_.num_offsets()) +
                    " cells around them are too many for one GPU: use a smaller system, or device cpu");
  const Axes axes(box);
  launch(stream, one_each(n), find_cells, charges, axes, grid_, keys_.resize(n));
  const int places = parts_ * grid_.num_cells();
  primitives_.sort(stream, keys_, 32 + num_bits(places));
  launch(stream, one_each(n), find_anchors, charges, axes, grid_.num_cells(), keys_.data(), order_.resize(n),
         anchors_.resize(n));
  find_starts(stream, charges.count, places, keys_.data(), starts_.resize(places + 1));
}

template <class T>
void ShortRange<T>::move(const Stream& stream, const DeviceCharges& charges, const Box& box) {
  const std::size_t n = charges.count;
  if (vectors_ != box.vectors) {
    vectors_ = box.vectors;
    const std::vector<Vec4<T>> offsets = cell_offsets<T>(grid_, box);
    offsets_.upload(stream, Span<const Vec4<T>>(offsets));
  }
  launch(stream, one_each(n), place_charges<T>, charges, Axes(box), grid_, order_.data(), anchors_.data(),
         places_.resize(n), values_.resize(n), widths2_.resize(n));
}

template <class T>
void ShortRange<T>::find_neighbors(const Stream& stream) {
  const double reach = skin_.reach() + kMargin;
  const NeighborSearch<T> search{
      own_,           parts_,         bits_,           static_cast<T>(reach * reach),
      grid_,          starts_.data(), anchors_.data(), places_.data(),
      offsets_.data()};
  launch(stream, warp_each(own_), count_neighbors<T>, search, counts_.resize(own_));
  primitives_.offsets(stream, counts_, rows_);
  std::int64_t total = 0;
  copy_to_host(stream, &total, rows_.data() + own_, sizeof(total));
  stream.synchronize();
  neighbors_.resize(total);
  launch(stream, warp_each(own_), write_neighbors<T>, search, rows_.data(), neighbors_.data());
}

template <class T>
void ShortRange<T>::launch_pairs(const Stream& stream, bool fields, const ChargeSums& sums) {
  const PairCharges<T> charges{order_.data(), places_.data(), widths2_.data(), offsets_.data()};
  const auto kernel = fields ? (gaussian_ ? meet<T, true, true> : meet<T, false, true>)
                             : (gaussian_ ? meet<T, true, false> : meet<T, false, false>);
  launch(stream, pair_grid(own_), kernel, series_, charges, rows(), sums, coefficients_.data());
}

template <class T>
void ShortRange<T>::sum(const Stream& stream, const ChargeSums& sums) {
  if (sums.fields) return launch_pairs(stream, true, sums);
  if (!known_) {
    coefficients_.resize(neighbors_.size());
    launch_pairs(stream, false, sums);
    known_ = true;
  }
  launch(stream, pair_grid(own_), apply<T>, rows(), order_.data(), coefficients_.data(), values_.data(),
         sums.values);
}

template class ShortRange<float>;
template class ShortRange<double>;

}  // namespace cuda
}  // namespace nearsight
