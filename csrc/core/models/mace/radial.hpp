#pragma once
#include <algorithm>
#include <vector>

#include "core/engine/span.hpp"
#include "core/models/mace/definition.hpp"
#include "core/models/mace/kernels.hpp"
#include "core/models/mace/panels.hpp"

namespace nearsight {
namespace mace {

/// Value, slope and curvature of many functions at some distances.
class Jets {
 public:
  Jets(std::size_t points, std::size_t functions);

  std::size_t points() const { return points_; }
  std::size_t size() const { return functions_; }
  int stride() const { return stride_; }
  double* row(std::size_t point, int order) { return data_.data() + (3 * point + order) * stride_; }
  const double* row(std::size_t point, int order) const {
    return data_.data() + (3 * point + order) * stride_;
  }

 private:
  std::size_t points_, functions_;
  int stride_;  // padded
  AlignedBuffer<double> data_;
};

/// A dense network of the distance, with envelope and transform, evaluated analytically. The definition must
/// outlive it. `pair` is the sum of the radii of the two species, see Definition::transform.
class RadialNetwork {
 public:
  enum class Ending { plain, density };  // density: tanh² of the output, times the envelope
  RadialNetwork(const Definition& definition, const Dense& dense, Ending ending);

  /// The functions at distances, Å.
  Jets outputs(Span<const double> distances, double pair) const;
  /// What the last layer takes, with the envelope; outputs are the last layer's weights times these.
  Jets hidden(Span<const double> distances, double pair) const;

  /// What tables are made from: the outputs of a density, else the inputs of the last layer.
  Jets interpolated(Span<const double> distances, double pair) const {
    return ending_ == Ending::density ? outputs(distances, pair) : hidden(distances, pair);
  }

  const Dense& dense() const { return dense_; }

 private:
  Jets run(Span<const double> distances, double pair, std::size_t layers) const;
  void apply_envelope(Span<const double> distances, Jets& jets) const;

  const Definition& d_;
  const Dense& dense_;
  Ending ending_;
  std::vector<Panels<double>> layers_;
};

/// Knots from a short distance to the cutoff, equidistant in r / (r + cutoff / 2): close together where
/// radial functions are rough.
class Grid {
 public:
  Grid(double cutoff, int intervals);

  int intervals() const { return intervals_; }
  double first() const { return first_; }  // Å
  KnotScale scale() const { return {first_, shape_, start_, per_step_, intervals_}; }
  double knot(int k) const;
  struct Place {
    int knot;             // number of the interval
    double within;        // 0 … 1
    double per_angstrom;  // d(within)/dr
  };
  Place locate(double r) const {
    const double inverse = 1 / (r + shape_);
    const double steps = std::min(std::max((r * inverse - start_) * per_step_, 0.0), double(intervals_));
    const int knot = std::min(static_cast<int>(steps), intervals_ - 1);
    return {knot, steps - knot, shape_ * per_step_ * inverse * inverse};
  }
  /// Turns derivatives by r into those by the place.
  void rescale(Span<const double> distances, Jets& jets) const;

 private:
  double first_, shape_, start_, per_step_;
  int intervals_;
};

/// The smallest of `candidates` with which interpolated slopes are within `tolerance`, relative to the
/// largest one, or the last one. Measured above 0.5 Å.
int choose_intervals(const RadialNetwork& network, double cutoff, const std::vector<double>& pairs,
                     const std::vector<int>& candidates, double tolerance);

/// A linear combination of few functions: outputs = hidden · projection · expansion, to a tolerance.
struct Compression {
  int rank;
  std::vector<double> projection;  // [hidden][rank]
  std::vector<double> expansion;   // [rank][outputs]
};

/// By a singular value decomposition of the functions at distances up to the cutoff, for all of `pairs`.
Compression compress(const RadialNetwork& network, double cutoff, const std::vector<double>& pairs,
                     double tolerance);

}  // namespace mace
}  // namespace nearsight
