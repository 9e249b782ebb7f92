#pragma once
#include <memory>

#include "core/mesh/parameters.hpp"
#include "core/mesh/pencils.hpp"

namespace nearsight {

/// The sums of Pme over pairs and waves, or of an open system over all pairs, here or on a GPU.
class PmeWork {
 public:
  virtual ~PmeWork() = default;

  /// Adds to the charges of this rank, e/Å; without `fields` potentials alone. The box has no meaning in an
  /// open system. Collective. Throws Error (numeric) for charges on top of each other, (argument) for a
  /// cutoff that reaches over absurdly many images.
  virtual void add(const Charges& charges, const Box& box, bool fields, ThreadPool& threads, Ranks& ranks,
                   PmeTimes& times, Coulomb& result) = 0;
};

/// The same on an NVIDIA GPU, in floats or doubles with sums in double; `device_index` -1: the first one.
/// Transforms of one rank are cuFFT's, those of several are their CPUs'. Of `times` only these and the number
/// of lists are counted: nothing waits for the GPU in between. Throws Error (unsupported) in a build without
/// CUDA, without a usable GPU, and, of one rank, without cuFFT.
std::unique_ptr<PmeWork> make_cuda_pme(const PmeParameters& parameters, const Pencils& pencils, int rank,
                                       bool single, int device_index);

/// Of an open system, in double.
std::unique_ptr<PmeWork> make_cuda_direct_sum(int device_index);

}  // namespace nearsight
