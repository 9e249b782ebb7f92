#include "core/mesh/wave_sum.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "core/mesh/pair_kernel.hpp"
#include "core/mesh/spline.hpp"

namespace nearsight {
namespace {

// Of fractional coordinates: round-off, here or on a GPU, may put a charge before or behind a point.
constexpr double kMargin = 1e-9;

/// Of so many periods along the lattice vectors, rad/Å.
Vec3 wave_of(const Box& box, const Vec3& periods) {
  Vec3 k;
  for (int c = 0; c < 3; ++c) k[c] = 2.0 * kPi * dot(periods, row(box.inverse, c));
  return k;
}

}  // namespace

std::vector<Block> find_bricks(const std::vector<Region>& regions, const std::array<int, 3>& lengths,
                               int order) {
  if (regions.size() == 1) return {Block{{0, 0, 0}, lengths}};
  std::vector<Block> bricks;
  for (const Region& region : regions) {
    Block brick;
    for (int d = 0; d < 3 && !region.empty; ++d) {
      const int n = lengths[d];
      const double low = region.low[d] - kMargin, high = low + region.length(d) + 2.0 * kMargin;
      const int first = static_cast<int>(std::floor(low * n));
      const int size = static_cast<int>(std::floor(high * n)) - first + order;
      brick.first[d] = size < n ? (first + n) % n : 0;
      brick.size[d] = std::min(size, n);
    }
    bricks.push_back(brick);
  }
  return bricks;
}

template <class T>
WaveSum<T>::WaveSum(const std::array<int, 3>& lengths, int order, double alpha, const Pencils& pencils,
                    int rank)
    : lengths_(lengths),
      order_(order),
      alpha_(alpha),
      pencils_(pencils),
      columns_(pencils.columns[rank]),
      convolution_(lengths, pencils, rank),
      mover_(lengths) {
  // The last columns are read with those behind them.
  const std::size_t size = convolution_.num_columns() * lengths[0] + Convolution<T>::kLanes;
  std::fill_n(influence_.resize(size), size, T(0));
}

template <class T>
std::array<int, 2> WaveSum<T>::periods(std::size_t column) const {
  const std::size_t width = columns_.size[2];
  return {columns_.first[1] + static_cast<int>(column / width),
          columns_.first[2] + static_cast<int>(column % width)};
}

template <class T>
Vec3 WaveSum<T>::wave(const Box& box, std::size_t h0, std::size_t column) const {
  const auto [h1, h2] = periods(column);
  const int h[3] = {static_cast<int>(h0), h1, h2};
  Vec3 periods;
  for (int d = 0; d < 3; ++d) periods[d] = 2 * h[d] < lengths_[d] ? h[d] : h[d] - lengths_[d];
  return wave_of(box, periods);
}

template <class T>
void WaveSum<T>::update_influence(const Box& box, ThreadPool& threads) {
  if (vectors_ == box.vectors) return;
  vectors_ = box.vectors;
  SplineWaves waves[3];
  for (int d = 0; d < 3; ++d) waves[d] = spline_waves(order_, lengths_[d]);
  const auto factor = [&](int d, std::size_t h) {
    const bool limit = 2 * h == static_cast<std::size_t>(lengths_[d]);
    return limit ? 0.0 : waves[d].own[h] / (waves[d].all[h] * waves[d].all[h]);
  };
  const std::size_t columns = convolution_.num_columns();
  threads.split(lengths_[0], [&](int, std::size_t begin, std::size_t end) {
    for (std::size_t h0 = begin; h0 < end; ++h0)
      for (std::size_t column = 0; column < columns; ++column) {
        const auto [h1, h2] = periods(column);
        const Vec3 k = wave(box, h0, column);
        const double k2 = dot(k, k), b = factor(0, h0) * factor(1, h1) * factor(2, h2);
        const double g = 4.0 * kPi / box.volume * std::exp(-0.25 * k2 / (alpha_ * alpha_)) / k2;
        influence_[h0 * columns + column] = k2 > 0 ? static_cast<T>(g * b) : T(0);
      }
  });
}

/// Columns of waves, whose share in the virial is E (1 - f k ⊗ k), f = 2 (1 / k² + 1 / 4α²).
template <class T>
void WaveSum<T>::multiply(const Box& box, std::size_t first, int count, T* real, T* imaginary,
                          Coulomb& result) const {
  constexpr int lanes = Convolution<T>::kLanes;
  alignas(64) T b[lanes] = {}, c[lanes] = {}, sums[4 * lanes];
  const Vec3 step = wave_of(box, {1.0, 0.0, 0.0});
  Vec3 bases[lanes];
  for (int l = 0; l < count; ++l) {
    bases[l] = wave(box, 0, first + l);
    b[l] = static_cast<T>(2.0 * dot(step, bases[l]));
    c[l] = static_cast<T>(dot(bases[l], bases[l]));
  }
  const mesh::Waves<T> waves{static_cast<T>(dot(step, step)),
                             b,
                             c,
                             static_cast<T>(0.25 / (alpha_ * alpha_)),
                             lengths_[0],
                             lanes,
                             influence_.data() + first,
                             convolution_.num_columns()};
  mesh::kernels<T>().multiply(waves, real, imaginary, sums);
  for (int l = 0; l < count; ++l) {
    const double half = periods(first + l)[1] ? 1.0 : 0.5;  // k and -k
    const Vec3& v = bases[l];
    for (int d = 0; d < 3; ++d) result.virial[d] += half * sums[l];
    result.add_virial(-half * sums[lanes + l], v);
    result.add_virial(-half * sums[3 * lanes + l], step);
    // a ⊗ v + v ⊗ a = (a + v) ⊗ (a + v) - a ⊗ a - v ⊗ v
    const double mixed = -half * sums[2 * lanes + l];
    result.add_virial(mixed, step + v);
    result.add_virial(-mixed, step);
    result.add_virial(-mixed, v);
  }
}

template <class T>
void WaveSum<T>::apply(T* mesh, std::size_t row, const std::vector<Block>& bricks, const Box& box,
                       ThreadPool& threads, Ranks& ranks, Coulomb& result) {
  update_influence(box, threads);
  const bool alone = ranks.alone();  // then the brick is the mesh
  const Block& block = pencils_.points[ranks.rank()];
  const typename Mover<T>::Part brick{{mesh}, row};
  const typename Mover<T>::Part rows{{alone ? mesh : rows_.resize(block.volume())},
                                     alone ? row : block.size[2]};
  if (!alone) {
    std::fill_n(rows_.data(), rows_.size(), T(0));
    mover_.move(bricks, brick, pencils_.points, rows, true, ranks);
  }
  std::vector<Coulomb> parts(threads.size());  // virials only
  const auto visit = [&](int thread, std::size_t first, int count, T* real, T* imaginary) {
    multiply(box, first, count, real, imaginary, parts[thread]);
  };
  const double start = seconds_now(), waited = ranks.seconds();
  convolution_.apply(rows.components[0], rows.row, threads, visit, ranks);
  seconds_ += seconds_now() - start - (ranks.seconds() - waited);
  for (const Coulomb& part : parts)
    for (int a = 0; a < 6; ++a) result.virial[a] += part.virial[a];
  if (!alone) mover_.move(pencils_.points, rows, bricks, brick, false, ranks);
}

template class WaveSum<float>;
template class WaveSum<double>;

}  // namespace nearsight
