#include <limits>
#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"
#include "core/models/ace/ace.hpp"
#include "core/models/acsf/acsf.hpp"
#include "core/models/ani/ani.hpp"
#include "core/models/training_descriptor.hpp"

namespace nearsight {

Span<const Range> DescriptorWorkspace::active() const {
  static const Range all[] = {{0, std::numeric_limits<int>::max()}};
  return {all, 1};
}

void DescriptorWorkspace::jacobian(const Graph& graph, std::size_t center, double* jacobian,
                                   std::size_t stride) {
  const std::size_t begin = graph.offsets[center], count = graph.offsets[center + 1] - begin;
  const std::vector<std::int64_t> offsets{0, static_cast<std::int64_t>(count)};
  Graph alone = graph;
  alone.centers = graph.centers.subspan(center, 1);
  alone.num_rows = 1;
  alone.offsets = offsets;
  alone.neighbors = graph.neighbors.subspan(begin, count);
  alone.vectors = graph.vectors.subspan(3 * begin, 3 * count);
  const std::vector<std::size_t> first{0};
  std::vector<double> features(stride), cotangents(stride, 0.0), gradients(3 * count);
  forward(alone, first, features.data(), stride);
  for (std::size_t k = 0; k < stride; ++k) {
    cotangents[k] = 1.0;
    reverse(alone, first, cotangents.data(), stride, gradients);
    cotangents[k] = 0.0;
    for (std::size_t row = 0; row < 3 * count; ++row) jacobian[row * stride + k] = gradients[row];
  }
}

TrainingDescriptor::TrainingDescriptor(const std::string& record, std::vector<std::string> species,
                                       Tensors tensors)
    : record_{record, {}, std::move(species), std::move(tensors)},
      descriptor_(make_descriptor(record, record_.species, record_.tensors)) {
  record_.kind = nlohmann::json::parse(record).at("kind");
}

std::unique_ptr<Descriptor> make_descriptor(const std::string& record,
                                            const std::vector<std::string>& species, const Tensors& tensors) {
  using nlohmann::json;
  try {
    const json values = json::parse(record);
    const std::string kind = values.at("kind");
    if (kind == "acsf") return acsf::make_acsf(record, species);
    if (kind == "ani") return ani::make_ani(record, species);
    if (kind == "ace" || kind == "soap") return ace::make_ace(record, species, tensors);
    throw Error(ErrorKind::file, tensors.origin + ": descriptor kind '" + kind +
                                     "' is not known, expected acsf, ani, ace or soap: update nearsight");
  } catch (const json::exception& e) {
    throw Error(ErrorKind::file,
                tensors.origin + " has a damaged descriptor (" + e.what() + "): export it again");
  }
}

}  // namespace nearsight
