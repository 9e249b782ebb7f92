#include "core/models/none/none.hpp"

#include <algorithm>

namespace nearsight {
namespace {

class NoWorker final : public Worker {
 public:
  void forward(const Graph&, Span<double> readouts) override {
    std::fill(readouts.begin(), readouts.end(), 0.0);
  }
  void reverse(const Graph&, Span<const double>, Span<double> edge_gradients) override {
    std::fill(edge_gradients.begin(), edge_gradients.end(), 0.0);
  }
};

class NoPotential final : public Potential {
 public:
  std::unique_ptr<Worker> make_worker(const WorkerOptions&) const override {
    return std::make_unique<NoWorker>();
  }
  std::size_t tile() const override { return 1024; }
};

}  // namespace

std::unique_ptr<Potential> make_none() {
  return std::make_unique<NoPotential>();
}

}  // namespace nearsight
