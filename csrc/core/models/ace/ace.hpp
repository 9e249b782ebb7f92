#pragma once
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "core/models/ace/kernels.hpp"
#include "core/models/descriptor.hpp"
#include "core/models/shared/aligned.hpp"

namespace nearsight {
namespace ace {

constexpr int kCenters = kRun<double>;  // whose products are evaluated side by side

/// What a record and its tensors say, in double; see docs/file_format.md.
struct Definition {
  int num_species, channels;
  double cutoff;                   // Å
  std::vector<int> radial_counts;  // [l_max + 1]
  std::vector<int> radial_first;   // [l_max + 1] first column of the radial functions of each l
  std::vector<int> table_of;       // [species of center][species of neighbor]
  int num_tables, num_knots, num_functions;
  std::vector<double> radial;   // [tables][knots][3][functions]
  std::vector<double> mixing;   // [channels][species], empty: channels are species
  std::vector<double> center;   // [species][radial_counts[0]] moments of the center itself
  std::vector<int> first_term;  // of every product, and the end
  std::vector<Product> terms;
  std::vector<int> features;  // nodes
  bool normalize;

  int moments_per_channel() const;
  Products products() const;
};

/// Throws Error (file) for a record or tensors that cannot be right.
Definition read_definition(const std::string& record, int num_species, const Tensors& tensors);

/// Radial tables and shape of the moments in the type of the kernels. Immutable.
template <class T>
struct Tables {
  explicit Tables(const Definition& definition);

  const Definition& definition;
  Shape<T> shape{};
  AlignedBuffer<T> radial;     // [tables][knots][3][columns]; slope and curvature per step and step²
  std::vector<int> moment_at;  // [moments per channel] place in the kernels' moments of a species
};

/// Moments are summed in T, their products are in double.
template <class T>
class Workspace final : public DescriptorWorkspace {
 public:
  explicit Workspace(const Tables<T>& tables);
  ~Workspace() override;

  void forward(const Graph& graph, Span<const std::size_t> centers, double* features,
               std::size_t stride) override;
  void reverse(const Graph& graph, Span<const std::size_t> centers, const double* cotangents,
               std::size_t stride, Span<double> edge_gradients) override;
  void tangent(const Graph& graph, Span<const std::size_t> centers, Span<const double> directions,
               double* tangents, std::size_t stride) override;
  void jacobian(const Graph& graph, std::size_t center, double* jacobian, std::size_t stride) override;

 private:
  struct Neighborhood;
  void sum_moments(const Neighborhood& neighborhood, int center_species);
  void moments_to_nodes(int lane, double* nodes) const;
  void adjoints_to_moments(int lane, const double* adjoints);
  void fill_nodes(const Graph& graph, Span<const std::size_t> centers, std::size_t first, double* nodes);
  std::array<double, kCenters> scales(const double* nodes) const;
  void differentiate_norm(const double* nodes, double* vectors) const;

  const Tables<T>& tables_;
  const Definition& d_;
  const Products products_;
  std::vector<std::unique_ptr<Neighborhood>> kept_;
  AlignedBuffer<T> moments_;  // of one center, [species][moments]
  std::vector<double> one_;   // nodes of one center
  AlignedBuffer<double> nodes_,
      adjoints_;  // [kCenters centers at a time][nodes][kCenters], [nodes][kCenters]
};

/// From the record {"kind": "ace" or "soap", …}; throws Error (file).
std::unique_ptr<Descriptor> make_ace(const std::string& record, const std::vector<std::string>& species,
                                     const Tensors& tensors);

}  // namespace ace
}  // namespace nearsight
