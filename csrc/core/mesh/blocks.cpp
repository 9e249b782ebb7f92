#include "core/mesh/blocks.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

#include "core/engine/error.hpp"

namespace nearsight {
namespace pairs {
NEARSIGHT_CHOOSE_KERNELS(float)
NEARSIGHT_CHOOSE_KERNELS(double)
}  // namespace pairs

namespace {

constexpr double kThinnest = 2.0;  // Å, of the region of atoms where bins are chosen
constexpr double kMostImages = 2.0e9;

}  // namespace

void check_num_images(double reach, double images) {
  if (images < kMostImages) return;
  std::ostringstream message;
  message << "a cutoff of " << reach << " Å reaches over about " << images << " images of atoms, but at most "
          << kMostImages << " are possible: check that cutoff, positions and cell are in Å";
  throw Error(ErrorKind::argument, message.str());
}

/// Columns about as wide as a block of atoms is, of thin slices. Coordinates are fractions of the box from
/// the lowest of the own atoms.
template <class T>
struct Blocks<T>::Grid {
  static constexpr double kSlices = 4;  // of a block

  Vec3 low, length, margin;  // of own atoms; what the list reaches beyond them
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
    check_num_images(reach, images);
    const double side = std::cbrt(kSize / density);
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
Blocks<T>::Blocks() = default;
template <class T>
Blocks<T>::~Blocks() = default;

template <class T>
Blocks<T>::Corner::Corner() {
  T* next = numbers_.resize(3 * kSize);
  for (T** array : {&places.x, &places.y, &places.z}) {
    *array = next;
    next += kSize;
  }
}

template <class T>
void Blocks<T>::build(Span<const double> positions, std::size_t own, const Box& box, const Region& here,
                      double reach) {
  own_ = own;
  images_.clear();
  lanes_.clear();
  if (here.empty) return;
  grid_ = std::make_unique<Grid>(own, positions.size() / 3, box, here, reach);
  find_images(positions, box);
}

/// Those within reach of the region of own atoms, and blocks of these themselves.
template <class T>
void Blocks<T>::find_images(Span<const double> positions, const Box& box) {
  const Grid& grid = *grid_;
  std::vector<Image> found;
  std::vector<std::int32_t> where;                          // the bin of each
  std::vector<std::pair<std::int32_t, std::int32_t>> home;  // own atoms: place on the path, image
  for (std::size_t i = 0; i < positions.size() / 3; ++i) {
    const Wrapped wrapped = wrap(positions, i, box);
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
  for (const auto& [path, image] : home) lanes_.push_back(where[image]);
  while (lanes_.size() % kSize) lanes_.push_back(lanes_.back());
}

template <class T>
bool Blocks<T>::place(Span<const double> positions, const Box& box, ThreadPool& threads) {
  const std::size_t n = images_.size();
  std::vector<char> moved(threads.size());
  for (auto* numbers : {&x_, &y_, &z_}) numbers->resize(n);
  threads.split(n, [&](int thread, std::size_t begin, std::size_t end) {
    for (std::size_t k = begin; k < end; ++k) {
      const auto& [atom, shift] = images_[k];
      const Vec3 r = point(positions, atom) +
                     times(Vec3{double(shift[0]), double(shift[1]), double(shift[2])}, box.vectors);
      if (position(k) != r) moved[thread] = 1;
      x_[k] = r[0];
      y_[k] = r[1];
      z_[k] = r[2];
    }
  });
  return std::count(moved.begin(), moved.end(), 1) > 0;
}

template <class T>
NearImages Blocks<T>::find_near(double reach, const Box& box, ThreadPool& threads) const {
  const double* const places[3] = {x_.data(), y_.data(), z_.data()};
  std::vector<std::vector<std::int32_t>> parts(threads.size());
  NearImages near;
  near.starts.assign(size() + 1, 0);
  threads.split(size(), [&](int thread, std::size_t first_block, std::size_t last_block) {
    std::vector<std::int32_t>& part = parts[thread];
    Corner corner;
    for (std::size_t block = first_block; block < last_block; ++block) {
      const Grid& grid = *grid_;
      load(block, corner);
      std::array<int, 3> low, high;
      for (int d = 0; d < 3; ++d) {
        double least = 1e300, most = -1e300;
        for (int l = 0; l < kSize; ++l) {
          const double u = times(position(self(block, l)), box.inverse)[d] - grid.low[d];
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
          part.resize(size + pairs::kernels<T>().find_near(corner.places, static_cast<T>(reach + kMargin),
                                                           places, corner.origin, first, last,
                                                           part.data() + size));
        }
      near.starts[block + 1] = part.size() - before;
    }
  });
  for (std::size_t block = 0; block < size(); ++block) near.starts[block + 1] += near.starts[block];
  for (const auto& part : parts) near.numbers.insert(near.numbers.end(), part.begin(), part.end());
  return near;
}

/// Positions are relative to the middle of the block, for single precision.
template <class T>
void Blocks<T>::load(std::size_t block, Corner& corner) const {
  const std::vector<double>* const places[3] = {&x_, &y_, &z_};
  T* const to[3] = {corner.places.x, corner.places.y, corner.places.z};
  for (int d = 0; d < 3; ++d) {
    const std::vector<double>& from = *places[d];
    double least = from[self(block, 0)], most = least;
    for (int l = 1; l < kSize; ++l) {
      least = std::min(least, from[self(block, l)]);
      most = std::max(most, from[self(block, l)]);
    }
    corner.origin[d] = 0.5 * (least + most);
    pairs::kernels<T>().collect(kSize, lanes(block), from.data(), corner.origin[d], to[d]);
  }
}

template <class T>
void Blocks<T>::collect(int count, const std::int32_t* images, const Corner& corner,
                        const pairs::Places<T>& to) const {
  const auto& kernels = pairs::kernels<T>();
  kernels.collect(count, images, x_.data(), corner.origin[0], to.x);
  kernels.collect(count, images, y_.data(), corner.origin[1], to.y);
  kernels.collect(count, images, z_.data(), corner.origin[2], to.z);
}

template class Blocks<float>;
template class Blocks<double>;

}  // namespace nearsight
