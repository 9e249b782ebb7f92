#include "core/mesh/short_range.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

#include "core/engine/error.hpp"
#include "core/mesh/pair_kernel.hpp"
#include "core/mesh/series.hpp"

namespace nearsight {
namespace pairs {
NEARSIGHT_CHOOSE_KERNELS(float)
NEARSIGHT_CHOOSE_KERNELS(double)
}  // namespace pairs

namespace {

constexpr double kMargin = 1e-4;   // Å, for the round-off of single precision
constexpr double kThinnest = 2.0;  // Å, of the region of charges where bins are chosen
constexpr double kMostImages = 2.0e9;

}  // namespace

/// Columns about as wide as a block of charges is, of thin slices. Coordinates are fractions of the box from
/// the lowest of the own charges.
template <class T>
struct ShortRange<T>::Grid {
  static constexpr double kSlices = 4;  // of a block

  Vec3 low, length, margin;  // of own charges; what the list reaches beyond them
  Vec3 width;                // of bins
  std::array<int, 3> size;

  Grid(std::size_t own, std::size_t all, const Box& box, const Region& here, double reach) : low(here.low) {
    double density = static_cast<double>(own) / box.volume, images = static_cast<double>(all);
    Vec3 heights;
    for (int d = 0; d < 3; ++d) {
      heights[d] = 1.0 / norm(Vec3{box.inverse[d], box.inverse[3 + d], box.inverse[6 + d]});
      length[d] = here.length(d);
      margin[d] = (reach + kMargin) / heights[d];
      density /= std::max(length[d], std::min(1.0, kThinnest / heights[d]));
      images *= length[d] + 2.0 * margin[d] + 1.0;
    }
    if (!(images < kMostImages)) {
      std::ostringstream message;
      message << "a cutoff of " << reach << " Å reaches over about " << images
              << " images of charges, but at most " << kMostImages
              << " are possible: check that cutoff, positions and cell are in Å";
      throw Error(ErrorKind::argument, message.str());
    }
    const double side = std::cbrt(kBlock / density);
    for (double widen = 1.0;; widen *= 1.5) {
      double total = 1.0;
      for (int d = 0; d < 3; ++d) {
        width[d] = widen * side / (d == 2 ? kSlices : 1.0) / heights[d];
        total *= std::ceil((length[d] + 2.0 * margin[d]) / width[d]) + 1.0;
      }
      if (total < 4.0 * images + 64.0) break;
    }
    for (int d = 0; d < 3; ++d) size[d] = bin(d, length[d] + margin[d]) + 1;
  }

  int bin(int d, double u) const { return std::max(0, static_cast<int>((u + margin[d]) / width[d])); }
  std::array<int, 3> bins(const Vec3& u) const { return {bin(0, u[0]), bin(1, u[1]), bin(2, u[2])}; }
  std::int32_t number(const std::array<int, 3>& b) const { return (b[0] * size[1] + b[1]) * size[2] + b[2]; }
  /// The same along a path that turns around at the ends of the grid.
  std::int32_t path(std::array<int, 3> b) const {
    if (b[0] % 2) b[1] = size[1] - 1 - b[1];
    if ((b[0] * size[1] + b[1]) % 2) b[2] = size[2] - 1 - b[2];
    return number(b);
  }
};

template <class T>
struct ShortRange<T>::Scratch {
  AlignedBuffer<T> numbers;
  pairs::Places<T> block, others;
  double origin[3];

