#pragma once
#include "core/mesh/parameters.hpp"
#include "cuda/mesh/charges.hpp"
#include "cuda/mesh/fft.hpp"

namespace nearsight {
namespace cuda {

/// The twin of core's WaveSum for one rank, in numbers T: from charges on the whole mesh to potentials.
template <class T>
class WaveSum {
 public:
  WaveSum(const PmeParameters& parameters, const Stream& stream);

  /// In place, e/Å; writes num_rows() rows of ChargeSums::virials, where there are any.
  void apply(const Stream& stream, T* mesh, const Box& box, double* virials);

  std::size_t num_rows() const;

 private:
  std::size_t num_waves() const {
    return static_cast<std::size_t>(lengths_[0]) * lengths_[1] * (lengths_[2] / 2 + 1);
  }
  void update_influence(const Stream& stream, const Box& box);

  std::array<int, 3> lengths_;
  double alpha_;
  Fft3<T> fft_;
  Mat3 vectors_{};            // the box of `influence_`
  Buffer<double> factors_;    // of waves, along one direction after the other
  Buffer<Complex<T>> waves_;  // [waves]
  Buffer<T> influence_;       // [waves]
};

extern template class WaveSum<float>;
extern template class WaveSum<double>;

}  // namespace cuda
}  // namespace nearsight
