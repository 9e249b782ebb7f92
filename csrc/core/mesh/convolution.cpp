#include "core/mesh/convolution.hpp"

#include <algorithm>
#include <cstddef>

namespace nearsight {

template <class T>
Convolution<T>::Convolution(const std::array<int, 3>& lengths)
    : lengths_(lengths),
      half_(lengths[2] / 2 + 1),
      columns_(half_ * lengths[1]),
      ffts_{Fft<T>(lengths[0]), Fft<T>(lengths[1]), Fft<T>(lengths[2])} {
  real_.resize(columns_ * lengths[0]);
  imaginary_.resize(columns_ * lengths[0]);
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
  const std::size_t num_rows = static_cast<std::size_t>(lengths_[0]) * lengths_[1];
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
  const std::size_t num_rows = static_cast<std::size_t>(lengths_[0]) * lengths_[1];
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
  threads.split(lengths_[0], [&](int thread, std::size_t begin, std::size_t end) {
    Buffer& buffer = *buffers_[thread];
    for (std::size_t plane = begin; plane < end; ++plane)
      for (std::size_t first = 0; first < half_; first += kLanes) {
        const int count = static_cast<int>(std::min<std::size_t>(kLanes, half_ - first));
        load(plane * columns_ + first, half_, lengths_[1], count, buffer);
        if (forward)
          ffts_[1].forward(buffer.real.data(), buffer.imaginary.data(), buffer.work.data());
        else
          ffts_[1].backward(buffer.real.data(), buffer.imaginary.data(), buffer.work.data());
        store(plane * columns_ + first, half_, lengths_[1], count, buffer);
      }
  });
}

template <class T>
void Convolution<T>::apply(T* mesh, std::size_t row, const T* influence, ThreadPool& threads,
                           const Visitor& visit) {
  const std::size_t longest = *std::max_element(lengths_.begin(), lengths_.end());
  buffers_.resize(threads.size());
  for (auto& buffer : buffers_) {
    if (!buffer) buffer = std::make_unique<Buffer>();
    buffer->real.resize(longest * kLanes);
    buffer->imaginary.resize(longest * kLanes);
    buffer->work.resize(2 * longest * kLanes);
  }
  rows_forward(mesh, row, threads);
  planes(true, threads);
  threads.split((columns_ + kLanes - 1) / kLanes, [&](int thread, std::size_t begin, std::size_t end) {
    Buffer& buffer = *buffers_[thread];
    T *re = buffer.real.data(), *im = buffer.imaginary.data();
    for (std::size_t first = begin * kLanes; first < std::min(columns_, end * kLanes); first += kLanes) {
      const int count = static_cast<int>(std::min<std::size_t>(kLanes, columns_ - first));
      load(first, columns_, lengths_[0], count, buffer);
      ffts_[0].forward(re, im, buffer.work.data());
      visit(thread, first, count, re, im);
      for (int h = 0; h < lengths_[0]; ++h)
        for (int l = 0; l < count; ++l) {
          const T factor = influence[h * columns_ + first + l];
          re[h * kLanes + l] *= factor;
          im[h * kLanes + l] *= factor;
        }
      ffts_[0].backward(re, im, buffer.work.data());
      store(first, columns_, lengths_[0], count, buffer);
    }
  });
  planes(false, threads);
  rows_backward(mesh, row, threads);
}

template class Convolution<float>;
template class Convolution<double>;

}  // namespace nearsight
