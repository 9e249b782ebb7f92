#include "core/models/acsf/acsf.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "core/engine/error.hpp"

namespace nearsight {
namespace acsf {

/// Everything of one center species; the kernels' structs point into the vectors here.
template <class T>
struct Functions<T>::Center {
  struct ShellSpec {
    double cutoff;
    std::vector<T> eta, shift;
  };
  struct Radial {
    std::vector<T> eta, shift;
    std::vector<int> out;
  };
  struct Angular {
    std::vector<int> exponent, out;
    std::vector<AngularTerm<T>> terms;
    std::vector<T> prefactor;
  };
  std::vector<ShellSpec> shells;
  std::vector<std::unique_ptr<Radial>> radial;
  std::vector<std::unique_ptr<Angular>> angular;
  std::vector<RadialGroup<T>> radial_groups;
  std::vector<AngularGroup<T>> angular_groups;
  CenterFunctions<T> functions{};

  int shell(double cutoff) {
    for (std::size_t k = 0; k < shells.size(); ++k)
      if (shells[k].cutoff == cutoff) return static_cast<int>(k);
    shells.push_back({cutoff, {}, {}});
    return static_cast<int>(shells.size()) - 1;
  }

  int exponent(int shell, double eta, double shift) {
    ShellSpec& s = shells[shell];
    for (std::size_t k = 0; k < s.eta.size(); ++k)
      if (s.eta[k] == T(eta) && s.shift[k] == T(shift)) return static_cast<int>(k);
    s.eta.push_back(T(eta));
    s.shift.push_back(T(shift));
    return static_cast<int>(s.eta.size()) - 1;
  }

  void add_radial(int shell_index, int species,
                  const std::vector<std::pair<int, const SymmetryFunction*>>& members) {
    radial.push_back(std::make_unique<Radial>());
    Radial& r = *radial.back();
    for (const auto& [feature, f] : members) {
      r.eta.push_back(T(f->eta));
      r.shift.push_back(T(f->shift));
      r.out.push_back(feature);
    }
    radial_groups.push_back(
        {shell_index, species, static_cast<int>(members.size()), r.eta.data(), r.shift.data(), r.out.data()});
  }

