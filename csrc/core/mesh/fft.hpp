#pragma once
#include <vector>

namespace nearsight {

/// Complex Fourier transforms of a fixed length, `kLanes` of them at a time: element k of transform l is at
/// [k * kLanes + l], real and imaginary parts apart. Lengths are products of 2, 3, 5 and 7. Stockham's
/// self-sorting passes of radix 4, 2, 3, 5, 7.
template <class T>
class Fft {
 public:
  static constexpr int kLanes = 64 / sizeof(T);

  /// Throws Error (argument) for a length with other prime factors.
  explicit Fft(int length);

  int length() const { return length_; }

  /// Σ_j x_j exp(-2πi jk / n), in place. Arrays hold length · kLanes numbers, `work` twice as many; all are
  /// aligned to 64 bytes.
  void forward(T* real, T* imaginary, T* work) const;

  /// Σ_j x_j exp(+2πi jk / n), not divided by n.
  void backward(T* real, T* imaginary, T* work) const { forward(imaginary, real, work); }

 private:
  struct Pass {
    int radix, rest, stride;  // length = radix · rest · stride
    std::vector<T> twiddles;  // [rest][radix - 1][2]
    std::vector<T> roots;     // [radix][2]
  };

  int length_;
  std::vector<Pass> passes_;
};

/// The smallest length that Fft takes and that is at least n.
int smooth_length(int n);

extern template class Fft<float>;
extern template class Fft<double>;

}  // namespace nearsight
