#include "core/mesh/convolution.hpp"

#include <algorithm>
#include <cstddef>

namespace nearsight {

template <class T>
Convolution<T>::Convolution(const std::array<int, 3>& lengths, const Pencils& pencils, int rank)
    : lengths_(lengths),
      half_(lengths[2] / 2 + 1),
      pencils_(pencils),
      rows_(pencils.rows[rank]),
      planes_(pencils.planes[rank]),
      columns_(pencils.columns[rank]),
      ffts_{Fft<T>(lengths[0]), Fft<T>(lengths[1]), Fft<T>(lengths[2])},
      mover_({lengths[0], lengths[1], lengths[2] / 2 + 1}) {
  const std::size_t most = std::max({rows_.volume(), planes_.volume(), columns_.volume()});
  real_.resize(most);
  imaginary_.resize(most);
}

template <class T>
void Convolution<T>::load(std::size_t from, std::size_t stride, int length, int count, Buffer& buffer) const {
  const T *re = real_.data() + from, *im = imaginary_.data() + from;
  T *to_re = buffer.real.data(), *to_im = buffer.imaginary.data();
  for (int k = 0; k < length; ++k, re += stride, im += stride, to_re += kLanes, to_im += kLanes) {
    std::copy_n(re, count, to_re);
    std::copy_n(im, count, to_im);
    std::fill(to_re + count, to_re + kLanes, T(0));
    std::fill(to_im + count, to_im + kLanes, T(0));
  }
}

template <class T>
void Convolution<T>::store(std::size_t to, std::size_t stride, int length, int count, Buffer& buffer) {
  T *re = real_.data() + to, *im = imaginary_.data() + to;
  const T *from_re = buffer.real.data(), *from_im = buffer.imaginary.data();
  for (int k = 0; k < length; ++k, re += stride, im += stride, from_re += kLanes, from_im += kLanes) {
    std::copy_n(from_re, count, re);
    std::copy_n(from_im, count, im);
  }
}

/// Two real lines a and b are one complex line a + ib; S_a and S_b are its even and odd parts.
template <class T>
void Convolution<T>::rows_forward(const T* mesh, std::size_t row, ThreadPool& threads) {
  const std::size_t num_rows = rows_.volume() / half_;
  const int n = lengths_[2];
  threads.split((num_rows + 2 * kLanes - 1) / (2 * kLanes),
                [&](int thread, std::size_t begin, std::size_t end) {
                  Buffer& buffer = *buffers_[thread];
                  for (std::size_t first = begin * 2 * kLanes; first < std::min(num_rows, end * 2 * kLanes);
                       first += 2 * kLanes) {
                    const int count = static_cast<int>(std::min<std::size_t>(2 * kLanes, num_rows - first));
                    T *re = buffer.real.data(), *im = buffer.imaginary.data();
                    for (int l = 0; l < 2 * kLanes; ++l) {
                      T* const to = (l % 2 ? im : re) + l / 2;
                      const T* const line = mesh + (first + l) * row;
                      for (int k = 0; k < n; ++k) to[k * kLanes] = l < count ? line[k] : T(0);
                    }
                    ffts_[2].forward(re, im, buffer.work.data());
                    for (int l = 0; l < count; ++l) {
                      T* const to_re = real_.data() + (first + l) * half_;
                      T* const to_im = imaginary_.data() + (first + l) * half_;
                      for (int k = 0; k < static_cast<int>(half_); ++k) {
                        const int here = k * kLanes + l / 2, mirror = (k ? n - k : 0) * kLanes + l / 2;
                        if (l % 2) {
                          to_re[k] = T(0.5) * (im[here] + im[mirror]);
                          to_im[k] = T(0.5) * (re[mirror] - re[here]);
                        } else {
                          to_re[k] = T(0.5) * (re[here] + re[mirror]);
                          to_im[k] = T(0.5) * (im[here] - im[mirror]);
                        }
                      }
                    }
                  }
                });
}

template <class T>
void Convolution<T>::rows_backward(T* mesh, std::size_t row, ThreadPool& threads) {
  const std::size_t num_rows = rows_.volume() / half_;
  const int n = lengths_[2];
  threads.split(
      (num_rows + 2 * kLanes - 1) / (2 * kLanes), [&](int thread, std::size_t begin, std::size_t end) {
        Buffer& buffer = *buffers_[thread];
        for (std::size_t first = begin * 2 * kLanes; first < std::min(num_rows, end * 2 * kLanes);
             first += 2 * kLanes) {
          const int count = static_cast<int>(std::min<std::size_t>(2 * kLanes, num_rows - first));
          T *re = buffer.real.data(), *im = buffer.imaginary.data();
          std::fill_n(re, n * kLanes, T(0));
          std::fill_n(im, n * kLanes, T(0));
          for (int l = 0; l < count; ++l) {
            const T* const from_re = real_.data() + (first + l) * half_;
            const T* const from_im = imaginary_.data() + (first + l) * half_;
            // a adds S and its conjugate mirror, b the same times i.
            for (int k = 0; k < n; ++k) {
              const bool mirrored = k >= static_cast<int>(half_);
              const T a = from_re[mirrored ? n - k : k], b = mirrored ? -from_im[n - k] : from_im[k];
              re[k * kLanes + l / 2] += l % 2 ? -b : a;
              im[k * kLanes + l / 2] += l % 2 ? a : b;
            }
          }
          ffts_[2].backward(re, im, buffer.work.data());
          for (int l = 0; l < count; ++l) {
            const T* const from = (l % 2 ? im : re) + l / 2;
            T* const line = mesh + (first + l) * row;
            for (int k = 0; k < n; ++k) line[k] = from[k * kLanes];
          }
        }
      });
}

template <class T>
void Convolution<T>::planes(bool forward, ThreadPool& threads) {
  const std::size_t width = planes_.size[2];
  threads.split(planes_.size[0], [&](int thread, std::size_t begin, std::size_t end) {
    Buffer& buffer = *buffers_[thread];
    for (std::size_t plane = begin; plane < end; ++plane)
      for (std::size_t first = 0; first < width; first += kLanes) {
        const int count = static_cast<int>(std::min<std::size_t>(kLanes, width - first));
        load(plane * lengths_[1] * width + first, width, lengths_[1], count, buffer);
        if (forward)
          ffts_[1].forward(buffer.real.data(), buffer.imaginary.data(), buffer.work.data());
        else
          ffts_[1].backward(buffer.real.data(), buffer.imaginary.data(), buffer.work.data());
        store(plane * lengths_[1] * width + first, width, lengths_[1], count, buffer);
      }
  });
}

template <class T>
void Convolution<T>::columns(ThreadPool& threads, const Visitor& visit) {
  const std::size_t all = num_columns();
  threads.split((all + kLanes - 1) / kLanes, [&](int thread, std::size_t begin, std::size_t end) {
    Buffer& buffer = *buffers_[thread];
    T *re = buffer.real.data(), *im = buffer.imaginary.data();
    for (std::size_t first = begin * kLanes; first < std::min(all, end * kLanes); first += kLanes) {
      const int count = static_cast<int>(std::min<std::size_t>(kLanes, all - first));
      load(first, all, lengths_[0], count, buffer);
      ffts_[0].forward(re, im, buffer.work.data());
      visit(thread, first, count, re, im);
      ffts_[0].backward(re, im, buffer.work.data());
      store(first, all, lengths_[0], count, buffer);
    }
  });
}

template <class T>
void Convolution<T>::turn(const std::vector<Block>& from, const std::vector<Block>& to, int concerned,
                          Ranks& ranks) {
  if (concerned == 1) return;
  const auto part = [&](const std::vector<Block>& blocks) {
    return typename Mover<T>::Part{{real_.data(), imaginary_.data()},
                                   static_cast<std::size_t>(blocks[ranks.rank()].size[2])};
  };
  mover_.move(from, part(from), to, part(to), false, ranks);
}

template <class T>
void Convolution<T>::apply(T* mesh, std::size_t row, ThreadPool& threads, const Visitor& visit,
                           Ranks& ranks) {
  const std::size_t longest = *std::max_element(lengths_.begin(), lengths_.end());
  buffers_.resize(threads.size());
  for (auto& buffer : buffers_) {
    if (!buffer) buffer = std::make_unique<Buffer>();
    buffer->real.resize(longest * kLanes);
    buffer->imaginary.resize(longest * kLanes);
    buffer->work.resize(2 * longest * kLanes);
  }
  const auto [first, second] = pencils_.grid;
  rows_forward(mesh, row, threads);
  turn(pencils_.rows, pencils_.planes, second, ranks);
  planes(true, threads);
  turn(pencils_.planes, pencils_.columns, first, ranks);
  columns(threads, visit);
  turn(pencils_.columns, pencils_.planes, first, ranks);
  planes(false, threads);
  turn(pencils_.planes, pencils_.rows, second, ranks);
  rows_backward(mesh, row, threads);
}

template class Convolution<float>;
template class Convolution<double>;

}  // namespace nearsight
