#pragma once
#include <memory>
#include <string>

#include "core/engine/batch.hpp"
#include "core/engine/edges.hpp"
#include "core/engine/potential.hpp"
#include "core/engine/row_engine.hpp"
#include "core/io/model_file.hpp"

namespace nearsight {

enum class Device { cpu, cuda };
/// In place of a device's number: the one whose CUDA context the calling thread has made current.
constexpr int kCurrentDevice = -2;

/// A system in the memory of a device, and the host's stream that writes the positions.
struct DeviceArrays {
  const double* positions = nullptr;  // [3 * atoms] Å
  double* forces = nullptr;           // [3 * atoms] eV/Å, added to; null: not wanted
  void* stream = nullptr;             // cudaStream_t; null: the default one
};

/// Rows on another device, with its own lists.
class DeviceWorker : public RowEngine {
 public:
  /// The structure of what follows. Positions along periodic directions of the cell need no ghosts; where
  /// ghosts are given the cell is open. Rows of readouts are those of `owned`, atoms of the domain; ghosts
  /// that are centers are in `ghosts`. Extrapolations are found in reverse passes; null spans: not wanted.
  virtual void load(Span<const double> positions, Span<const int> species, const Cell& cell,
                    Span<const int> owned, Span<const int> ghosts, const Extrapolations& found) = 0;

  /// The same of a whole system in the device's memory, as the host's stream leaves it.
  virtual void load(const DeviceArrays& arrays, Span<const int> species, const Cell& cell,
                    Span<const int> owned, const Extrapolations& found) = 0;

  /// The same of several systems in the host's memory; `owned` are atoms of the batch.
  virtual void load(const Batch& batch, Span<const int> owned, const Extrapolations& found) = 0;

  /// Positions as the host's stream leaves them, for what takes them from the host.
  virtual void read_positions(const DeviceArrays& arrays, Span<double> positions) = 0;

  /// Adds what the host has found to arrays.forces.
  virtual void add_forces(Span<const double> forces, const DeviceArrays& arrays) = 0;
};

struct DeviceOptions {
  bool double_precision = false;
  int index = -1;                      // of the device; -1: the first one; or kCurrentDevice
  double skin = 0.0;                   // Å
  const Exchange* exchange = nullptr;  // outlives the worker
};

/// The model's local part on an NVIDIA GPU; opens libnearsight_cuda.so when it is asked for the first time.
/// Throws Error (unsupported) in a build without it, without a usable GPU, or for an architecture without
/// kernels.
std::unique_ptr<DeviceWorker> make_cuda_worker(const ModelFile& file, const DeviceOptions& options);

/// A neighbor list with skin, made and kept on a GPU.
class DeviceList {
 public:
  virtual ~DeviceList() = default;
  /// Pairs within the cutoff, without those of the skin. Throws what VerletList throws.
  virtual void find(Span<const double> positions, const Cell& cell, NeighborList& pairs) = 0;
  virtual long num_builds() const = 0;
};
/// Throws as make_cuda_worker does, and for a bad cutoff or skin.
std::unique_ptr<DeviceList> make_cuda_list(double cutoff, double skin, int device_index);

/// What a GPU is, and the rates that it reaches with nothing else to do.
struct DevicePeaks {
  std::string name;
  double bandwidth = 0;       // bytes read and written per s, of copies on the device
  double fp32 = 0, fp64 = 0;  // floating-point operations per s, multiply-adds from registers
};
DevicePeaks measure_cuda_peaks(int device_index);

/// How many GPUs there are. Throws as make_cuda_worker does.
int num_cuda_devices();

}  // namespace nearsight
