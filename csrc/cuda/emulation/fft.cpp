// Transforms by core's own, line by line.
#include "core/mesh/fft.hpp"

#include <algorithm>
#include <cstddef>

#include "core/models/shared/aligned.hpp"
#include "cuda/mesh/fft.hpp"

namespace nearsight {
namespace cuda {

template <class T>
struct Fft3<T>::Plan {
  std::array<int, 3> lengths;
  std::array<Fft<T>, 3> ffts;
  AlignedBuffer<T> real, imaginary, work;  // of a batch of lines
  AlignedBuffer<Complex<T>> all;           // waves

  explicit Plan(const std::array<int, 3>& lengths)
      : lengths(lengths), ffts{Fft<T>(lengths[0]), Fft<T>(lengths[1]), Fft<T>(lengths[2])} {
    const std::size_t size = Fft<T>::kLanes * *std::max_element(lengths.begin(), lengths.end());
    std::fill_n(real.resize(size), size, T(0));
    std::fill_n(imaginary.resize(size), size, T(0));
    work.resize(2 * size);
    all.resize(static_cast<std::size_t>(lengths[0]) * lengths[1] * lengths[2]);
  }

  Complex<T>& wave(int a, int b, int c) {
    return all[(static_cast<std::size_t>(a) * lengths[1] + b) * lengths[2] + c];
  }

  /// Of the lines along direction d, one in the first lane at a time.
  void transform(int d, bool forward) {
    constexpr int lanes = Fft<T>::kLanes;
    const std::size_t stride = d == 0 ? std::size_t(lengths[1]) * lengths[2] : d == 1 ? lengths[2] : 1;
    const int n = lengths[d];
    for (std::size_t first = 0; first < all.size(); ++first) {
      if (first / stride % n) continue;
      for (int k = 0; k < n; ++k) {
        real[k * lanes] = all[first + k * stride].re;
        imaginary[k * lanes] = all[first + k * stride].im;
      }
      if (forward)
        ffts[d].forward(real.data(), imaginary.data(), work.data());
      else
        ffts[d].backward(real.data(), imaginary.data(), work.data());
      for (int k = 0; k < n; ++k) all[first + k * stride] = {real[k * lanes], imaginary[k * lanes]};
    }
  }
};

template <class T>
Fft3<T>::Fft3(const std::array<int, 3>& lengths, const Stream&) : plan_(new Plan(lengths)) {}

template <class T>
Fft3<T>::~Fft3() {
  delete plan_;
}

template <class T>
void Fft3<T>::forward(T* mesh, Complex<T>* waves) {
  Plan& plan = *plan_;
  const auto [n0, n1, n2] = plan.lengths;
  for (std::size_t k = 0; k < plan.all.size(); ++k) plan.all[k] = {mesh[k], T(0)};
  for (int d = 0; d < 3; ++d) plan.transform(d, true);
  for (int a = 0; a < n0; ++a)
    for (int b = 0; b < n1; ++b)
      for (int c = 0; c <= n2 / 2; ++c) *waves++ = plan.wave(a, b, c);
}

template <class T>
void Fft3<T>::backward(Complex<T>* waves, T* mesh) {
  Plan& plan = *plan_;
  const auto [n0, n1, n2] = plan.lengths;
  for (int a = 0; a < n0; ++a)
    for (int b = 0; b < n1; ++b)
      for (int c = 0; c <= n2 / 2; ++c) {
        const Complex<T> wave = *waves++;
        plan.wave(a, b, c) = wave;
        if (c > 0) plan.wave((n0 - a) % n0, (n1 - b) % n1, n2 - c) = {wave.re, -wave.im};
      }
  for (int d = 0; d < 3; ++d) plan.transform(d, false);
  for (std::size_t k = 0; k < plan.all.size(); ++k) mesh[k] = plan.all[k].re;
}

template class Fft3<float>;
template class Fft3<double>;

}  // namespace cuda
}  // namespace nearsight
