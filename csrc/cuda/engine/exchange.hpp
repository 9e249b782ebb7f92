#pragma once
#include "core/engine/exchange.hpp"
#include "cuda/engine/graph.hpp"
#include "cuda/neighbors/neighbor_list.hpp"

namespace nearsight {
namespace cuda {

/// The host's exchange of features, through the host's memory.
class StagedExchange final : public RowExchange {
 public:
  /// Both outlive it.
  StagedExchange(const Stream& stream, const Exchange& host) : stream_(stream), host_(host) {}

  /// Rows are those of these atoms from now on.
  void follow(const AtomOrder& order, std::size_t num_host) {
    order_ = &order;
    num_host_ = num_host;
  }

  void forward(float* rows, int width) const override { stage(rows, width, host_.forward); }
  void forward(double* rows, int width) const override { stage(rows, width, host_.forward); }
  void reverse(float* rows, int width) const override { stage(rows, width, host_.reverse); }
  void reverse(double* rows, int width) const override { stage(rows, width, host_.reverse); }

 private:
  template <class T>
  void stage(T* rows, int width, const std::function<void(const AtomRows&)>& exchange) const;

  const Stream& stream_;
  const Exchange& host_;
  const AtomOrder* order_ = nullptr;
  std::size_t num_host_ = 0;
  mutable Buffer<double> sorted_;  // rows in the host's order, floats too
  mutable Pinned<double> staging_;
};

}  // namespace cuda
}  // namespace nearsight
