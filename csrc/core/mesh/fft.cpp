#include "core/mesh/fft.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>

#include "core/engine/error.hpp"
#include "core/mesh/mesh_kernels.hpp"
#include "core/mesh/pair_kernel.hpp"

namespace nearsight {
namespace {

constexpr int kRadices[] = {4, 2, 3, 5, 7};

/// What is left of n without the factors that passes take.
int rough_part(int n) {
  for (const int radix : {2, 3, 5, 7})
    while (n % radix == 0) n /= radix;
  return n;
}

}  // namespace

template <class T>
Fft<T>::Fft(int length) : length_(length) {
  if (length < 1 || rough_part(length) != 1)
    throw Error(ErrorKind::argument,
                "a mesh has " + std::to_string(length) +
                    " points along a direction, but products of 2, 3, 5 and 7 are expected: "
                    "take " +
                    std::to_string(smooth_length(length)));
  int left = length, stride = 1;
  for (const int radix : kRadices)
    for (; left % radix == 0; left /= radix, stride *= radix) {
      Pass pass{radix, left / radix, stride, {}, {}};
      for (int j = 0; j < radix; ++j) {
        pass.roots.push_back(static_cast<T>(std::cos(2.0 * kPi * j / radix)));
        pass.roots.push_back(static_cast<T>(std::sin(2.0 * kPi * j / radix)));
      }
      for (int p = 0; p < pass.rest; ++p)
        for (int k = 1; k < radix; ++k) {
          const double angle = -2.0 * kPi * p * k / left;
          pass.twiddles.push_back(static_cast<T>(std::cos(angle)));
          pass.twiddles.push_back(static_cast<T>(std::sin(angle)));
        }
      passes_.push_back(std::move(pass));
    }
}

template <class T>
void Fft<T>::forward(T* real, T* imaginary, T* work) const {
  const std::size_t size = static_cast<std::size_t>(length_) * kLanes;
  T *from_re = real, *from_im = imaginary, *to_re = work, *to_im = work + size;
  for (const Pass& pass : passes_) {
    mesh::kernels<T>().pass(pass.radix, pass.rest, pass.stride, pass.twiddles.data(), pass.roots.data(),
                            from_re, from_im, to_re, to_im);
    std::swap(from_re, to_re);
    std::swap(from_im, to_im);
  }
  if (from_re == real) return;
  std::copy_n(from_re, size, real);
  std::copy_n(from_im, size, imaginary);
}

int smooth_length(int n) {
  n = std::max(n, 1);
  while (rough_part(n) != 1) ++n;
  return n;
}

template class Fft<float>;
template class Fft<double>;

}  // namespace nearsight
