#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/models/acsf/kernels.hpp"
#include "core/models/descriptor.hpp"
#include "core/models/shared/aligned.hpp"

namespace nearsight {
namespace acsf {

/// One atom-centered symmetry function (Behler 2011), of center species `center`; see docs/file_format.md.
struct SymmetryFunction {
  enum Kind { radial = 0, angular_narrow = 1, angular_wide = 2 };
  Kind kind;
  int center, neighbor1, neighbor2;  // species; neighbor2 is -1 for radial ones
  double eta, shift;                 // Å⁻², Å
  double lambda, zeta;               // angular
  double cutoff;                     // Å
};

/// The symmetry functions of all species, sorted into the groups that the kernels work on. Immutable.
/// Feature n of a center is the n-th function of its species, in the order given.
template <class T>
class Functions {
 public:
  Functions(const std::vector<SymmetryFunction>& functions, int num_species, CutoffFunction cutoff_function);
  ~Functions();

  int num_features(int species) const;
  int num_species() const { return static_cast<int>(centers_.size()); }

 private:
  template <class U>
  friend class Workspace;
  struct Center;
  std::vector<std::unique_ptr<Center>> centers_;
};

template <class T>
class Workspace final : public DescriptorWorkspace {
 public:
  explicit Workspace(const Functions<T>& functions);
  ~Workspace();

  void forward(const Graph& graph, Span<const std::size_t> centers, double* features,
               std::size_t stride) override;
  void reverse(const Graph& graph, Span<const std::size_t> centers, const double* cotangents,
               std::size_t stride, Span<double> edge_gradients) override;
  void tangent(const Graph& graph, Span<const std::size_t> centers, Span<const double> directions,
               double* tangents, std::size_t stride) override;

 private:
  struct ShellArrays;
  /// Sorts the edges of center number c of the graph; everything below is about that center.
  void load(const Graph& graph, std::size_t c);
  void gather(const double* directions);
  void scatter(double* edge_gradients) const;

  const Functions<T>& functions_;
  const typename Functions<T>::Center* center_ = nullptr;
  std::size_t num_edges_ = 0;
  std::vector<std::unique_ptr<ShellArrays>> arrays_;
  std::vector<Shell<T>> shells_;
  std::vector<double> distances_;
  std::vector<T> cotangents_;
};

/// From the record {"kind": "acsf", "cutoff_function": …, "symmetry_functions": …}; throws Error (file).
std::unique_ptr<Descriptor> make_acsf(const std::string& record, const std::vector<std::string>& species);

}  // namespace acsf
}  // namespace nearsight
