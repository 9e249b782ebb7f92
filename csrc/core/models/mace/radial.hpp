#pragma once
#include <functional>
#include <vector>

#include "core/models/mace/definition.hpp"

namespace nearsight {
namespace mace {

/// Value, slope and curvature of many functions of the distance: [3][count].
class Jets {
 public:
  explicit Jets(std::size_t count = 0) { resize(count); }
  void resize(std::size_t count) {
    count_ = count;
    data_.assign(3 * count, 0.0);
  }
  std::size_t size() const { return count_; }
  double* order(int n) { return data_.data() + n * count_; }
  const double* order(int n) const { return data_.data() + n * count_; }

 private:
  std::size_t count_ = 0;
  std::vector<double> data_;
};

/// A dense network of the distance, with envelope and transform, evaluated analytically. The definition must
/// outlive it. `pair` is the sum of the radii of the two species, see Definition::transform.
class RadialNetwork {
 public:
  enum class Ending { plain, density };  // density: tanh² of the output, times the envelope
  RadialNetwork(const Definition& definition, const Dense& dense, Ending ending)
      : d_(definition), dense_(dense), ending_(ending) {}

  /// The functions at r, Å.
  Jets outputs(double r, double pair) const;
  /// What the last layer takes, with the envelope; outputs are the last layer's weights times these.
  Jets hidden(double r, double pair) const;

  const Dense& dense() const { return dense_; }

 private:
  Jets run(double r, double pair, std::size_t layers) const;
  void apply_envelope(double r, Jets& jets) const;

  const Definition& d_;
  const Dense& dense_;
  Ending ending_;
};

/// Knots from a short distance to the cutoff, equidistant in r / (r + cutoff / 2): close together where radial
/// functions are rough.
class Grid {
 public:
  Grid(double cutoff, int intervals);

  int intervals() const { return intervals_; }
  double first() const { return first_; }  // Å
  double knot(int k) const;
  /// The interval of a distance, and the place in it, 0 … 1.
  int interval(double r, double& place) const;
  /// d(place)/dr
  double per_angstrom(double r) const { return shape_ / ((r + shape_) * (r + shape_) * step_); }
  /// Turns derivatives by r into those by the place.
  void rescale(double r, Jets& jets) const;

 private:
  double coordinate(double r) const { return r / (r + shape_); }

  double first_, shape_, start_, step_;
  int intervals_;
};

/// The smallest of `candidates` with which interpolated slopes are within `tolerance`, relative to the largest
/// one, or the last one. Measured above 0.5 Å, on the functions that the last layer of the network takes.
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

/// Weights of value, slope and curvature at the one end of an interval, and at the other: weights[6] for the
/// value of the polynomial of degree five between them, the next six for its slope, times `slope_scale`.
void hermite_weights(double place, double slope_scale, double* weights);

}  // namespace mace
}  // namespace nearsight
