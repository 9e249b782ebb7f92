#pragma once
#include <array>

#include "cuda/runtime.hpp"

namespace nearsight {
namespace cuda {

template <class T>
struct alignas(2 * sizeof(T)) Complex {
  T re, im;
};

/// The Fourier transform of a real mesh [n0][n1][n2] to the waves [n0][n1][n2 / 2 + 1], and back. By cuFFT,
/// which is opened when it is needed first.
template <class T>
class Fft3 {
 public:
  /// Throws Error (unsupported) where cuFFT cannot be opened, (numeric) where the device has no memory left.
  Fft3(const std::array<int, 3>& lengths, const Stream& stream);
  ~Fft3();
  Fft3(const Fft3&) = delete;
  Fft3& operator=(const Fft3&) = delete;

  /// Σ_m mesh[m] exp(-2πi k·m / n)
  void forward(T* mesh, Complex<T>* waves);

  /// Σ_k waves[k] exp(+2πi k·m / n) over all waves, not divided by their number. Destroys the waves.
  void backward(Complex<T>* waves, T* mesh);

 private:
  struct Plan;
  Plan* plan_;
};

extern template class Fft3<float>;
extern template class Fft3<double>;

}  // namespace cuda
}  // namespace nearsight
