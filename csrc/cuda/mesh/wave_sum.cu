#include <vector>

#include "core/mesh/pair_kernel.hpp"
#include "core/mesh/spline.hpp"
#include "cuda/mesh/wave_sum.hpp"

namespace nearsight {
namespace cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kWavesEach = 8;  // waves that a thread multiplies

/// Numbers of periods of waves [n0][n1][n2 / 2 + 1].
struct Waves {
  int lengths[3];

  __device__ std::size_t count() const {
    return static_cast<std::size_t>(lengths[0]) * lengths[1] * (lengths[2] / 2 + 1);
  }
  __device__ void periods(std::size_t wave, int* h) const {
    const int half = lengths[2] / 2 + 1;
    h[2] = static_cast<int>(wave % half);
    h[1] = static_cast<int>(wave / half % lengths[1]);
    h[0] = static_cast<int>(wave / half / lengths[1]);
  }
  /// Those from -n/2 on.
  __device__ int centered(int h, int d) const { return 2 * h < lengths[d] ? h : h - lengths[d]; }
};

/// Reciprocal vectors with 2π, [d][component], rad/Å.
struct Reciprocal {
  double vectors[9];

  explicit Reciprocal(const Box& box) {
    for (int d = 0; d < 3; ++d)
      for (int c = 0; c < 3; ++c) vectors[3 * d + c] = 2.0 * kPi * box.inverse[3 * c + d];
  }
};

template <class T>
__global__ void find_influence(Waves waves, Reciprocal reciprocal, const double* factors, double alpha,
                               double volume, T* influence) {
  const std::size_t wave = thread_number();
  if (wave >= waves.count()) return;
  int h[3];
  waves.periods(wave, h);
  double k[3] = {}, factor = 1.0;
  for (int d = 0; d < 3; ++d) {
    for (int c = 0; c < 3; ++c) k[c] += waves.centered(h[d], d) * reciprocal.vectors[3 * d + c];
    factor *= factors[h[d]];
    factors += waves.lengths[d];
  }
  const double k2 = k[0] * k[0] + k[1] * k[1] + k[2] * k[2];
  const double g = 4.0 * kPi / volume * exp(-0.25 * k2 / (alpha * alpha)) / k2;
  influence[wave] = k2 > 0 ? static_cast<T>(g * factor) : T(0);
}

/// S(k) times the influence; the virial E (1 - f k ⊗ k), f = 2 (1 / k² + 1 / 4α²), where rows are given.
template <class T>
__global__ void __launch_bounds__(kThreads)
    multiply(Waves waves, Reciprocal reciprocal, T quarter, const T* influence, Complex<T>* values,
             double* virials) {
  const std::size_t first = static_cast<std::size_t>(blockIdx.x) * kThreads * kWavesEach + threadIdx.x;
  double virial[6] = {};
  for (unsigned n = 0; n < kWavesEach; ++n) {
    const std::size_t wave = first + n * kThreads;
    if (wave >= waves.count()) break;
    const T g = influence[wave];
    const Complex<T> s = values[wave];
    values[wave] = {g * s.re, g * s.im};
    if (!virials) continue;
    int h[3];
    waves.periods(wave, h);
    T k[3] = {};
    for (int d = 0; d < 3; ++d)
      for (int c = 0; c < 3; ++c)
        k[c] += static_cast<T>(waves.centered(h[d], d)) * static_cast<T>(reciprocal.vectors[3 * d + c]);
    const T k2 = k[0] * k[0] + k[1] * k[1] + k[2] * k[2];
    if (!(k2 > T(0))) continue;
    const T energy = (h[2] ? T(1) : T(0.5)) * g * (s.re * s.re + s.im * s.im);  // of k and -k
    const T share = energy * T(2) * (T(1) / k2 + quarter);
    for (int c = 0; c < 3; ++c) virial[c] += energy - share * k[c] * k[c];
    virial[3] -= share * k[0] * k[1];
    virial[4] -= share * k[0] * k[2];
    virial[5] -= share * k[1] * k[2];
  }
  if (virials) sum_block<kThreads>(virial, virials + 6 * static_cast<std::size_t>(blockIdx.x));
}

/// Of waves along one direction: those at the mesh's limit have no sign and are left out.
std::vector<double> wave_factors(int order, const std::array<int, 3>& lengths) {
  std::vector<double> factors;
  for (const int n : lengths) {
    const SplineWaves waves = spline_waves(order, n);
    for (int h = 0; h < n; ++h)
      factors.push_back(2 * h == n ? 0.0 : waves.own[h] / (waves.all[h] * waves.all[h]));
  }
  return factors;
}

}  // namespace

template <class T>
WaveSum<T>::WaveSum(const PmeParameters& parameters, const Stream& stream)
    : lengths_(parameters.mesh), alpha_(parameters.splitting), fft_(parameters.mesh, stream) {
  const std::vector<double> factors = wave_factors(parameters.order, lengths_);
  factors_.upload(stream, factors);
  waves_.resize(num_waves());
  influence_.resize(num_waves());
}

template <class T>
std::size_t WaveSum<T>::num_rows() const {
  return one_each(num_waves(), kThreads * kWavesEach).blocks.x;
}

template <class T>
void WaveSum<T>::update_influence(const Stream& stream, const Box& box) {
  if (vectors_ == box.vectors) return;
  vectors_ = box.vectors;
  const Waves waves{{lengths_[0], lengths_[1], lengths_[2]}};
  launch(stream, one_each(num_waves()), find_influence<T>, waves, Reciprocal(box), factors_.data(), alpha_,
         box.volume, influence_.data());
}

template <class T>
void WaveSum<T>::apply(const Stream& stream, T* mesh, const Box& box, double* virials) {
  update_influence(stream, box);
  fft_.forward(mesh, waves_.data());
  const Waves waves{{lengths_[0], lengths_[1], lengths_[2]}};
  launch(stream, {dim3(static_cast<unsigned>(num_rows())), dim3(kThreads)}, multiply<T>, waves,
         Reciprocal(box), static_cast<T>(0.25 / (alpha_ * alpha_)), influence_.data(), waves_.data(),
         virials);
  fft_.backward(waves_.data(), mesh);
}

template class WaveSum<float>;
template class WaveSum<double>;

}  // namespace cuda
}  // namespace nearsight
