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

/// Equidistant knots from `first` to the cutoff.
struct Grid {
  double first, step;
  int intervals;

  Grid(double cutoff, int intervals);
  double knot(int k) const { return first + k * step; }
  /// The interval of a distance, and the place in it, 0 … 1.
  int interval(double r, double& place) const;
};

/// A linear combination of few functions: outputs = hidden · projection · expansion, to a tolerance.
struct Compression {
  int rank;
  std::vector<double> projection;  // [hidden][rank]
  std::vector<double> expansion;   // [rank][outputs]
};

/// By a singular value decomposition of the functions at distances up to the cutoff, for all of `pairs`.
Compression compress(const RadialNetwork& network, double cutoff, const std::vector<double>& pairs,
                     double tolerance);

/// Weights of values, slopes and curvatures (`jet` of them) at both ends of an interval, which give the
/// polynomial between them: weights[2 * jet] for its value, the next ones for its slope per Å.
void hermite_weights(double place, double step, int jet, double* weights);

}  // namespace mace
}  // namespace nearsight