  /// Terms and exponents of a pair of species form a grid, cut into pieces that fit the kernels' arrays.
  void add_angular(int shell_index, int species1, int species2, bool narrow,
                   const std::vector<std::pair<int, const SymmetryFunction*>>& members) {
    std::vector<std::pair<double, double>> terms, exponents;  // (lambda, zeta), (eta, shift)
    const auto insert = [](auto& list, const std::pair<double, double>& item) {
      if (std::find(list.begin(), list.end(), item) == list.end()) list.push_back(item);
    };
    for (const auto& member : members) {
      insert(terms, {member.second->lambda, member.second->zeta});
      insert(exponents, {member.second->eta, member.second->shift});
    }
    std::sort(terms.begin(), terms.end());
    for (std::size_t t0 = 0; t0 < terms.size(); t0 += kMaxTerms)
      for (std::size_t e0 = 0; e0 < exponents.size(); e0 += kMaxExponents) {
        const std::size_t t1 = std::min(terms.size(), t0 + kMaxTerms),
                          e1 = std::min(exponents.size(), e0 + kMaxExponents);
        angular.push_back(std::make_unique<Angular>());
        Angular& a = *angular.back();
        for (std::size_t t = t0; t < t1; ++t) {
          const auto [lambda, zeta] = terms[t];
          const bool integer = zeta == std::floor(zeta) && zeta >= 1.0 && zeta <= 256.0;
          a.terms.push_back({T(lambda), T(zeta), integer ? static_cast<int>(zeta) : 0,
                             t == t0 || terms[t - 1].first != lambda});
          a.prefactor.push_back(T(std::exp2(1.0 - zeta)));
        }
        for (std::size_t e = e0; e < e1; ++e) {
          a.exponent.push_back(exponent(shell_index, exponents[e].first, exponents[e].second));
          for (std::size_t t = t0; t < t1; ++t) {
            int out = -1;
            for (const auto& [feature, f] : members)
              if (std::make_pair(f->lambda, f->zeta) == terms[t] &&
                  std::make_pair(f->eta, f->shift) == exponents[e])
                out = feature;
            a.out.push_back(out);
          }
        }
        angular_groups.push_back({shell_index, species1, species2, narrow,
                                  static_cast<int>(a.exponent.size()), static_cast<int>(a.terms.size()),
                                  a.exponent.data(), a.terms.data(), a.prefactor.data(), a.out.data()});
      }
  }
};

template <class T>
Functions<T>::Functions(const std::vector<SymmetryFunction>& functions, int num_species,
                        CutoffFunction cutoff_function) {
  for (int species = 0; species < num_species; ++species) {
    centers_.push_back(std::make_unique<Center>());
    Center& center = *centers_.back();
    using Key = std::tuple<int, double, int, int>;  // kind, cutoff, pair of species
    std::map<Key, std::vector<std::pair<int, const SymmetryFunction*>>> groups;
    int num_features = 0;
    for (const auto& f : functions) {
      if (f.center != species) continue;
      const auto pair = std::minmax(f.neighbor1, f.neighbor2);
      groups[{f.kind, f.cutoff, pair.first, pair.second}].push_back({num_features++, &f});
    }
    for (const auto& [key, members] : groups) {
      const auto& [kind, cutoff, a, b] = key;
      // minmax puts the -1 of a radial function first.
      if (kind == SymmetryFunction::radial)
        for (std::size_t first = 0; first < members.size(); first += kMaxRadial) {
          const auto last = members.begin() + std::min(members.size(), first + kMaxRadial);
          center.add_radial(center.shell(cutoff), b, {members.begin() + first, last});
        }
      else
        center.add_angular(center.shell(cutoff), a, b, kind == SymmetryFunction::angular_narrow, members);
    }
    center.functions = {cutoff_function,
                        num_features,
                        static_cast<int>(center.shells.size()),
                        static_cast<int>(center.radial_groups.size()),
                        static_cast<int>(center.angular_groups.size()),
                        center.radial_groups.data(),
                        center.angular_groups.data()};
  }
}

template <class T>
Functions<T>::~Functions() = default;

template <class T>
int Functions<T>::num_features(int species) const {
  return centers_[species]->functions.num_features;
}

template <class T>
struct Workspace<T>::ShellArrays {
  AlignedBuffer<T> values;
  std::vector<int> first, count, fill, edge;  // edge: number of each entry among the center's, -1 for padding
};

template <class T>
Workspace<T>::Workspace(const Functions<T>& functions) : functions_(functions) {}
template <class T>
Workspace<T>::~Workspace() = default;

template <class T>
void Workspace<T>::load(const Graph& graph, std::size_t c) {
  const std::size_t begin = graph.offsets[c];
  num_edges_ = graph.offsets[c + 1] - begin;
  const int* const neighbors = graph.neighbors.data() + begin;
  const double* const vectors = graph.vectors.data() + 3 * begin;
  center_ = functions_.centers_[graph.species[graph.centers[c]]].get();
  const int num_species = functions_.num_species();

  distances_.resize(num_edges_);
  for (std::size_t e = 0; e < num_edges_; ++e) {
    const double* const v = vectors + 3 * e;
    distances_[e] = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
  }
  while (arrays_.size() < center_->shells.size()) arrays_.push_back(std::make_unique<ShellArrays>());
  shells_.resize(center_->shells.size());

  for (std::size_t n = 0; n < shells_.size(); ++n) {
    const auto& spec = center_->shells[n];
    ShellArrays& a = *arrays_[n];
    Shell<T>& s = shells_[n];
    a.count.assign(num_species, 0);
    for (std::size_t e = 0; e < num_edges_; ++e)
      if (distances_[e] < spec.cutoff) ++a.count[graph.species[neighbors[e]]];
    a.first.resize(num_species);
    int stride = 0;
    for (int k = 0; k < num_species; ++k) {
      a.first[k] = stride;
      stride += (a.count[k] + kPad - 1) / kPad * kPad;
    }
    const int num_exponents = static_cast<int>(spec.eta.size());
    T* p = a.values.resize(static_cast<std::size_t>(stride) * (11 + 2 * num_exponents));
    const auto take = [&](int arrays) {
      T* const array = p;
      p += static_cast<std::size_t>(arrays) * stride;
      return array;
    };
    s.cutoff = T(spec.cutoff);
    s.num_species = num_species;
    s.stride = stride;
    s.first = a.first.data();
    s.count = a.count.data();
    s.num_exponents = num_exponents;
    s.eta = spec.eta.data();
    s.shift = spec.shift.data();
    for (T** array : {&s.x, &s.y, &s.z, &s.r, &s.inv_r, &s.fc, &s.dfc, &s.gx, &s.gy, &s.gz, &s.gr})
      *array = take(1);
    s.weight = take(num_exponents);
    s.dweight = take(num_exponents);

    a.edge.assign(stride, -1);
    a.fill = a.first;
    for (std::size_t e = 0; e < num_edges_; ++e) {
      if (!(distances_[e] < spec.cutoff)) continue;
      const int k = a.fill[graph.species[neighbors[e]]]++;
      s.x[k] = T(vectors[3 * e]);
      s.y[k] = T(vectors[3 * e + 1]);
      s.z[k] = T(vectors[3 * e + 2]);
      s.r[k] = T(distances_[e]);
      a.edge[k] = static_cast<int>(e);
    }
    // Padding lies beyond the cutoff, where every function is exactly zero.
    for (int k = 0; k < num_species; ++k) {
      const int end = a.first[k] + (a.count[k] + kPad - 1) / kPad * kPad;
      for (int pad = a.fill[k]; pad < end; ++pad) {
        s.x[pad] = s.r[pad] = T(2 * spec.cutoff);
        s.y[pad] = s.z[pad] = T(0);
      }
    }
    kernels<T>().prepare(center_->functions.cutoff_function, s);
  }
}

template <class T>
void Workspace<T>::scatter(double* edge_gradients) const {
  std::fill_n(edge_gradients, 3 * num_edges_, 0.0);
  for (std::size_t n = 0; n < shells_.size(); ++n) {
    const Shell<T>& s = shells_[n];
    const std::vector<int>& edge = arrays_[n]->edge;
    for (int k = 0; k < s.stride; ++k) {
      if (edge[k] < 0) continue;
      double* const g = edge_gradients + 3 * edge[k];
      g[0] += s.gx[k];
      g[1] += s.gy[k];
      g[2] += s.gz[k];
    }
  }
}

template <class T>
void Workspace<T>::gather(const double* directions) {
  for (std::size_t n = 0; n < shells_.size(); ++n) {
    Shell<T>& s = shells_[n];
    const std::vector<int>& edge = arrays_[n]->edge;
    for (int k = 0; k < s.stride; ++k) {
      const double* const v = directions + 3 * edge[k];
      s.gx[k] = edge[k] < 0 ? T(0) : T(v[0]);
      s.gy[k] = edge[k] < 0 ? T(0) : T(v[1]);
      s.gz[k] = edge[k] < 0 ? T(0) : T(v[2]);
    }
  }
}

template <class T>
void Workspace<T>::forward(const Graph& graph, Span<const std::size_t> centers, double* features,
                           std::size_t stride) {
  for (std::size_t k = 0; k < centers.size(); ++k) {
    load(graph, centers[k]);
    kernels<T>().features(center_->functions, shells_.data(), features + k * stride);
  }
}

template <class T>
void Workspace<T>::reverse(const Graph& graph, Span<const std::size_t> centers, const double* cotangents,
                           std::size_t stride, Span<double> edge_gradients) {
  for (std::size_t k = 0; k < centers.size(); ++k) {
    load(graph, centers[k]);
    cotangents_.resize(center_->functions.num_features);
    for (std::size_t n = 0; n < cotangents_.size(); ++n)
      cotangents_[n] = static_cast<T>(cotangents[k * stride + n]);
    kernels<T>().reverse(center_->functions, shells_.data(), cotangents_.data());
    scatter(edge_gradients.data() + 3 * graph.offsets[centers[k]]);
  }
}

template <class T>
void Workspace<T>::tangent(const Graph& graph, Span<const std::size_t> centers, Span<const double> directions,
                           double* tangents, std::size_t stride) {
  for (std::size_t k = 0; k < centers.size(); ++k) {
    load(graph, centers[k]);
    gather(directions.data() + 3 * graph.offsets[centers[k]]);
    kernels<T>().tangent(center_->functions, shells_.data(), tangents + k * stride);
  }
}

template class Functions<float>;
template class Functions<double>;
template class Workspace<float>;
template class Workspace<double>;

NEARSIGHT_CHOOSE_KERNELS(float, kernels_float)
NEARSIGHT_CHOOSE_KERNELS(double, kernels_double)

}  // namespace acsf
}  // namespace nearsight
