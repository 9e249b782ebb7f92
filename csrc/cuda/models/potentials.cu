// The architectures that have kernels.
#include "core/models/reading.hpp"
#include "cuda/engine/potential.hpp"
#include "cuda/models/bpnn/bpnn.hpp"
#include "cuda/models/mace/mace.hpp"
#include "cuda/models/none/none.hpp"

namespace nearsight {
namespace cuda {

template <class T>
std::unique_ptr<Potential<T>> make_potential(const ModelFile& file, const Stream& stream,
                                             std::string& reason) {
  return reading(file, [&]() -> std::unique_ptr<Potential<T>> {
    if (file.architecture == "bpnn" || file.architecture == "linear")
      return make_bpnn<T>(file, stream, reason);
    if (file.architecture == "none") return make_none<T>();
    if (file.architecture == "mace") return make_mace<T>(file, stream, reason);
    reason = "its architecture '" + file.architecture + "' has none";
    return nullptr;
  });
}

template std::unique_ptr<Potential<float>> make_potential(const ModelFile&, const Stream&, std::string&);
template std::unique_ptr<Potential<double>> make_potential(const ModelFile&, const Stream&, std::string&);

}  // namespace cuda
}  // namespace nearsight
