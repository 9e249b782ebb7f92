#include "core/models/design/design.hpp"

#include <algorithm>

#include "core/models/design/kernels.hpp"

namespace nearsight {
namespace design {
NEARSIGHT_CHOOSE_KERNELS(double)
}
namespace {

/// Adds what one center contributes, in its species' columns, to the rows of its frame.
class Assembler {
 public:
  Assembler(const Descriptor& descriptor, int num_species, const Graph& graph, const DesignRows& rows)
      : descriptor_(descriptor), graph_(graph), rows_(rows), workspace_(descriptor.make_workspace(true)) {
    for (int s = 0; s < num_species; ++s)
      stride_ = std::max(stride_, static_cast<std::size_t>(descriptor.num_features(s)));
    columns_ = stride_ * num_species;
    features_.resize(stride_);
  }

  void add(std::size_t frame, std::size_t center) {
    const int species = graph_.species[center];
    const std::size_t count = descriptor_.num_features(species), first = species * stride_;
    const std::size_t numbers[] = {center};
    workspace_->forward(graph_, {numbers, 1}, features_.data(), stride_);
    double* const energy = rows_.energy + frame * columns_ + first;
    for (std::size_t k = 0; k < count; ++k) energy[k] += features_[k];

    const std::size_t begin = graph_.offsets[center], edges = graph_.offsets[center + 1] - begin;
    jacobian_.resize(3 * edges * count);
    workspace_->jacobian(graph_, center, jacobian_.data(), count);
    design::kernels<double>().add(
        {static_cast<int>(edges), static_cast<int>(count), static_cast<long>(columns_),
         graph_.vectors.data() + 3 * begin, jacobian_.data(), graph_.neighbors.data() + begin,
         static_cast<int>(center), rows_.forces + first, rows_.virial + 6 * frame * columns_ + first});
  }

 private:
  const Descriptor& descriptor_;
  const Graph& graph_;
  const DesignRows& rows_;
  std::unique_ptr<DescriptorWorkspace> workspace_;
  std::size_t stride_ = 0, columns_;
  std::vector<double> features_, jacobian_;
};

}  // namespace

void design_rows(const Descriptor& descriptor, int num_species, const Graph& graph,
                 Span<const std::int64_t> first_atom, const DesignRows& rows, ThreadPool& threads) {
  threads.split(first_atom.size() - 1, [&](int, std::size_t first, std::size_t last) {
    Assembler assembler(descriptor, num_species, graph, rows);
    for (std::size_t frame = first; frame < last; ++frame)
      for (auto center = first_atom[frame]; center < first_atom[frame + 1]; ++center)
        assembler.add(frame, center);
  });
}

}  // namespace nearsight
