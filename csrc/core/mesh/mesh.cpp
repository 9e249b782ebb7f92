#include "core/mesh/mesh.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "core/mesh/pair_kernel.hpp"

namespace nearsight {
namespace {

/// The last of n mesh points that is not above a fractional coordinate in [0, 1).
int point_below(double fraction, int n) {
  return std::min(static_cast<int>(fraction * n), n - 1);  // the product may round up
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
  influence_.resize(convolution_.num_columns() * lengths[0]);
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
  Vec3 k;
  for (int c = 0; c < 3; ++c) k[c] = 2.0 * kPi * dot(periods, row(box.inverse, c));
  return k;
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
  first_.resize(n);
  splines_.resize(n * 3 * kSpline);
  threads.split(n, [&](int, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const Vec3 s = fractions(charges, i, box);
      for (int d = 0; d < 3; ++d) {
        const int length = lengths_[d], below = point_below(s[d], length), first = below - brick_.first[d];
        first_[i][d] = first < 0 ? first + length : first;
        T* const spline = splines_.data() + (3 * i + d) * kSpline;
        spline_weights(order_, s[d] * length - below, spline, spline + kMaxOrder);
      }
    }
  });
  starts_.assign(brick_.size[0] + 1, 0);
  for (const auto& first : first_) ++starts_[first[0] + 1];
  for (int g = 0; g < brick_.size[0]; ++g) starts_[g + 1] += starts_[g];
  sorted_.resize(n);
  std::vector<std::size_t> next(starts_.begin(), starts_.end() - 1);
  for (std::size_t i = 0; i < n; ++i) sorted_[next[first_[i][0]]++] = i;
}

/// Each thread fills planes of its own, from all charges that reach them.
template <class T>
void Mesh<T>::spread(const Charges& charges, ThreadPool& threads) {
  const int n0 = brick_.size[0], n1 = brick_.size[1], n2 = brick_.size[2];
  threads.split(n0, [&](int, std::size_t begin, std::size_t end) {
    for (std::size_t g = begin; g < end; ++g) {
      T* const plane = mesh_.data() + g * n1 * row_;
      std::fill_n(plane, n1 * row_, T(0));
      for (int a = 0; a < order_; ++a) {
        const int from = ((static_cast<int>(g) - a) % n0 + n0) % n0;
        for (std::size_t s = starts_[from]; s < starts_[from + 1]; ++s) {
          const std::size_t i = sorted_[s];
          const T* const w = splines_.data() + 3 * i * kSpline;
          const T charge = static_cast<T>(charges.values[i]) * w[a];
          for (int b = 0; b < order_; ++b) {
            const T share = charge * w[kSpline + b];
            T* const line = plane + (first_[i][1] + b) % n1 * row_ + first_[i][2];
            for (int c = 0; c < order_; ++c) line[c] += share * w[2 * kSpline + c];
          }
        }
      }
      for (int b = 0; b < n1; ++b)
        for (std::size_t c = n2; c < row_; ++c) plane[b * row_ + c % n2] += plane[b * row_ + c];
    }
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
  convolution_.apply(rows.components[0], rows.row, influence_.data(), threads, visit, ranks);
  seconds_ += seconds_now() - start - (ranks.seconds() - waited);
  if (!alone) mover_.move(pencils_.points, rows, bricks_, brick, false, ranks);
}

template <class T>
void Mesh<T>::convolve(const Box& box, ThreadPool& threads, Ranks& ranks, Coulomb& result) {
  std::vector<Coulomb> parts(threads.size());  // virials only
  const std::size_t columns = convolution_.num_columns();
  const auto visit = [&](int thread, std::size_t first, int count, const T* real, const T* imaginary) {
    for (int h0 = 0; h0 < lengths_[0]; ++h0)
      for (int l = 0; l < count; ++l) {
        const double influence = influence_[h0 * columns + first + l];
        if (influence == 0) continue;
        const double re = real[h0 * Convolution<T>::kLanes + l],
                     im = imaginary[h0 * Convolution<T>::kLanes + l];
        const double both = periods(first + l)[1] ? 2.0 : 1.0;  // k and -k
        const double energy = 0.5 * both * influence * (re * re + im * im);
        const Vec3 k = wave(box, h0, first + l);
        for (int c = 0; c < 3; ++c) parts[thread].virial[c] += energy;
        parts[thread].add_virial(-2.0 * energy * (1.0 / dot(k, k) + 0.25 / (alpha_ * alpha_)), k);
      }
  };
  convolve_bricks(visit, threads, ranks);
  for (const Coulomb& part : parts)
    for (int a = 0; a < 6; ++a) result.virial[a] += part.virial[a];
  for (int line = 0; line < brick_.size[0] * brick_.size[1]; ++line)
    for (std::size_t c = brick_.size[2]; c < row_; ++c)
      mesh_[line * row_ + c] = mesh_[line * row_ + c % brick_.size[2]];
}

template <class T>
void Mesh<T>::gather(const Box& box, ThreadPool& threads, Coulomb& result) {
  const int n0 = brick_.size[0], n1 = brick_.size[1];
  threads.split(first_.size(), [&](int, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const T* const x = splines_.data() + 3 * i * kSpline;
      const T *const y = x + kSpline, *const z = y + kSpline;
      double potential = 0;
      Vec3 slope{};
      for (int a = 0; a < order_; ++a)
        for (int b = 0; b < order_; ++b) {
          const std::size_t plane = (first_[i][0] + a) % n0, line = (first_[i][1] + b) % n1;
          const T* const values = mesh_.data() + (plane * n1 + line) * row_ + first_[i][2];
          T sum = 0, change = 0;
          for (int c = 0; c < order_; ++c) {
            sum += z[c] * values[c];
            change += z[kMaxOrder + c] * values[c];
          }
          potential += double(x[a]) * y[b] * sum;
          slope[0] += double(x[kMaxOrder + a]) * y[b] * sum;
          slope[1] += double(x[a]) * y[kMaxOrder + b] * sum;
          slope[2] += double(x[a]) * y[b] * change;
        }
      result.potentials[i] += potential;
      for (int d = 0; d < 3; ++d) slope[d] *= lengths_[d];
      for (int c = 0; c < 3; ++c) result.fields[3 * i + c] -= dot(slope, row(box.inverse, c));
    }
  });
}

template <class T>
void Mesh<T>::add(const Charges& charges, const Box& box, const std::vector<Region>& regions,
                  ThreadPool& threads, Ranks& ranks, Coulomb& result) {
  update_influence(box, threads);
  bricks_.clear();
  for (const Region& region : regions) bricks_.push_back(brick(region));
  brick_ = ranks.alone() ? Block{{0, 0, 0}, lengths_} : bricks_[ranks.rank()];
  row_ = brick_.size[2] + (brick_.size[2] == lengths_[2] ? order_ - 1 : 0);
  mesh_.resize(row_ * brick_.size[0] * brick_.size[1]);
  place(charges, box, threads);
  spread(charges, threads);
  convolve(box, threads, ranks, result);
  gather(box, threads, result);
}

template class Mesh<float>;
template class Mesh<double>;

}  // namespace nearsight
