#pragma once
#include "core/mesh/parameters.hpp"
#include "cuda/mesh/charges.hpp"
#include "cuda/mesh/fft.hpp"

namespace nearsight {
namespace cuda {

/// The twin of core's Mesh, in numbers T. Charges are added to the mesh as integers, whose sum does not
/// depend on the order; so energies have the same bits whatever the device does first.
template <class T>
class Mesh {
 public:
  Mesh(const PmeParameters& parameters, const Stream& stream);

  /// Adds potentials and fields to what sums.values holds, and writes virials. `order` is one in which
  /// neighbors in space follow one another; `total` is Σ|q|, e.
  void add(const Stream& stream, const DeviceCharges& charges, const std::int32_t* order, double total,
           const Box& box, const ChargeSums& sums);

  /// Rows of ChargeSums::virials that add() writes.
  std::size_t num_rows() const;

 private:
  std::size_t num_points() const { return static_cast<std::size_t>(lengths_[0]) * lengths_[1] * lengths_[2]; }
  std::size_t num_waves() const {
    return static_cast<std::size_t>(lengths_[0]) * lengths_[1] * (lengths_[2] / 2 + 1);
  }
  void update_influence(const Stream& stream, const Box& box);

  std::array<int, 3> lengths_;
  int order_;
  double alpha_;
  Fft3<T> fft_;
  Mat3 vectors_{};                       // the box of `influence_`
  Buffer<double> factors_;               // of waves, along one direction after the other
  Buffer<unsigned long long> integers_;  // [points] of charges; zeros between evaluations
  Buffer<T> mesh_;                       // [points] charges, then potentials
  Buffer<Complex<T>> waves_;             // [waves]
  Buffer<T> influence_;                  // [waves]
};

extern template class Mesh<float>;
extern template class Mesh<double>;

}  // namespace cuda
}  // namespace nearsight
