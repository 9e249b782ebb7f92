// Symmetry functions sorted into groups: those of one shell and one pair of species share their triplets.
#include <algorithm>
#include <map>
#include <tuple>

#include "core/models/acsf/acsf.hpp"

namespace nearsight {
namespace acsf {
namespace {

bool operator==(const Shape<double>& a, const Shape<double>& b) {
  return a.compact == b.compact && a.eta == b.eta && a.shift == b.shift && a.middle == b.middle &&
         a.inverse_half_width == b.inverse_half_width && a.core == b.core && a.asymmetric == b.asymmetric;
}

bool operator==(const Term<double>& a, const Term<double>& b) {
  return a.compact == b.compact && a.lambda == b.lambda && a.zeta == b.zeta && a.middle == b.middle &&
         a.inverse_half_width == b.inverse_half_width && a.core == b.core;
}

template <class T>
Shape<T> converted(const Shape<double>& s) {
  return {s.compact, T(s.eta), T(s.shift), T(s.middle), T(s.inverse_half_width), s.core, s.asymmetric};
}

template <class T>
Term<T> converted(const Term<double>& t) {
  return {t.compact, T(t.lambda), T(t.zeta), t.integer_zeta, T(t.middle), T(t.inverse_half_width), t.core};
}

/// The place of an item in a list, to which it is added if it is new.
template <class Item>
int place_of(std::vector<Item>& list, const Item& item) {
  for (std::size_t k = 0; k < list.size(); ++k)
    if (list[k] == item) return static_cast<int>(k);
  list.push_back(item);
  return static_cast<int>(list.size()) - 1;
}

bool goes_by_moments(const SymmetryFunction& f) {
  return !f.radial && !f.narrow && !f.term.compact && f.term.integer_zeta >= 1 &&
         f.term.integer_zeta <= kMaxDegree;
}

/// A function with the neighbors of one group: its feature, and what a neighbor or pair counts.
struct Member {
  int out;
  double factor;
  const SymmetryFunction* function;
};

/// Builds the groups of one center species, with shapes in double until all are known.
template <class T>
class Builder {
 public:
  using Center = typename Functions<T>::Center;

  Builder(Center& center, CutoffFunction cutoff_function)
      : center_(center), cutoff_function_(cutoff_function) {}

  void add_radial(double cutoff, int species, const std::vector<Member>& members) {
    auto functions = std::make_unique<std::vector<RadialFunction<T>>>();
    for (const Member& m : members)
      functions->push_back({converted<T>(m.function->shape), T(m.factor * m.function->prefactor), m.out});
    center_.radial_groups.push_back(
        {shell(cutoff), species, static_cast<int>(functions->size()), functions->data()});
    center_.radial.push_back(std::move(functions));
  }

  void add_angular(double cutoff, int species1, int species2, bool narrow,
                   const std::vector<Member>& members) {
    const int number = shell(cutoff);
    auto group = std::make_unique<typename Center::Angular>();
    std::vector<Term<double>> terms;
    bool common_slope = true;
    for (const Member& m : members) {
      const SymmetryFunction& f = *m.function;
      common_slope = common_slope && !f.shape.compact && f.shape.shift == 0.0;
      const int shape = place_of(group->shapes, place_of(shapes_[number], f.shape));
      group->functions.push_back({shape, place_of(terms, f.term), T(m.factor * f.prefactor), m.out});
    }
    std::stable_sort(group->functions.begin(), group->functions.end(),
                     [](const auto& a, const auto& b) { return a.shape < b.shape; });
    for (const auto& term : terms) group->terms.push_back(converted<T>(term));
    center_.angular_groups.push_back(
        {number, species1, species2, narrow, common_slope, members[0].function->term.compact,
         static_cast<int>(group->shapes.size()), static_cast<int>(group->terms.size()),
         static_cast<int>(group->functions.size()), group->shapes.data(), group->terms.data(),
         group->functions.data()});
    center_.angular.push_back(std::move(group));
  }

