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

}  // namespace

template <class T>
Mesh<T>::Mesh(const std::array<int, 3>& lengths, int order, double alpha, const Pencils& pencils, int rank)
    : lengths_(lengths), order_(order), waves_(lengths, order, alpha, pencils, rank) {}

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
void Mesh<T>::continue_lines() {
  for (int line = 0; line < brick_.size[0] * brick_.size[1]; ++line)
    for (std::size_t c = brick_.size[2]; c < row_; ++c)
      mesh_[line * row_ + c] = mesh_[line * row_ + c % brick_.size[2]];
}

template <class T>
void Mesh<T>::add(const Charges& charges, const Box& box, const std::vector<Region>& regions, bool fields,
                  ThreadPool& threads, Ranks& ranks, Coulomb& result) {
  const std::vector<Block> bricks = find_bricks(regions, lengths_, order_);
  brick_ = bricks[ranks.rank()];
  row_ = brick_.size[2] + mesh::kLine;
  mesh_.resize(row_ * brick_.size[0] * brick_.size[1]);
  place(charges, box, threads);
  spread(threads);
  waves_.apply(mesh_.data(), row_, bricks, box, threads, ranks, result);
  continue_lines();
  gather(box, fields, threads, result);
}

template class Mesh<float>;
template class Mesh<double>;

}  // namespace nearsight
