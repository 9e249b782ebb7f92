#include "core/mesh/short_range.hpp"

#include <algorithm>
#include <utility>

#include "core/mesh/pair_kernel.hpp"
#include "core/mesh/series.hpp"

namespace nearsight {

template <class T>
struct ShortRange<T>::Scratch {
  AlignedBuffer<T> numbers;
  typename Blocks<T>::Corner corner;
  pairs::Places<T> block, others;

  Scratch() {
    T* next = numbers.resize(kBlock + 5 * pairs::kChunk);
    block = corner.places;
    block.width2 = next;
    next += kBlock;
    for (T** array : {&others.x, &others.y, &others.z, &others.charge, &others.width2}) {
      *array = next;
      next += pairs::kChunk;
    }
  }
};

template <class T>
ShortRange<T>::ShortRange(double alpha, double cutoff, double skin)
    : series_(screening_series<T>(alpha, cutoff)), skin_(cutoff, skin) {}

/// Charges and widths of all images.
template <class T>
void ShortRange<T>::place(const Charges& all, const Box& box, ThreadPool& threads) {
  if (blocks_.place(all.positions, box, threads)) known_ = false;
  const auto& images = blocks_.images();
  std::vector<char> changed(threads.size());
  gaussian_ = all.max_width() > 0;
  for (auto* numbers : {&values_, &widths2_}) numbers->resize(images.size());
  threads.split(images.size(), [&](int thread, std::size_t begin, std::size_t end) {
    for (std::size_t k = begin; k < end; ++k) {
      const double width = all.width(images[k].atom);
      if (widths2_[k] != width * width) changed[thread] = 1;
      values_[k] = all.values[images[k].atom];
      widths2_[k] = width * width;
    }
  });
  if (std::count(changed.begin(), changed.end(), 1)) known_ = false;
}

template <class T>
void ShortRange<T>::load_block(std::size_t block, Scratch& scratch) const {
  blocks_.load(block, scratch.corner);
  pairs::kernels<T>().collect(kBlock, blocks_.lanes(block), widths2_.data(), 0.0, scratch.block.width2);
}

/// Returns how many there are, with some far away behind them.
template <class T>
int ShortRange<T>::load_others(std::size_t first, std::size_t last, Scratch& scratch) const {
  const auto& kernels = pairs::kernels<T>();
  const auto& [x, y, z, charge, width2] = scratch.others;
  const int count = static_cast<int>(std::min<std::size_t>(pairs::kChunk, last - first));
  const std::int32_t* const numbers = near_.numbers.data() + first;
  blocks_.collect(count, numbers, scratch.corner, scratch.others);
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
  for (std::size_t first = near_.starts[block]; first < near_.starts[block + 1]; first += kChunk) {
    const int count = load_others(first, near_.starts[block + 1], scratch);
    alignas(64) T sums[kNumSums][kBlock];
    sum(series_, scratch.block, padded(count), scratch.others, sums);
    for (int s = 0; s < kNumSums; ++s)
      for (int l = 0; l < kBlock; ++l) totals[s][l] += sums[s][l];
  }
  std::array<double, 6>& virial = virials_[block];
  virial.fill(0);
  for (int l = 0; l < kBlock && blocks_.is_taken(block, l); ++l) {
    if (totals[pairs::met][l] != 1) check_distances(block, l);  // each meets itself
    const std::int32_t self = blocks_.self(block, l), i = blocks_.images()[self].atom;
    result.potentials[i] += totals[pairs::potential][l];
    for (int c = 0; c < 3; ++c) result.fields[3 * i + c] += totals[pairs::field_x + c][l];
    const double half = -0.5 * values_[self];  // the other half is with the others
    for (int a = 0; a < 6; ++a) virial[a] += half * totals[pairs::xx + a][l];
  }
}

template <class T>
void ShortRange<T>::find_coefficients(std::size_t block, Scratch& scratch) {
  const auto& kernels = pairs::kernels<T>();
  const auto find = gaussian_ ? kernels.coefficients_of_gaussians : kernels.coefficients_of_points;
  load_block(block, scratch);
  double met[kBlock] = {};
  for (std::size_t first = near_.starts[block]; first < near_.starts[block + 1]; first += pairs::kChunk) {
    const int count = load_others(first, near_.starts[block + 1], scratch);
    alignas(64) T found[pairs::kChunk][kBlock], close[kBlock];
    find(series_, scratch.block, padded(count), scratch.others, found, close);
    std::copy_n(found[0], count * kBlock, coefficients_.data() + first * kBlock);
    for (int l = 0; l < kBlock; ++l) met[l] += close[l];
  }
  for (int l = 0; l < kBlock && blocks_.is_taken(block, l); ++l)
    if (met[l] != 1) check_distances(block, l);  // each meets itself
}

template <class T>
void ShortRange<T>::sum_potentials(std::size_t block, Scratch& scratch, Coulomb& result) const {
  double totals[kBlock] = {};
  for (std::size_t first = near_.starts[block]; first < near_.starts[block + 1]; first += pairs::kChunk) {
    const int count = static_cast<int>(std::min<std::size_t>(pairs::kChunk, near_.starts[block + 1] - first));
    T* const charges = scratch.others.charge;
    pairs::kernels<T>().collect(count, near_.numbers.data() + first, values_.data(), 0.0, charges);
    alignas(64) T sums[kBlock];
    pairs::kernels<T>().apply(
        count, reinterpret_cast<const T(*)[kBlock]>(coefficients_.data() + first * kBlock), charges, sums);
    for (int l = 0; l < kBlock; ++l) totals[l] += sums[l];
  }
  for (int l = 0; l < kBlock && blocks_.is_taken(block, l); ++l)
    result.potentials[blocks_.images()[blocks_.self(block, l)].atom] += totals[l];
}

template <class T>
void ShortRange<T>::check_distances(std::size_t block, int lane) const {
  const std::int32_t self = blocks_.self(block, lane);
  const auto& images = blocks_.images();
  for (std::size_t n = near_.starts[block]; n < near_.starts[block + 1]; ++n) {
    const std::int32_t k = near_.numbers[n];
    const Vec3 r = blocks_.position(k) - blocks_.position(self);
    if (k != self) check_distance(norm(r), images[self].atom, images[k].atom, own_);
  }
}

template <class T>
void ShortRange<T>::add(const Charges& own, const Box& box, const std::vector<Region>& regions, bool fields,
                        ThreadPool& threads, Ranks& ranks, Coulomb& result) {
  double stale = skin_.holds(own.positions, box.cell()) ? 0.0 : 1.0;
  ranks.sum({&stale, 1});
  if (stale > 0) {
    skin_.stop();  // a list that cannot be made leaves none behind
    known_ = false;
    own_ = own.size();
    const Charges all = surroundings_.within(skin_.reach() + Blocks<T>::kMargin, own, box, regions, ranks);
    blocks_.build(all.positions, own_, box, regions[ranks.rank()], skin_.reach());
    place(all, box, threads);
    near_ = blocks_.find_near(skin_.reach(), box, threads);
    skin_.start(own.positions, box.cell());
    ++num_lists_;
  } else {
    place(surroundings_.again(own, ranks), box, threads);
  }
  const bool find = !fields && !known_;
  if (find) coefficients_.resize(near_.numbers.size() * kBlock);
  virials_.assign(blocks_.size(), {});
  threads.split(blocks_.size(), [&](int, std::size_t first, std::size_t last) {
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
