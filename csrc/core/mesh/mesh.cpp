#include "core/mesh/mesh.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "core/mesh/pair_kernel.hpp"
#include "core/models/shared/isa.hpp"

namespace nearsight {
namespace mesh {
NEARSIGHT_CHOOSE_KERNELS(float)
NEARSIGHT_CHOOSE_KERNELS(double)
}  // namespace mesh

namespace {

/// The last of n mesh points that is not above a fractional coordinate in [0, 1).
int point_below(double fraction, int n) {
  return std::min(static_cast<int>(fraction * n), n - 1);  // the product may round up
}

/// Of so many periods along the lattice vectors, rad/Å.
Vec3 wave_of(const Box& box, const Vec3& periods) {
  Vec3 k;
  for (int c = 0; c < 3; ++c) k[c] = 2.0 * kPi * dot(periods, row(box.inverse, c));
  return k;
}

}  // namespace

template <class T>
Mesh<T>::Mesh(const std::array<int, 3>& lengths, int order, double alpha, const Pencils& pencils, int rank)
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
Block Mesh<T>::brick(const Region& region) const {
  Block brick;
  for (int d = 0; d < 3 && !region.empty; ++d) {
    const int n = lengths_[d], low = point_below(region.low[d], n), high = point_below(region.high[d], n);
    const int size = high - low + (region.high[d] < region.low[d] ? n : 0) + order_;
    brick.first[d] = size < n ? low : 0;
    brick.size[d] = std::min(size, n);
  }
  return brick;
}

template <class T>
std::array<int, 2> Mesh<T>::periods(std::size_t column) const {
  const std::size_t width = columns_.size[2];
  return {columns_.first[1] + static_cast<int>(column / width),
          columns_.first[2] + static_cast<int>(column % width)};
}

template <class T>
Vec3 Mesh<T>::wave(const Box& box, std::size_t h0, std::size_t column) const {
  const auto [h1, h2] = periods(column);
  const int h[3] = {static_cast<int>(h0), h1, h2};
  Vec3 periods;
  for (int d = 0; d < 3; ++d) periods[d] = 2 * h[d] < lengths_[d] ? h[d] : h[d] - lengths_[d];
  return wave_of(box, periods);
}

template <class T>
void Mesh<T>::update_influence(const Box& box, ThreadPool& threads) {
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

template <class T>
void Mesh<T>::place(const Charges& charges, const Box& box, ThreadPool& threads) {
  const std::size_t n = charges.size();
  const auto first_point = [&](int d, double fraction) {
    const int first = point_below(fraction, lengths_[d]) - brick_.first[d];
    return first < 0 ? first + lengths_[d] : first;
  };
  std::vector<int> planes(n);
  threads.split(n, [&](int, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i)
      planes[i] = first_point(0, fractions(charges.positions, i, box)[0]);
  });
  starts_.assign(brick_.size[0] + 1, 0);
  for (const int plane : planes) ++starts_[plane + 1];
  for (int g = 0; g < brick_.size[0]; ++g) starts_[g + 1] += starts_[g];
  sorted_.resize(n);
  std::vector<std::size_t> next(starts_.begin(), starts_.end() - 1);
  for (std::size_t i = 0; i < n; ++i) sorted_[next[planes[i]]++] = i;
  for (int d = 0; d < 3; ++d) {
    first_[d].resize(n + mesh::kBatch);
    place_[d].resize(n + mesh::kBatch);
  }
  charges_.resize(n + mesh::kBatch);
  threads.split(n, [&](int, std::size_t begin, std::size_t end) {
    for (std::size_t k = begin; k < end; ++k) {
      const Vec3 s = fractions(charges.positions, sorted_[k], box);
      for (int d = 0; d < 3; ++d) {
        first_[d][k] = first_point(d, s[d]);
        place_[d][k] = s[d] * lengths_[d] - point_below(s[d], lengths_[d]);
      }
      charges_[k] = static_cast<T>(charges.values[sorted_[k]]);
    }
  });
}

template <class T>
mesh::Placed<T> Mesh<T>::placed() const {
  return {{place_[0].data(), place_[1].data(), place_[2].data()},
          {first_[0].data(), first_[1].data(), first_[2].data()},
          charges_.data()};
}

/// Each thread fills planes of its own, from all charges that reach them.
template <class T>
void Mesh<T>::spread(ThreadPool& threads) {
  const int n0 = brick_.size[0], n1 = brick_.size[1], n2 = brick_.size[2];
  const mesh::Brick<T> brick{mesh_.data(), n0, n1, row_};
  threads.split(n0, [&](int, std::size_t begin, std::size_t end) {
    if (begin == end) return;
    std::fill(mesh_.data() + begin * n1 * row_, mesh_.data() + end * n1 * row_, T(0));
    for (int from = static_cast<int>(begin) - order_ + 1; from < static_cast<int>(end); ++from) {
      const int plane = (from % n0 + n0) % n0;
      mesh::kernels<T>().spread(order_, placed(), starts_[plane], starts_[plane + 1], from,
                                static_cast<int>(begin), static_cast<int>(end), brick);
    }
    for (std::size_t line = begin * n1; line < end * n1; ++line)
      for (std::size_t c = n2; c < row_; ++c) mesh_[line * row_ + c % n2] += mesh_[line * row_ + c];
  });
}

template <class T>
void Mesh<T>::convolve_bricks(const typename Convolution<T>::Visitor& visit, ThreadPool& threads,
                              Ranks& ranks) {
  const bool alone = ranks.alone();  // then the brick is the mesh
  const Block& block = pencils_.points[ranks.rank()];
  const typename Mover<T>::Part brick{{mesh_.data()}, row_};
  const typename Mover<T>::Part rows{{alone ? mesh_.data() : rows_.resize(block.volume())},
                                     alone ? row_ : block.size[2]};
  if (!alone) {
    std::fill_n(rows_.data(), rows_.size(), T(0));
    mover_.move(bricks_, brick, pencils_.points, rows, true, ranks);
  }
  const double start = seconds_now(), waited = ranks.seconds();
  convolution_.apply(rows.components[0], rows.row, threads, visit, ranks);
  seconds_ += seconds_now() - start - (ranks.seconds() - waited);
  if (!alone) mover_.move(pencils_.points, rows, bricks_, brick, false, ranks);
}

template <class T>
void Mesh<T>::convolve(const Box& box, ThreadPool& threads, Ranks& ranks, Coulomb& result) {
  std::vector<Coulomb> parts(threads.size());  // virials only
  const auto visit = [&](int thread, std::size_t first, int count, T* real, T* imaginary) {
    multiply(box, first, count, real, imaginary, parts[thread]);
  };
  convolve_bricks(visit, threads, ranks);
  for (const Coulomb& part : parts)
    for (int a = 0; a < 6; ++a) result.virial[a] += part.virial[a];
  for (int line = 0; line < brick_.size[0] * brick_.size[1]; ++line)
    for (std::size_t c = brick_.size[2]; c < row_; ++c)
      mesh_[line * row_ + c] = mesh_[line * row_ + c % brick_.size[2]];
}

/// Columns of waves, whose share in the virial is E (1 - f k ⊗ k), f = 2 (1 / k² + 1 / 4α²).
template <class T>
void Mesh<T>::multiply(const Box& box, std::size_t first, int count, T* real, T* imaginary,
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
void Mesh<T>::gather(const Box& box, bool fields, ThreadPool& threads, Coulomb& result) {
  constexpr std::size_t kChunk = 64;
  const mesh::Brick<T> brick{mesh_.data(), brick_.size[0], brick_.size[1], row_};
  const auto collect = fields ? mesh::kernels<T>().gather : mesh::kernels<T>().gather_potentials;
  threads.split(sorted_.size(), [&](int, std::size_t begin, std::size_t end) {
    T found[kChunk][4];
    for (std::size_t first = begin; first < end; first += kChunk) {
      const std::size_t last = std::min(end, first + kChunk);
      collect(order_, placed(), first, last, brick, found);
      for (std::size_t k = first; k < last; ++k) {
        const T* const one = found[k - first];
        const std::size_t i = sorted_[k];
        if (!fields) {
          result.potentials[i] += one[0];
          continue;
        }
        Vec3 slope;
        for (int d = 0; d < 3; ++d) slope[d] = double(one[1 + d]) * lengths_[d];
        result.potentials[i] += one[0];
        for (int c = 0; c < 3; ++c) result.fields[3 * i + c] -= dot(slope, row(box.inverse, c));
      }
    }
  });
}

template <class T>
void Mesh<T>::add(const Charges& charges, const Box& box, const std::vector<Region>& regions, bool fields,
                  ThreadPool& threads, Ranks& ranks, Coulomb& result) {
  update_influence(box, threads);
  bricks_.clear();
  for (const Region& region : regions) bricks_.push_back(brick(region));
  brick_ = ranks.alone() ? Block{{0, 0, 0}, lengths_} : bricks_[ranks.rank()];
  row_ = brick_.size[2] + mesh::kLine;
  mesh_.resize(row_ * brick_.size[0] * brick_.size[1]);
  place(charges, box, threads);
  spread(threads);
  convolve(box, threads, ranks, result);
  gather(box, fields, threads, result);
}

template class Mesh<float>;
template class Mesh<double>;

}  // namespace nearsight
