#pragma once
#include "core/engine/potential.hpp"
#include "cuda/runtime.hpp"

namespace nearsight {
namespace cuda {

/// Features of atoms of one species, and their ranges, in device memory.
struct JudgedFeatures {
  const double* rows;  // [num_rows][stride]
  int num_rows, stride, num_features;
  int first;                       // number of the first feature among Potential::features()
  const double *lowest, *highest;  // ranges of all features of the model
};

/// What core's Extrapolations says, in device memory: the same whatever the order of the atoms.
class ExtrapolationSums {
 public:
  /// Forgets everything; so many features as the model has.
  void clear(const Stream& stream, std::size_t num_features);
  void add(const Stream& stream, const JudgedFeatures& judged);

  /// Queues what add_to() needs.
  void fetch(const Stream& stream);
  /// After fetch() and Stream::synchronize().
  void add_to(const Extrapolations& found) const;

 private:
  std::size_t num_features_ = 0;
  /// [3][features]: counts; lowest and highest values outside, as integers that sort like them.
  Buffer<unsigned long long> sums_;
  Pinned<unsigned long long> host_sums_;
};

}  // namespace cuda
}  // namespace nearsight
