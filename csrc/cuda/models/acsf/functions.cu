#include <algorithm>
#include <numeric>

#include "cuda/models/acsf/functions.hpp"

namespace nearsight {
namespace cuda {
namespace acsf {

template <class T>
FunctionTables<T>::FunctionTables(const Stream& stream, const nearsight::acsf::Functions<T>& functions) {
  std::vector<CenterTable<T>> centers;
  for (int species = 0; species < functions.num_species(); ++species) {
    centers.push_back(upload(stream, functions.center(species)));
    num_features_.push_back(functions.num_features(species));
    room_.features = std::max(room_.features, num_features_.back());
  }
  centers_ = tables_.keep(stream, centers);
}

template <class T>
CenterTable<T> FunctionTables<T>::upload(const Stream& stream, const Center& center) {
  std::vector<int> order(center.shells.size()), place(order.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int a, int b) { return center.shells[a].radius < center.shells[b].radius; });
  std::vector<ShellTable<T>> shells;
  radii_.emplace_back();
  int num_shapes = 0;
  for (const int number : order) {
    const auto& shell = center.shells[number];
    const int count = static_cast<int>(shell.shapes.size());
    place[number] = static_cast<int>(shells.size());
    shells.push_back({shell.cutoff, tables_.keep(stream, shell.shapes), count, num_shapes});
    radii_.back().push_back(shell.radius);
    num_shapes += count;
  }
  num_shapes_ = std::max(num_shapes_, num_shapes);

  const auto keep = [&](const auto* values, int count) {
    return tables_.keep(stream, Span<const std::decay_t<decltype(*values)>>(values, count));
  };
  auto radial = center.radial_groups;
  for (auto& g : radial) {
    room_.functions = std::max(room_.functions, std::min(g.num_functions, kMostFunctions));
    g.shell = place[g.shell];
    g.functions = keep(g.functions, g.num_functions);
  }
  auto angular = center.angular_groups;
  for (auto& g : angular) {
    room_.functions = std::max(room_.functions, g.num_functions);
    room_.terms = std::max(room_.terms, g.num_terms);
    room_.has_pairs = true;
    g.shell = place[g.shell];
    g.shapes = keep(g.shapes, g.num_shapes);
    g.terms = keep(g.terms, g.num_terms);
    g.functions = keep(g.functions, g.num_functions);
  }
  auto moment = center.moment_groups;
  for (auto& g : moment) {
    const int count = nearsight::acsf::num_monomials(g.degree) + 1;
    room_.moments = std::max(room_.moments, g.num_species * count);
    g.shell = place[g.shell];
    g.functions = keep(g.functions, g.num_functions);
  }
  CenterTable<T> table{};
  table.functions = center.functions;
  table.functions.radial = tables_.keep(stream, radial);
  table.functions.angular = tables_.keep(stream, angular);
  table.functions.moment = tables_.keep(stream, moment);
  table.shells = tables_.keep(stream, shells);
  table.num_shells = static_cast<int>(shells.size());
  return table;
}

template class FunctionTables<float>;
template class FunctionTables<double>;

}  // namespace acsf
}  // namespace cuda
}  // namespace nearsight
