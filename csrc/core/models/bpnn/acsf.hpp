#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/engine/graph.hpp"
#include "core/models/bpnn/kernels.hpp"
#include "core/models/shared/aligned.hpp"

namespace nearsight {
namespace bpnn {

/// One atom-centered symmetry function (Behler 2011), of center species `center`; see docs/file_format.md.
struct SymmetryFunction {
  enum Kind { radial = 0, angular_narrow = 1, angular_wide = 2 };
  Kind kind;
  int center, neighbor1, neighbor2;  // species; neighbor2 is -1 for radial ones
  double eta, shift;                 // Å⁻², Å
  double lambda, zeta;               // angular
  double cutoff;                     // Å
};

/// "cos", "tanh3", "poly1" … "poly4"; throws Error (file) for others.
CutoffFunction cutoff_function_of(const std::string& name);

/// The symmetry functions of all species, sorted into the groups that the kernels work on. Immutable.
/// Feature n of a center is the n-th function of its species, in the order given.
template <class T>
class Acsf {
 public:
  Acsf(const std::vector<SymmetryFunction>& functions, int num_species, CutoffFunction cutoff_function);
  ~Acsf();

  int num_features(int species) const;
  int num_species() const { return static_cast<int>(centers_.size()); }

 private:
  template <class U>
  friend class AcsfWorkspace;
  struct Center;
  std::vector<std::unique_ptr<Center>> centers_;
};

/// The neighborhood of one center at a time; one thread uses it.
template <class T>
class AcsfWorkspace {
 public:
  explicit AcsfWorkspace(const Acsf<T>& acsf);
  ~AcsfWorkspace();

  /// Sorts the edges of center number c of the graph; call before the others.
  void load(const Graph& graph, std::size_t c);
  void features(double* features);
  /// edge_gradients[3 * edges of the center] = dE/dr_ij
  void reverse(const T* cotangents, double* edge_gradients);
  /// tangents[features] = sum over edges of dG/dr_ij · directions[3 * edges of the center]
  void tangent(const double* directions, double* tangents);

 private:
  struct ShellArrays;
  const Acsf<T>& acsf_;
  const typename Acsf<T>::Center* center_ = nullptr;
  std::size_t num_edges_ = 0;
  std::vector<std::unique_ptr<ShellArrays>> arrays_;
  std::vector<Shell<T>> shells_;
  std::vector<double> distances_;
};

}  // namespace bpnn
}  // namespace nearsight
