#include "core/models/mace/radial.hpp"

#include <Eigen/SVD>
#include <algorithm>
#include <cmath>

#include "core/models/mace/hermite.hpp"

namespace nearsight {
namespace mace {
namespace {

/// Where radial functions begin: closer, they stay as they are there, and a repulsion is added.
constexpr double kFirstKnot = 0.1;  // Å

/// A function of the distance with two derivatives.
struct Jet {
  double v = 0, d = 0, dd = 0;
};
Jet operator+(Jet a, Jet b) {
  return {a.v + b.v, a.d + b.d, a.dd + b.dd};
}
Jet operator+(Jet a, double b) {
  return {a.v + b, a.d, a.dd};
}
Jet operator*(Jet a, Jet b) {
  return {a.v * b.v, a.d * b.v + a.v * b.d, a.dd * b.v + 2 * a.d * b.d + a.v * b.dd};
}
Jet operator*(double a, Jet b) {
  return {a * b.v, a * b.d, a * b.dd};
}
/// f(x) from f, f' and f'' at x.v.
Jet chain(Jet x, double f, double df, double ddf) {
  return {f, df * x.d, ddf * x.d * x.d + df * x.dd};
}
Jet power(Jet x, double p) {
  const double f = std::pow(x.v, p);
  return chain(x, f, p * f / x.v, p * (p - 1) * f / (x.v * x.v));
}
Jet tanh(Jet x) {
  const double t = std::tanh(x.v), s = 1 - t * t;
  return chain(x, t, s, -2 * t * s);
}
Jet silu(Jet x) {
  const double s = 1 / (1 + std::exp(-x.v)), ds = s * (1 - s);
  return chain(x, x.v * s, s + x.v * ds, ds * (2 + x.v * (1 - 2 * s)));
}

Jet at(const Jets& jets, std::size_t point, std::size_t k) {
  return {jets.row(point, 0)[k], jets.row(point, 1)[k], jets.row(point, 2)[k]};
}
void set(Jets& jets, std::size_t point, std::size_t k, Jet value) {
  jets.row(point, 0)[k] = value.v;
  jets.row(point, 1)[k] = value.d;
  jets.row(point, 2)[k] = value.dd;
}
/// Puts function(jet) in the place of every jet.
template <class Function>
void apply(Jets& jets, const Function& function) {
  for (std::size_t p = 0; p < jets.points(); ++p)
    for (std::size_t k = 0; k < jets.size(); ++k) set(jets, p, k, function(at(jets, p, k), p));
}

Jet transformed(const Transform& t, Jet r, double pair) {
  switch (t.kind) {
    case Transform::Kind::agnesi: {
      const Jet y = (2.0 / pair) * r;
      return power(t.a * (power(y, t.q) * power(power(y, t.q - t.p) + 1.0, -1.0)) + 1.0, -1.0);
    }
    case Transform::Kind::soft: {
      const double low = 0.75 * pair, high = pair * 4.0 / 3.0;
      const Jet s = 0.5 * (tanh((t.alpha / (high - low)) * (r + -0.5 * (low + high))) + 1.0);
      return (r + -low) * s + low;
    }
    default:
      return r;
  }
}

/// 1 at 0; 0 with two derivatives at the cutoff.
Jet envelope(double r, double cutoff, double p) {
  if (r >= cutoff) return {};
  const Jet x{r / cutoff, 1 / cutoff, 0};
  const Jet polynomial = (0.5 * p * (p + 1)) * (x * x) + (-p * (p + 2)) * x + 0.5 * (p + 1) * (p + 2);
  return (-1.0 * (polynomial * power(x, p))) + 1.0;
}

/// Basis functions of the transformed distance x, as one point of `out`.
void basis(const Basis& b, double cutoff, Jet x, std::size_t point, Jets& out) {
  const Jet y = b.slope * x + b.shift;
  Jet before{1, 0, 0}, value = y;
  for (int n = 0; n < b.count; ++n) {
    if (b.kind == Basis::Kind::chebyshev) {
      set(out, point, n, value);
      const Jet next = 2.0 * (y * value) + -1.0 * before;
      before = value;
      value = next;
    } else if (b.kind == Basis::Kind::gaussian) {
      const double t = (x.v - b.table[n]) / b.width, f = std::exp(-0.5 * t * t);
      set(out, point, n, chain(x, f, -t * f / b.width, (t * t - 1) * f / (b.width * b.width)));
    } else {
      const double w = b.table[n], s = std::sin(w * x.v);
      const Jet sine = chain(x, s, w * std::cos(w * x.v), -w * w * s);
      set(out, point, n, std::sqrt(2 / cutoff) * (sine * power(x, -1.0)));
    }
  }
}

}  // namespace

Jets::Jets(std::size_t points, std::size_t functions)
    : points_(points), functions_(functions), stride_(padded(static_cast<int>(functions))) {
  std::fill_n(data_.resize(3 * points * stride_), 3 * points * stride_, 0.0);
}

RadialNetwork::RadialNetwork(const Definition& definition, const Dense& dense, Ending ending)
    : d_(definition), dense_(dense), ending_(ending) {
  for (std::size_t n = 0; n < dense.weights.size(); ++n)
    layers_.push_back(make_panels<double>(dense.widths[n], dense.widths[n + 1], [&](int in, int out) {
      return dense.weights[n][static_cast<std::size_t>(in) * dense.widths[n + 1] + out];
    }));
}

void RadialNetwork::apply_envelope(Span<const double> distances, Jets& jets) const {
  std::vector<Jet> envelopes;
  for (const double r : distances) envelopes.push_back(envelope(r, d_.cutoff, d_.envelope_order));
  apply(jets, [&](Jet f, std::size_t point) { return f * envelopes[point]; });
}

/// The first `layers` layers, and silu after each that is not the network's last. Derivatives are rows of
/// their own in the products.
Jets RadialNetwork::run(Span<const double> distances, double pair, std::size_t layers) const {
  Jets x(distances.size(), d_.basis.count);
  for (std::size_t p = 0; p < distances.size(); ++p)
    basis(d_.basis, d_.cutoff, transformed(d_.transform, {distances[p], 1, 0}, pair), p, x);
  if (d_.envelope_first) apply_envelope(distances, x);
  for (std::size_t n = 0; n < layers; ++n) {
    Jets y(distances.size(), dense_.widths[n + 1]);
    multiply(static_cast<int>(3 * distances.size()), x.row(0, 0), x.stride(), layers_[n], y.row(0, 0),
             y.stride(), false);
    if (n + 1 < dense_.weights.size()) apply(y, [](Jet f, std::size_t) { return silu(f); });
    x = std::move(y);
  }
  return x;
}

Jets RadialNetwork::outputs(Span<const double> distances, double pair) const {
  Jets x = run(distances, pair, dense_.weights.size());
  if (ending_ == Ending::density) apply(x, [](Jet f, std::size_t) { return tanh(f * f); });
  if (!d_.envelope_first) apply_envelope(distances, x);
  return x;
}

Jets RadialNetwork::hidden(Span<const double> distances, double pair) const {
  Jets x = run(distances, pair, dense_.weights.size() - 1);
  if (!d_.envelope_first) apply_envelope(distances, x);
  return x;
}

Grid::Grid(double cutoff, int count)
    : first_(std::min(kFirstKnot, 0.5 * cutoff)),
      shape_(0.5 * cutoff),
      start_(first_ / (first_ + shape_)),
      per_step_(count / (cutoff / (cutoff + shape_) - start_)),
      intervals_(count) {}

double Grid::knot(int k) const {
  const double s = start_ + k / per_step_;
  return shape_ * s / (1 - s);
}

void Grid::rescale(Span<const double> distances, Jets& jets) const {
  apply(jets, [&](Jet f, std::size_t point) -> Jet {
    const double r = distances[point], dr = 1 / locate(r).per_angstrom;
    return {f.v, f.d * dr, f.dd * dr * dr + f.d * 2 * dr * dr / (r + shape_)};
  });
}

int choose_intervals(const RadialNetwork& network, double cutoff, const std::vector<double>& pairs,
                     const std::vector<int>& candidates, double tolerance) {
  constexpr int kSamples = 64;
  constexpr double kShortest = 0.5, kPlace = 0.27;  // where the slope's error is about the largest
  for (const int candidate : candidates) {
    const Grid grid(cutoff, candidate);
    std::vector<double> left, right, middle;
    for (int n = 0; n < kSamples; ++n) {
      const int k = static_cast<int>(static_cast<long>(candidate) * n / kSamples);
      if (grid.knot(k) < std::min(kShortest, 0.5 * cutoff)) continue;
      left.push_back(grid.knot(k));
      right.push_back(grid.knot(k + 1));
      middle.push_back(left.back() + kPlace * (right.back() - left.back()));
    }
    double worst = 0, largest = 0;
    for (const double pair : pairs) {
      const Jets exact = network.interpolated(middle, pair);
      Jets ends[2] = {network.interpolated(left, pair), network.interpolated(right, pair)};
      grid.rescale(left, ends[0]);
      grid.rescale(right, ends[1]);
      for (std::size_t p = 0; p < middle.size(); ++p) {
        double w[12];
        const Grid::Place place = grid.locate(middle[p]);
        hermite_weights(place.within, place.per_angstrom, w);
        for (std::size_t f = 0; f < exact.size(); ++f) {
          double slope = 0;
          for (int order = 0; order < 3; ++order)
            slope += w[6 + order] * ends[0].row(p, order)[f] + w[9 + order] * ends[1].row(p, order)[f];
          worst = std::max(worst, std::abs(slope - exact.row(p, 1)[f]));
          largest = std::max(largest, std::abs(exact.row(p, 1)[f]));
        }
      }
    }
    if (worst <= tolerance * largest) return candidate;
  }
  return candidates.back();
}

/// The hidden functions are scaled by the size of their weights, so that the tolerance is that of the
/// outputs.
Compression compress(const RadialNetwork& network, double cutoff, const std::vector<double>& pairs,
                     double tolerance) {
  constexpr int kSamples = 256;
  const Dense& dense = network.dense();
  const std::vector<double>& last = dense.weights.back();
  const int hidden = dense.widths[dense.weights.size() - 1], outputs = dense.widths.back();
  std::vector<double> size(hidden, 0.0);
  for (int a = 0; a < hidden; ++a) {
    for (int b = 0; b < outputs; ++b) size[a] += last[a * outputs + b] * last[a * outputs + b];
    size[a] = std::sqrt(size[a]);
  }
  const Grid grid(cutoff, kSamples);
  Eigen::MatrixXd samples(pairs.size() * kSamples, hidden);
  std::vector<double> distances;
  for (int k = 0; k < kSamples; ++k) distances.push_back(grid.knot(k));
  for (std::size_t p = 0; p < pairs.size(); ++p) {
    const Jets jets = network.hidden(distances, pairs[p]);
    for (int k = 0; k < kSamples; ++k)
      for (int a = 0; a < hidden; ++a) samples(p * kSamples + k, a) = size[a] * jets.row(k, 0)[a];
  }
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(samples, Eigen::ComputeThinV);
  Compression c;
  c.rank = 1;
  while (c.rank < hidden && svd.singularValues()[c.rank] > tolerance * svd.singularValues()[0]) ++c.rank;
  c.projection.resize(static_cast<std::size_t>(hidden) * c.rank);
  c.expansion.assign(static_cast<std::size_t>(c.rank) * outputs, 0.0);
  for (int a = 0; a < hidden; ++a)
    for (int k = 0; k < c.rank; ++k) {
      const double v = svd.matrixV()(a, k);
      c.projection[a * c.rank + k] = size[a] * v;
      if (size[a] == 0.0) continue;
      for (int b = 0; b < outputs; ++b) c.expansion[k * outputs + b] += v / size[a] * last[a * outputs + b];
    }
  return c;
}

}  // namespace mace
}  // namespace nearsight