  /// Wide functions of one shape with a whole ζ: powers of the cosine by the binomial series.
  void add_moments(double cutoff, int num_species,
                   const std::vector<std::pair<int, const SymmetryFunction*>>& members) {
    const int number = shell(cutoff);
    auto functions = std::make_unique<std::vector<MomentFunction>>();
    int degree = 0;
    for (const auto& [out, f] : members) {
      degree = std::max(degree, f->term.integer_zeta);
      for (const auto& n : f->neighbors) {
        MomentFunction function{n.species1, n.species2, f->term.integer_zeta, out, {}, 0.0};
        double power = f->prefactor * n.factor;
        for (int k = 0; k <= function.degree; ++k) {
          function.powers[k] = power;
          function.self += power;
          power *= f->term.lambda * (function.degree - k) / (k + 1);
        }
        functions->push_back(function);
      }
    }
    center_.moment_groups.push_back({number, place_of(shapes_[number], members[0].second->shape), degree,
                                     num_species, static_cast<int>(functions->size()), functions->data()});
    center_.moment.push_back(std::move(functions));
  }

  void finish(int num_features) {
    for (std::size_t k = 0; k < shapes_.size(); ++k)
      for (const auto& shape : shapes_[k]) center_.shells[k].shapes.push_back(converted<T>(shape));
    center_.functions = {num_features,
                         static_cast<int>(center_.radial_groups.size()),
                         static_cast<int>(center_.angular_groups.size()),
                         static_cast<int>(center_.moment_groups.size()),
                         center_.radial_groups.data(),
                         center_.angular_groups.data(),
                         center_.moment_groups.data()};
  }

 private:
  int shell(double radius) {
    auto& shells = center_.shells;
    for (std::size_t k = 0; k < shells.size(); ++k)
      if (shells[k].radius == radius) return static_cast<int>(k);
    const double width = radius * (1.0 - cutoff_function_.inner_fraction);
    shells.push_back({radius, {cutoff_function_.kind, T(radius), T(1.0 / width)}, {}});
    shapes_.emplace_back();
    return static_cast<int>(shells.size()) - 1;
  }

  Center& center_;
  CutoffFunction cutoff_function_;
  std::vector<std::vector<Shape<double>>> shapes_;  // of each shell
};

}  // namespace

template <class T>
Functions<T>::Functions(const std::vector<SymmetryFunction>& functions, int num_species,
                        CutoffFunction cutoff_function) {
  for (int species = 0; species < num_species; ++species) {
    centers_.push_back(std::make_unique<Center>());
    // Radial first; compact functions apart from Gaussians, narrow ones from wide ones.
    using Key = std::tuple<bool, bool, bool, double, int, int>;
    std::map<Key, std::vector<Member>> groups;
    using Wide = std::pair<double, std::vector<std::pair<int, const SymmetryFunction*>>>;  // cutoff, members
    std::vector<Wide> wide;
    int num_features = 0;
    for (const auto& f : functions) {
      if (f.center != species) continue;
      if (goes_by_moments(f)) {
        const auto same = [&](const Wide& w) {
          return w.first == f.cutoff && w.second[0].second->shape == f.shape;
        };
        auto found = std::find_if(wide.begin(), wide.end(), same);
        if (found == wide.end()) found = wide.insert(wide.end(), {f.cutoff, {}});
        found->second.push_back({num_features++, &f});
        continue;
      }
      for (const auto& n : f.neighbors)
        groups[{!f.radial, f.narrow, f.shape.compact, f.cutoff, n.species1, n.species2}].push_back(
            {num_features, n.factor, &f});
      ++num_features;
    }
    Builder<T> builder(*centers_.back(), cutoff_function);
    for (const auto& [key, members] : groups) {
      const auto& [angular, narrow, compact, cutoff, species1, species2] = key;
      if (!angular) builder.add_radial(cutoff, species1, members);
      for (std::size_t first = 0; angular && first < members.size(); first += kMaxFunctions) {
        const auto last = members.begin() + std::min(members.size(), first + kMaxFunctions);
        builder.add_angular(cutoff, species1, species2, narrow, {members.begin() + first, last});
      }
    }
    for (const auto& [cutoff, members] : wide) builder.add_moments(cutoff, num_species, members);
    builder.finish(num_features);
  }
}

template <class T>
Functions<T>::~Functions() = default;

template <class T>
int Functions<T>::num_features(int species) const {
  return centers_[species]->functions.num_features;
}

template class Functions<float>;
template class Functions<double>;

}  // namespace acsf
}  // namespace nearsight