  Scratch() {
    T* next = numbers.resize(5 * (kBlock + pairs::kChunk));
    for (auto [places, size] : {std::pair{&block, kBlock}, std::pair{&others, pairs::kChunk}})
      for (T** array : {&places->x, &places->y, &places->z, &places->charge, &places->width2}) {
        *array = next;
        next += size;
      }
  }
};

template <class T>
ShortRange<T>::ShortRange(double alpha, double cutoff, double skin)
    : series_(screening_series<T>(alpha, cutoff)), skin_(cutoff, skin) {}

/// Those within reach of the region of own charges, and blocks of these themselves.
template <class T>
void ShortRange<T>::find_images(const Charges& all, const Box& box, const Grid& grid) {
  std::vector<Image> found;
  std::vector<std::int32_t> where;                          // the bin of each
  std::vector<std::pair<std::int32_t, std::int32_t>> home;  // own charges: place on the path, image
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Wrapped wrapped = wrap(all, i, box);
    const Vec3 u = wrapped.fractions - grid.low;
    std::array<int, 3> first, last;
    Shift own;  // of the image within the region
    for (int d = 0; d < 3; ++d) {
      first[d] = static_cast<int>(std::ceil(-grid.margin[d] - u[d]));
      last[d] = static_cast<int>(std::floor(grid.length[d] + grid.margin[d] - u[d]));
      own[d] = u[d] < 0;
    }
    for (int a = first[0]; a <= last[0]; ++a)
      for (int b = first[1]; b <= last[1]; ++b)
        for (int c = first[2]; c <= last[2]; ++c) {
          const std::array<int, 3> bins = grid.bins({u[0] + a, u[1] + b, u[2] + c});
          if (i < own_ && own == Shift{a, b, c})
            home.push_back({grid.path(bins), static_cast<std::int32_t>(found.size())});
          found.push_back({static_cast<std::int32_t>(i), wrapped.shift + Shift{a, b, c}});
          where.push_back(grid.number(bins));
        }
  }
  bins_.assign(static_cast<std::size_t>(grid.size[0]) * grid.size[1] * grid.size[2] + 1, 0);
  for (const std::int32_t bin : where) ++bins_[bin + 1];
  for (std::size_t b = 1; b < bins_.size(); ++b) bins_[b] += bins_[b - 1];
  std::vector<std::int32_t> next(bins_.begin(), bins_.end() - 1);
  images_.resize(found.size());
  for (std::size_t k = 0; k < found.size(); ++k) {
    where[k] = next[where[k]]++;
    images_[where[k]] = found[k];
  }
  std::sort(home.begin(), home.end());
  lanes_.clear();
  for (const auto& [path, image] : home) lanes_.push_back(where[image]);
  while (lanes_.size() % kBlock) lanes_.push_back(lanes_.back());
}

template <class T>
void ShortRange<T>::find_others(const Grid& grid, const Box& box, ThreadPool& threads) {
  const double* const places[3] = {x_.data(), y_.data(), z_.data()};
  std::vector<std::vector<std::int32_t>> parts(threads.size());
  starts_.assign(num_blocks() + 1, 0);
  threads.split(num_blocks(), [&](int thread, std::size_t first_block, std::size_t last_block) {
    std::vector<std::int32_t>& part = parts[thread];
    Scratch scratch;
    for (std::size_t block = first_block; block < last_block; ++block) {
      load_block(block, scratch);
      std::array<int, 3> low, high;
      for (int d = 0; d < 3; ++d) {
        double least = 1e300, most = -1e300;
        for (int l = 0; l < kBlock; ++l) {
          const std::size_t k = lanes_[block * kBlock + l];
          const double u = times(Vec3{x_[k], y_[k], z_[k]}, box.inverse)[d] - grid.low[d];
          least = std::min(least, u);
          most = std::max(most, u);
        }
        low[d] = std::min(grid.bin(d, least - grid.margin[d]), grid.size[d] - 1);
        high[d] = std::min(grid.bin(d, most + grid.margin[d]), grid.size[d] - 1);
      }
      const std::size_t before = part.size();
      for (int a = low[0]; a <= high[0]; ++a)
        for (int b = low[1]; b <= high[1]; ++b) {
          const std::int32_t first = bins_[grid.number({a, b, low[2]})];
          const std::int32_t last = bins_[grid.number({a, b, high[2]}) + 1];
          const std::size_t size = part.size();
          part.resize(size + last - first);
          part.resize(size + pairs::kernels<T>().find_near(scratch.block,
                                                           static_cast<T>(skin_.reach() + kMargin), places,
                                                           scratch.origin, first, last, part.data() + size));
        }
      starts_[block + 1] = part.size() - before;
    }
  });
  for (std::size_t block = 0; block < num_blocks(); ++block) starts_[block + 1] += starts_[block];
  others_.clear();
  for (const auto& part : parts) others_.insert(others_.end(), part.begin(), part.end());
}

template <class T>
void ShortRange<T>::build(const Charges& all, const Box& box, const Region& here, ThreadPool& threads) {
  known_ = false;
  images_.clear();
  lanes_.clear();
  starts_.assign(1, 0);
  others_.clear();
  if (here.empty) return;
  const Grid grid(own_, all.size(), box, here, skin_.reach());
  find_images(all, box, grid);
  place(all, box, threads);
  find_others(grid, box, threads);
}

