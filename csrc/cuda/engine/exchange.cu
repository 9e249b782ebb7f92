#include "cuda/engine/exchange.hpp"

namespace nearsight {
namespace cuda {
namespace {

template <class T>
__global__ void scatter_rows(int num_atoms, int width, const std::int32_t* atoms, const T* from, T* to) {
  const std::size_t n = thread_number();
  if (n >= static_cast<std::size_t>(num_atoms) * width) return;
  to[static_cast<std::size_t>(atoms[n / width]) * width + n % width] = from[n];
}

template <class T>
__global__ void gather_rows(int num_atoms, int width, const std::int32_t* atoms, const T* from, T* to) {
  const std::size_t n = thread_number();
  if (n >= static_cast<std::size_t>(num_atoms) * width) return;
  to[n] = from[static_cast<std::size_t>(atoms[n / width]) * width + n % width];
}

}  // namespace

template <class T>
void StagedExchange::stage(T* rows, int width, const std::function<void(const AtomRows&)>& exchange) const {
  const std::size_t size = num_host_ * width, bytes = size * sizeof(T);
  const int atoms = order_->num_atoms;
  const Grid grid = one_each(static_cast<std::size_t>(atoms) * width);
  const std::size_t doubles = (bytes + sizeof(double) - 1) / sizeof(double);
  T* const sorted = reinterpret_cast<T*>(sorted_.clear(stream_, doubles));
  T* const staging = reinterpret_cast<T*>(staging_.resize(doubles));
  launch(stream_, grid, scatter_rows<T>, atoms, width, order_->atoms.data(), rows, sorted);
  if (bytes) copy_to_host(stream_, staging, sorted, bytes);
  stream_.synchronize();
  exchange({staging, width, sizeof(T) == sizeof(double)});
  if (bytes) copy_to_device(stream_, sorted, staging, bytes);
  launch(stream_, grid, gather_rows<T>, atoms, width, order_->atoms.data(), sorted, rows);
}

template void StagedExchange::stage(float*, int, const std::function<void(const AtomRows&)>&) const;
template void StagedExchange::stage(double*, int, const std::function<void(const AtomRows&)>&) const;

}  // namespace cuda
}  // namespace nearsight
