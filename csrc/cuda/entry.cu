// What libnearsight finds here by name; errors cross as exceptions of the core's own type.
#include "cuda/couple/dispersion.hpp"
#include "cuda/engine/device_list.hpp"
#include "cuda/engine/peaks.hpp"
#include "cuda/engine/worker.hpp"
#include "cuda/mesh/pme.hpp"
#include "cuda/runtime.hpp"
#include "cuda/training/descriptor.hpp"
#include "cuda/training/training.hpp"

#define NEARSIGHT_ENTRY extern "C" __attribute__((visibility("default")))

NEARSIGHT_ENTRY nearsight::DeviceWorker* nearsight_cuda_make_worker(const nearsight::ModelFile& file,
                                                                    const nearsight::DeviceOptions& options) {
  return nearsight::cuda::make_worker(file, options).release();
}

NEARSIGHT_ENTRY nearsight::DeviceList* nearsight_cuda_make_list(double cutoff, double skin,
                                                                int device_index) {
  return nearsight::cuda::make_list(cutoff, skin, device_index).release();
}

NEARSIGHT_ENTRY nearsight::Dispersion* nearsight_cuda_make_dispersion(
    const nearsight::DispersionRecord& record, bool double_precision, const nearsight::Communicator& ranks,
    int device_index) {
  return nearsight::cuda::make_dispersion(record, double_precision, ranks, device_index).release();
}

NEARSIGHT_ENTRY nearsight::PmeWork* nearsight_cuda_make_pme(const nearsight::PmeParameters& parameters,
                                                            const nearsight::Pencils& pencils, int rank,
                                                            bool single, int device_index) {
  return nearsight::cuda::make_pme(parameters, pencils, rank, single, device_index).release();
}

NEARSIGHT_ENTRY nearsight::PmeWork* nearsight_cuda_make_direct_sum(int device_index) {
  return nearsight::cuda::make_direct_sum(device_index).release();
}

NEARSIGHT_ENTRY void nearsight_cuda_measure_peaks(int device_index, nearsight::DevicePeaks& peaks) {
  peaks = nearsight::cuda::measure_peaks(device_index);
}

NEARSIGHT_ENTRY int nearsight_cuda_num_devices() {
  return nearsight::cuda::num_devices();
}

NEARSIGHT_ENTRY const nearsight::equivariant::DeviceKernels<float>* nearsight_cuda_equivariant_float() {
  return &nearsight::cuda::training::equivariant_kernels<float>();
}

NEARSIGHT_ENTRY const nearsight::equivariant::DeviceKernels<double>* nearsight_cuda_equivariant_double() {
  return &nearsight::cuda::training::equivariant_kernels<double>();
}

NEARSIGHT_ENTRY const nearsight::equivariant::DeviceEdgeKernels* nearsight_cuda_training_edges() {
  return &nearsight::cuda::training::edge_kernels();
}

NEARSIGHT_ENTRY const nearsight::networks::DevicePasses* nearsight_cuda_network_passes() {
  return &nearsight::cuda::training::network_passes();
}

NEARSIGHT_ENTRY const nearsight::DeviceDescriptorKernels* nearsight_cuda_training_descriptors() {
  return &nearsight::cuda::training::descriptor_kernels();
}

NEARSIGHT_ENTRY nearsight::DeviceDescriptor* nearsight_cuda_make_descriptor(
    nearsight::DeviceScope& scope, const nearsight::DescriptorRecord& record) {
  return nearsight::cuda::training::make_descriptor(scope, record).release();
}