template <class T>
void ShortRange<T>::place(const Charges& all, const Box& box, ThreadPool& threads) {
  const std::size_t n = images_.size();
  std::vector<char> moved(threads.size());
  gaussian_ = all.max_width() > 0;
  for (auto* numbers : {&x_, &y_, &z_, &values_, &widths2_}) numbers->resize(n);
  threads.split(n, [&](int thread, std::size_t begin, std::size_t end) {
    for (std::size_t k = begin; k < end; ++k) {
      const auto& [charge, shift] = images_[k];
      const Vec3 r = point(all.positions, charge) +
                     times(Vec3{double(shift[0]), double(shift[1]), double(shift[2])}, box.vectors);
      const double width2 = all.width(charge) * all.width(charge);
      if (x_[k] != r[0] || y_[k] != r[1] || z_[k] != r[2] || widths2_[k] != width2) moved[thread] = 1;
      x_[k] = r[0];
      y_[k] = r[1];
      z_[k] = r[2];
      values_[k] = all.values[charge];
      widths2_[k] = width2;
    }
  });
  if (std::count(moved.begin(), moved.end(), 1)) known_ = false;
}

/// Positions are relative to the middle of the block, for single precision.
template <class T>
void ShortRange<T>::load_block(std::size_t block, Scratch& scratch) const {
  const std::int32_t* const lanes = lanes_.data() + block * kBlock;
  const std::vector<double>* const places[3] = {&x_, &y_, &z_};
  T* const to[3] = {scratch.block.x, scratch.block.y, scratch.block.z};
  for (int d = 0; d < 3; ++d) {
    const std::vector<double>& from = *places[d];
    double least = from[lanes[0]], most = least;
    for (int l = 1; l < kBlock; ++l) {
      least = std::min(least, from[lanes[l]]);
      most = std::max(most, from[lanes[l]]);
    }
    scratch.origin[d] = 0.5 * (least + most);
    pairs::kernels<T>().collect(kBlock, lanes, from.data(), scratch.origin[d], to[d]);
  }
  pairs::kernels<T>().collect(kBlock, lanes, widths2_.data(), 0.0, scratch.block.width2);
}

/// Returns how many there are, with some far away behind them.
template <class T>
int ShortRange<T>::load_others(std::size_t first, std::size_t last, Scratch& scratch) const {
  const auto& kernels = pairs::kernels<T>();
  const auto& [x, y, z, charge, width2] = scratch.others;
  const int count = static_cast<int>(std::min<std::size_t>(pairs::kChunk, last - first));
  const std::int32_t* const numbers = others_.data() + first;
  kernels.collect(count, numbers, x_.data(), scratch.origin[0], x);
  kernels.collect(count, numbers, y_.data(), scratch.origin[1], y);
  kernels.collect(count, numbers, z_.data(), scratch.origin[2], z);
  kernels.collect(count, numbers, values_.data(), 0.0, charge);
  if (gaussian_) kernels.collect(count, numbers, widths2_.data(), 0.0, width2);
  for (int k = count; k < padded(count); ++k) {
    x[k] = static_cast<T>(1e3 * skin_.reach());
    y[k] = z[k] = charge[k] = width2[k] = T(0);
  }
  return count;
}

template <class T>
void ShortRange<T>::sum_block(std::size_t block, Scratch& scratch, Coulomb& result) {
  using pairs::kChunk, pairs::kNumSums;
  const auto& kernels = pairs::kernels<T>();
  const auto sum = gaussian_ ? kernels.sum_gaussians : kernels.sum_points;
  load_block(block, scratch);
  double totals[kNumSums][kBlock] = {};
  for (std::size_t first = starts_[block]; first < starts_[block + 1]; first += kChunk) {
    const int count = load_others(first, starts_[block + 1], scratch);
    alignas(64) T sums[kNumSums][kBlock];
    sum(series_, scratch.block, padded(count), scratch.others, sums);
    for (int s = 0; s < kNumSums; ++s)
      for (int l = 0; l < kBlock; ++l) totals[s][l] += sums[s][l];
  }
  std::array<double, 6>& virial = virials_[block];
  virial.fill(0);
  for (int l = 0; l < kBlock && block * kBlock + l < own_; ++l) {
    if (totals[pairs::met][l] != 1) check_distances(block, l);  // each meets itself
    const std::size_t i = images_[lanes_[block * kBlock + l]].charge;
    result.potentials[i] += totals[pairs::potential][l];
    for (int c = 0; c < 3; ++c) result.fields[3 * i + c] += totals[pairs::field_x + c][l];
    const double half = -0.5 * values_[lanes_[block * kBlock + l]];  // the other half is with the others
    for (int a = 0; a < 6; ++a) virial[a] += half * totals[pairs::xx + a][l];
  }
}

