#pragma once
#include <memory>
#include <vector>

#include "core/mesh/wave_sum.hpp"
#include "cuda/mesh/wave_sum.hpp"

namespace nearsight {
namespace cuda {

/// The twin of core's Mesh, in numbers T. Charges are added to the rank's brick of the mesh as integers,
/// whose sum does not depend on the order; so energies have the same bits whatever the device does first. The
/// waves of one rank are summed on the device; bricks of several go to the host and back, which sums them.
template <class T>
class Mesh {
 public:
  Mesh(const PmeParameters& parameters, const Pencils& pencils, int rank, const Stream& stream);

  /// Charges of this rank to the brick that they reach. `order` is one in which neighbors in space follow one
  /// another; `total` is Σ|q|, e. With several ranks it waits until the brick is on the host.
  void spread(const Stream& stream, const DeviceCharges& charges, const std::int32_t* order, double total,
              const Box& box, const std::vector<Region>& regions);

  /// From these charges to potentials. The virial of one rank goes to num_rows() rows of ChargeSums::virials,
  /// if there are any, that of several to `result`. Collective.
  void convolve(const Stream& stream, const Box& box, double* virials, ThreadPool& threads, Ranks& ranks,
                Coulomb& result);

  /// Adds potentials and fields of the charges to what sums.values holds.
  void gather(const Stream& stream, const DeviceCharges& charges, const std::int32_t* order, const Box& box,
              const ChargeSums& sums) const;

  std::size_t num_rows() const { return waves_ ? waves_->num_rows() : 0; }
  /// Spent in transforms of the host so far, without exchanges, s.
  double seconds() const { return host_waves_ ? host_waves_->seconds() : 0.0; }

 private:
  std::array<int, 3> lengths_;
  int order_, rank_;
  std::unique_ptr<WaveSum<T>> waves_;                  // of one rank
  std::unique_ptr<nearsight::WaveSum<T>> host_waves_;  // of several
  std::vector<Block> bricks_;                          // of all ranks
  Buffer<unsigned long long> integers_;  // [points] of the brick, charges; zeros between evaluations
  Buffer<T> mesh_;                       // [points] charges, then potentials
  Pinned<T> host_;                       // the same
};

extern template class Mesh<float>;
extern template class Mesh<double>;

}  // namespace cuda
}  // namespace nearsight
