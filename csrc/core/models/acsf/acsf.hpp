#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/models/acsf/kernels.hpp"
#include "core/models/descriptor.hpp"
#include "core/models/shared/aligned.hpp"

namespace nearsight {
namespace acsf {

/// One atom-centered symmetry function of center species `center`; see docs/file_format.md.
struct SymmetryFunction {
  /// What neighbors of a species, or pairs of two, count.
  struct Neighbors {
    int species1, species2;  // species1 <= species2; of radial functions both are the same
    double factor;
  };
  int center;
  bool radial, narrow;
  std::vector<Neighbors> neighbors;
  double cutoff;  // Å; of compact functions the outer end
  Shape<double> shape;
  Term<double> term;
  double prefactor;
};

/// The cutoff function of all Gaussians; `inner_fraction` of the cutoff is where it begins to fall.
struct CutoffFunction {
  Falling kind;
  double inner_fraction;
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

  struct Center;
  const Center& center(int species) const { return *centers_[species]; }

 private:
  std::vector<std::unique_ptr<Center>> centers_;
};

/// Everything of one center species; the kernels' structs point into the vectors here.
template <class T>
struct Functions<T>::Center {
  struct ShellSpec {
    double radius;
    Cutoff<T> cutoff;
    std::vector<Shape<T>> shapes;
  };
  struct Angular {
    std::vector<int> shapes;
    std::vector<Term<T>> terms;
    std::vector<AngularFunction<T>> functions;
  };
  std::vector<ShellSpec> shells;
  std::vector<std::unique_ptr<std::vector<RadialFunction<T>>>> radial;
  std::vector<std::unique_ptr<Angular>> angular;
  std::vector<std::unique_ptr<std::vector<MomentFunction>>> moment;
  std::vector<RadialGroup<T>> radial_groups;
  std::vector<AngularGroup<T>> angular_groups;
  std::vector<MomentGroup<T>> moment_groups;
  CenterFunctions<T> functions{};
};

/// The neighbors of a center within the radius of a shell, by species and octant.
template <class T>
struct Sorted {
  std::vector<int> first, count, edge;  // edge: number of each entry among the center's, -1: padding
  AlignedBuffer<T> places;              // [x, y, z, r][entries]
  int stride() const { return static_cast<int>(edge.size()); }
};

/// What is kept of a center: its shells.
template <class T>
using SortedShells = std::vector<Sorted<T>>;

/// A center after forward(): its neighbors, shell by shell, and its triplets, group by group.
template <class T>
struct Neighborhood {
  struct TripletArrays {
    AlignedBuffer<T> values;
    std::vector<unsigned short> masks;
  };
  const typename Functions<T>::Center* center = nullptr;
  std::vector<AlignedBuffer<T>> shell_arrays;
  std::vector<std::unique_ptr<TripletArrays>> triplet_arrays;
  std::vector<Shell<T>> shells;
  std::vector<Triplets<T>> triplets;
  AlignedBuffer<T> radial_slopes;
  std::vector<double> moments;
  Kept<T> kept;
};

template <class T>
class Workspace final : public DescriptorWorkspace {
 public:
  explicit Workspace(const Functions<T>& functions);
  ~Workspace();

  void forward(const Graph& graph, Span<const std::size_t> centers, double* features,
               std::size_t stride) override;
  void prepare(const Graph& graph, Span<const std::size_t> centers, double* features,
               std::size_t stride) override;
  void select(std::size_t graph) override;
  void restore(const Graph& graph, Span<const std::size_t> centers, double* features,
               std::size_t stride) override;
  void reverse(const Graph& graph, Span<const std::size_t> centers, const double* cotangents,
               std::size_t stride, Span<double> edge_gradients) override;
  void tangent(const Graph& graph, Span<const std::size_t> centers, Span<const double> directions,
               double* tangents, std::size_t stride) override;
  void jacobian(const Graph& graph, std::size_t center, double* jacobian, std::size_t stride) override;

 private:
  using Center = typename Functions<T>::Center;

  const Center& center(const Graph& graph, std::size_t c) const;
  void sort(const Graph& graph, std::size_t c, std::size_t k);
  void sort(Span<const double> vectors, const typename Center::ShellSpec& spec, Sorted<T>& sorted);
  Neighborhood<T>& load(const Graph& graph, std::size_t c, std::size_t k);
  void make_shell(std::size_t number, Sorted<T>& sorted, Neighborhood<T>& neighborhood);
  void make_triplets(std::size_t number, Neighborhood<T>& neighborhood);

  const Functions<T>& functions_;
  std::vector<std::vector<SortedShells<T>>> graphs_{1};  // centers of graphs
  std::size_t selected_ = 0;                             // of these
  std::vector<std::unique_ptr<Neighborhood<T>>> neighborhoods_;
  AlignedBuffer<T> scratch_;
  std::vector<double> distances_;  // of the edges of a center
  std::vector<int> bins_, fill_;   // species and octant of their neighbors; the next entry of each
  std::vector<T> cotangents_;
};

/// What a record says.
struct Definition {
  std::vector<SymmetryFunction> functions;
  CutoffFunction cutoff_function;
};

/// Of the record {"kind": "acsf", "cutoff_function": …, "symmetry_functions": …}; throws Error (file).
Definition read_definition(const std::string& record, const std::vector<std::string>& species);

/// From the same record; throws Error (file).
std::unique_ptr<Descriptor> make_acsf(const std::string& record, const std::vector<std::string>& species);

}  // namespace acsf
}  // namespace nearsight