template <class T>
void ShortRange<T>::find_coefficients(std::size_t block, Scratch& scratch) {
  const auto& kernels = pairs::kernels<T>();
  const auto find = gaussian_ ? kernels.coefficients_of_gaussians : kernels.coefficients_of_points;
  load_block(block, scratch);
  double met[kBlock] = {};
  for (std::size_t first = starts_[block]; first < starts_[block + 1]; first += pairs::kChunk) {
    const int count = load_others(first, starts_[block + 1], scratch);
    alignas(64) T found[pairs::kChunk][kBlock], close[kBlock];
    find(series_, scratch.block, padded(count), scratch.others, found, close);
    std::copy_n(found[0], count * kBlock, coefficients_.data() + first * kBlock);
    for (int l = 0; l < kBlock; ++l) met[l] += close[l];
  }
  for (int l = 0; l < kBlock && block * kBlock + l < own_; ++l)
    if (met[l] != 1) check_distances(block, l);  // each meets itself
}

template <class T>
void ShortRange<T>::sum_potentials(std::size_t block, Scratch& scratch, Coulomb& result) const {
  double totals[kBlock] = {};
  for (std::size_t first = starts_[block]; first < starts_[block + 1]; first += pairs::kChunk) {
    const int count = static_cast<int>(std::min<std::size_t>(pairs::kChunk, starts_[block + 1] - first));
    T* const charges = scratch.others.charge;
    pairs::kernels<T>().collect(count, others_.data() + first, values_.data(), 0.0, charges);
    alignas(64) T sums[kBlock];
    pairs::kernels<T>().apply(
        count, reinterpret_cast<const T(*)[kBlock]>(coefficients_.data() + first * kBlock), charges, sums);
    for (int l = 0; l < kBlock; ++l) totals[l] += sums[l];
  }
  for (int l = 0; l < kBlock && block * kBlock + l < own_; ++l)
    result.potentials[images_[lanes_[block * kBlock + l]].charge] += totals[l];
}

template <class T>
void ShortRange<T>::check_distances(std::size_t block, int lane) const {
  const std::int32_t self = lanes_[block * kBlock + lane];
  for (std::size_t n = starts_[block]; n < starts_[block + 1]; ++n) {
    const std::int32_t k = others_[n];
    const Vec3 r{x_[k] - x_[self], y_[k] - y_[self], z_[k] - z_[self]};
    if (k != self) check_distance(norm(r), images_[self].charge, images_[k].charge, own_);
  }
}

template <class T>
void ShortRange<T>::add(const Charges& own, const Box& box, const std::vector<Region>& regions, bool fields,
                        ThreadPool& threads, Ranks& ranks, Coulomb& result) {
  double stale = skin_.holds(own.positions, box.cell()) ? 0.0 : 1.0;
  ranks.sum({&stale, 1});
  if (stale > 0) {
    skin_.stop();  // a list that cannot be made leaves none behind
    own_ = own.size();
    const Charges all = surroundings_.within(skin_.reach() + kMargin, own, box, regions, ranks);
    build(all, box, regions[ranks.rank()], threads);
    skin_.start(own.positions, box.cell());
    ++num_lists_;
  } else {
    place(surroundings_.again(own, ranks), box, threads);
  }
  const bool find = !fields && !known_;
  if (find) coefficients_.resize(others_.size() * kBlock);
  virials_.assign(num_blocks(), {});
  threads.split(num_blocks(), [&](int, std::size_t first, std::size_t last) {
    Scratch scratch;
    for (std::size_t block = first; block < last; ++block) {
      if (find) find_coefficients(block, scratch);
      if (fields)
        sum_block(block, scratch, result);
      else
        sum_potentials(block, scratch, result);
    }
  });
  known_ = known_ || find;
  for (const auto& virial : virials_)
    for (int a = 0; a < 6; ++a) result.virial[a] += virial[a];
}

template class ShortRange<float>;
template class ShortRange<double>;

}  // namespace nearsight
