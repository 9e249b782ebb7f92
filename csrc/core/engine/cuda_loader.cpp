#include <cstdlib>
#include <string>

#include "core/couple/dispersion.hpp"
#include "core/engine/device.hpp"
#include "core/engine/error.hpp"
#include "core/engine/libraries.hpp"
#include "core/mesh/pme_work.hpp"
#include "core/models/equivariant/device.hpp"
#include "core/models/networks/device.hpp"
#include "core/models/shared/device_training.hpp"
#include "core/models/training_descriptor.hpp"

namespace nearsight {
namespace {

/// NEARSIGHT_CUDA=emulated in the environment takes the kernels that were compiled for the CPU, for tests.
const char* library_name() {
  const char* const wanted = std::getenv("NEARSIGHT_CUDA");
  return wanted && std::string(wanted) == "emulated" ? "libnearsight_cuda_emulated.so"
                                                     : "libnearsight_cuda.so";
}

const SiblingLibrary& kernels() {
  static const SiblingLibrary library(library_name());
  if (!library.is_open())
    throw Error(ErrorKind::unsupported, "device cuda was asked for, but this build has no CUDA kernels (" +
                                            library.reason() +
                                            "): install nvcc and build nearsight again, or use device cpu");
  return library;
}

/// A table of kernels, by the name of the function that gives it. Ops ask at every call, and keep what they
/// found.
template <class Table>
const Table& table(const char* function) {
  return *kernels().find<const Table*()>(function)();
}

}  // namespace

std::unique_ptr<DeviceWorker> make_cuda_worker(const ModelFile& file, const DeviceOptions& options) {
  const auto make =
      kernels().find<DeviceWorker*(const ModelFile&, const DeviceOptions&)>("nearsight_cuda_make_worker");
  return std::unique_ptr<DeviceWorker>(make(file, options));
}

std::unique_ptr<DeviceList> make_cuda_list(double cutoff, double skin, int device_index) {
  const auto make = kernels().find<DeviceList*(double, double, int)>("nearsight_cuda_make_list");
  return std::unique_ptr<DeviceList>(make(cutoff, skin, device_index));
}

std::unique_ptr<Dispersion> make_cuda_dispersion(const DispersionRecord& record, bool double_precision,
                                                 const Communicator& ranks, int device_index) {
  const auto make = kernels().find<Dispersion*(const DispersionRecord&, bool, const Communicator&, int)>(
      "nearsight_cuda_make_dispersion");
  return std::unique_ptr<Dispersion>(make(record, double_precision, ranks, device_index));
}

std::unique_ptr<PmeWork> make_cuda_pme(const PmeParameters& parameters, const Pencils& pencils, int rank,
                                       bool single, int device_index) {
  const auto make = kernels().find<PmeWork*(const PmeParameters&, const Pencils&, int, bool, int)>(
      "nearsight_cuda_make_pme");
  return std::unique_ptr<PmeWork>(make(parameters, pencils, rank, single, device_index));
}

std::unique_ptr<PmeWork> make_cuda_direct_sum(int device_index) {
  const auto make = kernels().find<PmeWork*(int)>("nearsight_cuda_make_direct_sum");
  return std::unique_ptr<PmeWork>(make(device_index));
}

DevicePeaks measure_cuda_peaks(int device_index) {
  DevicePeaks peaks;
  kernels().find<void(int, DevicePeaks&)>("nearsight_cuda_measure_peaks")(device_index, peaks);
  return peaks;
}

int num_cuda_devices() {
  return kernels().find<int()>("nearsight_cuda_num_devices")();
}

namespace equivariant {

template <>
const DeviceKernels<float>& device_kernels() {
  static const auto& found = table<DeviceKernels<float>>("nearsight_cuda_equivariant_float");
  return found;
}
template <>
const DeviceKernels<double>& device_kernels() {
  static const auto& found = table<DeviceKernels<double>>("nearsight_cuda_equivariant_double");
  return found;
}
const DeviceEdgeKernels& device_edge_kernels() {
  static const auto& found = table<DeviceEdgeKernels>("nearsight_cuda_training_edges");
  return found;
}

}  // namespace equivariant

const DeviceDescriptorKernels& device_descriptor_kernels() {
  static const auto& found = table<DeviceDescriptorKernels>("nearsight_cuda_training_descriptors");
  return found;
}

std::unique_ptr<DeviceDescriptor> make_cuda_descriptor(DeviceScope& scope, const DescriptorRecord& record) {
  const auto make = kernels().find<DeviceDescriptor*(DeviceScope&, const DescriptorRecord&)>(
      "nearsight_cuda_make_descriptor");
  return std::unique_ptr<DeviceDescriptor>(make(scope, record));
}

const networks::DevicePasses& networks::device_passes() {
  static const auto& found = table<DevicePasses>("nearsight_cuda_network_passes");
  return found;
}

}  // namespace nearsight
