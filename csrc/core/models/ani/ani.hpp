#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/models/ani/kernels.hpp"
#include "core/models/descriptor.hpp"
#include "core/models/shared/aligned.hpp"

namespace nearsight {
namespace ani {

/// The constants of ANI's atomic environment vectors; see docs/file_format.md. Lengths in Å.
struct Constants {
  CutoffFunction cutoff_function;
  int num_species;
  double radial_cutoff, radial_eta;
  std::vector<double> radial_shifts;
  double angular_cutoff, angular_eta, zeta;
  std::vector<double> angular_shifts, angles;

  int num_pairs() const { return num_species * (num_species + 1) / 2; }
  int num_radial() const { return num_species * static_cast<int>(radial_shifts.size()); }
  int functions_of_pair() const { return static_cast<int>(angular_shifts.size() * angles.size()); }
  int num_features() const { return num_radial() + num_pairs() * functions_of_pair(); }
};

template <class T>
class Workspace final : public DescriptorWorkspace {
 public:
  explicit Workspace(const Constants& constants);
  ~Workspace();

  void forward(const Graph& graph, Span<const std::size_t> centers, double* features,
               std::size_t stride) override;
  void prepare(const Graph& graph, Span<const std::size_t> centers, double* features,
               std::size_t stride) override;
  void reverse(const Graph& graph, Span<const std::size_t> centers, const double* cotangents,
               std::size_t stride, Span<double> edge_gradients) override;
  void tangent(const Graph& graph, Span<const std::size_t> centers, Span<const double> directions,
               double* tangents, std::size_t stride) override;
  Span<const Range> active() const override { return active_; }

 private:
  struct Neighborhood;
  /// Sorts the edges of center number c of the graph.
  void load(const Graph& graph, std::size_t c, Neighborhood& n);
  void fill(const Graph& graph, std::size_t c, int which, Neighborhood& n) const;
  void set_room(Neighborhood& n);
  void mark_active(const Neighborhood& n);
  void collect_active();

  const Constants& constants_;
  std::vector<T> radial_shifts_, angular_shifts_, cos_angles_, sin_angles_;
  Terms<T> terms_;
  std::vector<std::unique_ptr<Neighborhood>> neighborhoods_;  // of the last forward()
  std::vector<double> distances_;
  AlignedBuffer<T> work_;
  std::vector<T> cotangents_;
  std::vector<char> seen_;  // [species + pairs] whether the last forward() met it
  std::vector<Range> active_;
};

/// Of the record {"kind": "ani", …}; throws Error (file).
Constants read_constants(const std::string& record, int num_species);

/// From the same record; throws Error (file).
std::unique_ptr<Descriptor> make_ani(const std::string& record, const std::vector<std::string>& species);

}  // namespace ani
}  // namespace nearsight
