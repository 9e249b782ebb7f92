#include <algorithm>
#include <numeric>

#include "cuda/models/acsf/functions.hpp"

namespace nearsight {
namespace cuda {
namespace acsf {
namespace {

/// Appends, and returns the places.
template <class Item>
Range append(std::vector<Item>& list, const Item* items, int count) {
  const int first = static_cast<int>(list.size());
  list.insert(list.end(), items, items + count);
  return {first, first + count};
}

std::vector<Monomial> all_monomials() {
  std::vector<Monomial> all(nearsight::acsf::kMaxMonomials);
  for (int degree = 0; degree <= nearsight::acsf::kMaxDegree; ++degree)
    for (int a = 0; a <= degree; ++a)
      for (int b = 0; b <= degree - a; ++b) {
        const int c = degree - a - b;
        double multinomial = 1.0;
        for (int n = 1; n <= b; ++n) multinomial *= static_cast<double>(a + n) / n;
        for (int n = 1; n <= c; ++n) multinomial *= static_cast<double>(a + b + n) / n;
        all[monomial_place(a, b, c)] = {a, b, c, degree, multinomial};
      }
  return all;
}

}  // namespace

template <class T>
struct FunctionSet<T>::Lists {
  std::vector<CenterTable> centers;
  std::vector<ShellTable<T>> shells;
  std::vector<Shape<T>> shapes;
  std::vector<RadialTable> radial;
  std::vector<RadialFunction<T>> radial_functions;
  std::vector<AngularTable> angular;
  std::vector<ShapeUse> uses;
  std::vector<Term<T>> terms;
  std::vector<AngularFunction<T>> angular_functions;
  std::vector<MomentTable> moments;
  std::vector<MomentFunction> moment_functions;

  void add(const nearsight::acsf::AngularGroup<T>& g, int shell);
};

template <class T>
FunctionSet<T>::FunctionSet(const Stream& stream, const nearsight::acsf::Functions<T>& functions) {
  Lists lists;
  for (int species = 0; species < functions.num_species(); ++species) {
    add(functions.center(species), lists);
    num_features_.push_back(functions.num_features(species));
    room_.features = std::max(room_.features, num_features_.back());
  }
  const auto keep = [&](const auto& list) { return tables_.keep(stream, list); };
  device_ = {keep(lists.centers),
             keep(lists.shells),
             keep(lists.shapes),
             keep(lists.radial),
             keep(lists.radial_functions),
             keep(lists.angular),
             keep(lists.uses),
             keep(lists.terms),
             keep(lists.angular_functions),
             keep(lists.moments),
             keep(lists.moment_functions),
             tables_.keep(stream, all_monomials())};
}

template <class T>
void FunctionSet<T>::Lists::add(const nearsight::acsf::AngularGroup<T>& g, int number) {
  const ShellTable<T>& shell = shells[number + centers.back().shells.first];
  AngularTable table{number, g.species1, g.species2, g.narrow, g.compact_terms, false, {}, {}, {}};
  table.terms = append(terms, g.terms, g.num_terms);
  table.functions = append(angular_functions, g.functions, g.num_functions);
  table.uses = {static_cast<int>(uses.size()), static_cast<int>(uses.size()) + g.num_shapes};
  int function = table.functions.first;
  for (int e = 0; e < g.num_shapes; ++e) {  // functions are sorted by shape
    Range same{function, function};
    while (same.last < table.functions.last && angular_functions[same.last].shape == e) ++same.last;
    uses.push_back({shell.shapes.first + g.shapes[e], shell.first_row + g.shapes[e], same});
    function = same.last;
  }
  table.compact_shapes = shapes[uses.back().shape].compact;
  angular.push_back(table);
}

template <class T>
void FunctionSet<T>::add(const Center& center, Lists& lists) {
  std::vector<int> order(center.shells.size()), place(order.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int a, int b) { return center.shells[a].radius < center.shells[b].radius; });
  lists.centers.emplace_back();
  CenterTable table{center.functions.num_features, {}, {}, {}, {}};
  table.shells.first = static_cast<int>(lists.shells.size());
  radii_.emplace_back();
  int rows = 0;
  for (const int number : order) {
    const auto& shell = center.shells[number];
    const Range shapes = append(lists.shapes, shell.shapes.data(), static_cast<int>(shell.shapes.size()));
    place[number] = static_cast<int>(lists.shells.size()) - table.shells.first;
    lists.shells.push_back({shell.cutoff, shapes, rows});
    radii_.back().push_back(shell.radius);
    rows += shapes.last - shapes.first;
  }
  num_rows_ = std::max(num_rows_, rows);
  table.shells.last = static_cast<int>(lists.shells.size());
  lists.centers.back() = table;

  table.radial.first = static_cast<int>(lists.radial.size());
  for (const auto& g : center.radial_groups) {
    room_.functions = std::max(room_.functions, std::min(g.num_functions, kMostFunctions));
    lists.radial.push_back(
        {place[g.shell], g.species, append(lists.radial_functions, g.functions, g.num_functions)});
  }
  table.radial.last = static_cast<int>(lists.radial.size());

  table.angular.first = static_cast<int>(lists.angular.size());
  for (const auto& g : center.angular_groups) {
    room_.functions = std::max(room_.functions, g.num_functions);
    room_.terms = std::max(room_.terms, g.num_terms);
    room_.has_pairs = true;
    lists.add(g, place[g.shell]);
  }
  table.angular.last = static_cast<int>(lists.angular.size());

  table.moments.first = static_cast<int>(lists.moments.size());
  for (const auto& g : center.moment_groups) {
    const int shell = place[g.shell], count = num_monomials(g.degree) + 1;
    room_.moments = std::max(room_.moments, g.num_species * count);
    lists.moments.push_back({shell, lists.shells[table.shells.first + shell].first_row + g.shape, g.degree,
                             append(lists.moment_functions, g.functions, g.num_functions)});
  }
  table.moments.last = static_cast<int>(lists.moments.size());
  lists.centers.back() = table;
}

template class FunctionSet<float>;
template class FunctionSet<double>;

}  // namespace acsf
}  // namespace cuda
}  // namespace nearsight
