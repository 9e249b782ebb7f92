#include "core/models/design.hpp"

#include <algorithm>

namespace nearsight {
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

    const std::size_t begin = graph_.offsets[center], end = graph_.offsets[center + 1];
    jacobian_.resize(3 * (end - begin) * stride_);
    workspace_->jacobian(graph_, center, jacobian_.data(), stride_);
    for (std::size_t e = begin; e < end; ++e)
      for (int a = 0; a < 3; ++a) {
        const double* const g = jacobian_.data() + (3 * (e - begin) + a) * stride_;
        double* const own = rows_.forces + (3 * center + a) * columns_ + first;
        double* const other = rows_.forces + (3 * graph_.neighbors[e] + a) * columns_ + first;
        for (std::size_t k = 0; k < count; ++k) own[k] += g[k];
        for (std::size_t k = 0; k < count; ++k) other[k] -= g[k];
        for (int b = 0; b < 3; ++b) add_virial(frame, first, count, a, b, graph_.vectors[3 * e + b], g);
      }
  }

 private:
  /// Half of the mixed components from each order.
  void add_virial(std::size_t frame, std::size_t first, std::size_t count, int a, int b, double r,
                  const double* g) {
    constexpr int place[3][3] = {{0, 3, 4}, {3, 1, 5}, {4, 5, 2}};
    double* const row = rows_.virial + (6 * frame + place[a][b]) * columns_ + first;
    const double w = a == b ? -r : -0.5 * r;
    for (std::size_t k = 0; k < count; ++k) row[k] += w * g[k];
  }

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
