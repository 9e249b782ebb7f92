#pragma once
#include <cstdint>
#include <mutex>

#include "core/engine/device_scope.hpp"
#include "core/models/descriptor.hpp"

namespace nearsight {

/// Neighborhoods of atoms in memory of a device; every atom is a center.
struct DeviceCenters {
  std::int64_t num_centers, num_edges;
  const std::int32_t* species;    // [centers]
  const std::int64_t* offsets;    // [centers + 1]
  const std::int32_t* neighbors;  // [edges]
  const double* vectors;          // [edges][3] Å
};

/// A descriptor on a GPU; tables are [centers][width]. One stream at a time uses it.
class DeviceDescriptor {
 public:
  virtual ~DeviceDescriptor() = default;
  virtual void forward(DeviceScope&, const DeviceCenters&, double* features, int width) = 0;
  /// Gradients [edges][3].
  virtual void reverse(DeviceScope&, const DeviceCenters&, const double* cotangents, int width,
                       double* gradients) = 0;
  /// Of directions [edges][3].
  virtual void tangent(DeviceScope&, const DeviceCenters&, const double* directions, double* tangents,
                       int width) = 0;
};

/// A record of docs/file_format.md, {"kind": …, …}, with its tensors.
struct DescriptorRecord {
  std::string record, kind;
  std::vector<std::string> species;
  Tensors tensors;
};

/// Opens libnearsight_cuda.so. Throws Error (unsupported) in a build without it, or for a kind without
/// kernels.
std::unique_ptr<DeviceDescriptor> make_cuda_descriptor(DeviceScope&, const DescriptorRecord& record);

/// A descriptor for training, with its twin on a GPU from when that is asked for.
class TrainingDescriptor {
 public:
  /// Throws Error (file), see make_descriptor().
  TrainingDescriptor(const std::string& record, std::vector<std::string> species, Tensors tensors);

  const Descriptor& on_cpu() const { return *descriptor_; }
  /// Calls body(twin), one call at a time.
  template <class Body>
  void on_device(DeviceScope& scope, const Body& body) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!twin_ || device_ != scope.device()) twin_ = make_cuda_descriptor(scope, record_);
    device_ = scope.device();
    body(*twin_);
  }

 private:
  DescriptorRecord record_;
  std::unique_ptr<Descriptor> descriptor_;
  std::unique_ptr<DeviceDescriptor> twin_;
  int device_ = -1;
  std::mutex mutex_;
};

}  // namespace nearsight
