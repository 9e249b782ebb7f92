#include "core/models/mace/mace.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "core/engine/error.hpp"
#include "core/models/mace/worker.hpp"

namespace nearsight {
namespace mace {
namespace {

class MacePotential final : public Potential {
 public:
  explicit MacePotential(Definition definition) : definition_(std::move(definition)) {}

  std::unique_ptr<Worker> make_worker(const WorkerOptions& options) const override {
    if (options.double_precision) return std::make_unique<MaceWorker<double>>(engine(double_), options);
    return std::make_unique<MaceWorker<float>>(engine(mixed_), options);
  }
  int exchange_width() const override {
    // GPUs have whole warps of channels.
    constexpr int warp = 32;
    const int channels = (definition_.channels + warp - 1) / warp * warp;
    int widest = 0;
    for (std::size_t t = 1; t < definition_.layers.size(); ++t)
      widest = std::max(widest, num_components(definition_.layers[t].input) * channels);
    return widest;
  }
  /// With charges the reverse pass begins when those of all atoms are known: whole graphs keep what it needs.
  std::size_t tile() const override {
    return definition_.layers.size() == 1 && definition_.columns == 1 ? kTile : 0;
  }

 private:
  template <class T>
  struct Lazy {
    std::once_flag once;
    std::unique_ptr<const Engine<T>> engine;
  };
  template <class T>
  const Engine<T>& engine(Lazy<T>& lazy) const {
    std::call_once(lazy.once, [&] {
      using Radials = typename Engine<T>::Radials;
      lazy.engine = std::make_unique<const Engine<T>>(
          definition_, wants_analytic_radials() ? Radials::analytic : Radials::tables);
    });
    return *lazy.engine;
  }

  Definition definition_;
  mutable Lazy<float> mixed_;
  mutable Lazy<double> double_;
};

}  // namespace

bool wants_analytic_radials() {
  const char* const wanted = std::getenv("NEARSIGHT_RADIALS");
  if (!wanted || !*wanted || !std::strcmp(wanted, "tables")) return false;
  if (!std::strcmp(wanted, "analytic")) return true;
  throw Error(ErrorKind::argument, std::string("NEARSIGHT_RADIALS is '") + wanted +
                                       "' in the environment, expected tables or analytic");
}

std::unique_ptr<Potential> make_mace(const ModelFile& file, std::string& reason) {
  Definition definition = read_definition(file);
  reason = unsupported(definition);
  if (!reason.empty()) return nullptr;
  return std::make_unique<MacePotential>(std::move(definition));
}

}  // namespace mace
}  // namespace nearsight
