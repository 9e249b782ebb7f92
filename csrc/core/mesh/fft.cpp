#include "core/mesh/fft.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include "core/engine/error.hpp"
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

template <class T>
struct Lanes {
  typedef T type __attribute__((vector_size(64), may_alias));
};

/// cos and sin of 2π j / R.
template <class T, int R>
struct Roots {
  T cosine[R], sine[R];
  Roots() {
    for (int j = 0; j < R; ++j) {
      cosine[j] = static_cast<T>(std::cos(2.0 * kPi * j / R));
      sine[j] = static_cast<T>(std::sin(2.0 * kPi * j / R));
    }
  }
};

/// The transform of odd length R, in place: pairs j and R - j share their products.
template <int R, class T, class V>
inline void butterfly(const Roots<T, R>& roots, V* re, V* im) {
  constexpr int half = (R - 1) / 2;
  V plus_re[half], plus_im[half], minus_re[half], minus_im[half];
  V sum_re = re[0], sum_im = im[0];
  for (int j = 1; j <= half; ++j) {
    plus_re[j - 1] = re[j] + re[R - j];
    plus_im[j - 1] = im[j] + im[R - j];
    minus_re[j - 1] = re[j] - re[R - j];
    minus_im[j - 1] = im[j] - im[R - j];
    sum_re += plus_re[j - 1];
    sum_im += plus_im[j - 1];
  }
  for (int k = 1; k <= half; ++k) {
    V even_re = re[0], even_im = im[0], odd_re = re[0] - re[0], odd_im = odd_re;
    for (int j = 1; j <= half; ++j) {
      const T c = roots.cosine[j * k % R], s = roots.sine[j * k % R];
      even_re += c * plus_re[j - 1];
      even_im += c * plus_im[j - 1];
      odd_re += s * minus_re[j - 1];
      odd_im += s * minus_im[j - 1];
    }
    re[k] = even_re + odd_im;
    im[k] = even_im - odd_re;
    re[R - k] = even_re - odd_im;
    im[R - k] = even_im + odd_re;
  }
  re[0] = sum_re;
  im[0] = sum_im;
}

template <class V>
inline void butterfly2(V* re, V* im) {
  const V a = re[0], b = im[0];
  re[0] = a + re[1];
  im[0] = b + im[1];
  re[1] = a - re[1];
  im[1] = b - im[1];
}

template <class V>
inline void butterfly4(V* re, V* im) {
  const V s0r = re[0] + re[2], s0i = im[0] + im[2], d0r = re[0] - re[2], d0i = im[0] - im[2];
  const V s1r = re[1] + re[3], s1i = im[1] + im[3], d1r = re[1] - re[3], d1i = im[1] - im[3];
  re[0] = s0r + s1r;
  im[0] = s0i + s1i;
  re[1] = d0r + d1i;
  im[1] = d0i - d1r;
  re[2] = s0r - s1r;
  im[2] = s0i - s1i;
  re[3] = d0r - d1i;
  im[3] = d0i + d1r;
}

/// One pass over all lanes; arrays are vectors of lanes.
template <int R, class T>
void run_pass(int rest, int stride, const T* twiddles, const T* from_re, const T* from_im, T* to_re,
              T* to_im) {
  using V = typename Lanes<T>::type;
  static const Roots<T, R> roots;
  const V* const xr = reinterpret_cast<const V*>(from_re);
  const V* const xi = reinterpret_cast<const V*>(from_im);
  V* const yr = reinterpret_cast<V*>(to_re);
  V* const yi = reinterpret_cast<V*>(to_im);
  for (int p = 0; p < rest; ++p) {
    const T* const w = twiddles + 2 * (R - 1) * static_cast<std::size_t>(p);
    for (int q = 0; q < stride; ++q) {
      V re[R], im[R];
      for (int j = 0; j < R; ++j) {
        const std::size_t from = q + static_cast<std::size_t>(stride) * (p + rest * j);
        re[j] = xr[from];
        im[j] = xi[from];
      }
      if constexpr (R == 4)
        butterfly4(re, im);
      else if constexpr (R == 2)
        butterfly2(re, im);
      else
        butterfly<R>(roots, re, im);
      const std::size_t to = q + static_cast<std::size_t>(stride) * R * p;
      yr[to] = re[0];
      yi[to] = im[0];
      for (int k = 1; k < R; ++k) {
        const T c = w[2 * k - 2], s = w[2 * k - 1];
        yr[to + stride * k] = c * re[k] - s * im[k];
        yi[to + stride * k] = c * im[k] + s * re[k];
      }
    }
  }
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
      Pass pass{radix, left / radix, stride, {}};
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
    const auto run = [&](auto radix) {
      run_pass<radix.value>(pass.rest, pass.stride, pass.twiddles.data(), from_re, from_im, to_re, to_im);
    };
    switch (pass.radix) {
      case 2:
        run(std::integral_constant<int, 2>{});
        break;
      case 3:
        run(std::integral_constant<int, 3>{});
        break;
      case 4:
        run(std::integral_constant<int, 4>{});
        break;
      case 5:
        run(std::integral_constant<int, 5>{});
        break;
      default:
        run(std::integral_constant<int, 7>{});
    }
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
