#include "core/models/mace/radial.hpp"

#include <Eigen/SVD>
#include <algorithm>
#include <cmath>

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

Jet at(const Jets& jets, std::size_t k) {
  return {jets.order(0)[k], jets.order(1)[k], jets.order(2)[k]};
}
void set(Jets& jets, std::size_t k, Jet value) {
  jets.order(0)[k] = value.v;
  jets.order(1)[k] = value.d;
  jets.order(2)[k] = value.dd;
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

Jets basis(const Basis& b, double cutoff, Jet x) {
  Jets out(b.count);
  if (b.kind == Basis::Kind::chebyshev) {
    const Jet y = b.slope * x + b.shift;
    Jet before{1, 0, 0}, value = y;
    for (int n = 0; n < b.count; ++n) {
      set(out, n, value);
      const Jet next = 2.0 * (y * value) + -1.0 * before;
      before = value;
      value = next;
    }
    return out;
  }
  for (int n = 0; n < b.count; ++n) {
    if (b.kind == Basis::Kind::gaussian) {
      const double t = (x.v - b.table[n]) / b.width, f = std::exp(-0.5 * t * t);
      set(out, n, chain(x, f, -t * f / b.width, (t * t - 1) * f / (b.width * b.width)));
    } else {
      const double w = b.table[n], s = std::sin(w * x.v);
      const Jet sine = chain(x, s, w * std::cos(w * x.v), -w * w * s);
      set(out, n, std::sqrt(2 / cutoff) * (sine * power(x, -1.0)));
    }
  }
  return out;
}

}  // namespace

void RadialNetwork::apply_envelope(double r, Jets& jets) const {
  const Jet e = envelope(r, d_.cutoff, d_.envelope_order);
  for (std::size_t k = 0; k < jets.size(); ++k) set(jets, k, at(jets, k) * e);
}

/// The first `layers` layers, and silu after each that is not the network's last.
Jets RadialNetwork::run(double r, double pair, std::size_t layers) const {
  Jets x = basis(d_.basis, d_.cutoff, transformed(d_.transform, {r, 1, 0}, pair));
  if (d_.envelope_first) apply_envelope(r, x);
  for (std::size_t n = 0; n < layers; ++n) {
    const std::size_t in = dense_.widths[n], out = dense_.widths[n + 1];
    Jets y(out);
    for (int order = 0; order < 3; ++order)
      for (std::size_t a = 0; a < in; ++a) {
        const double factor = x.order(order)[a];
        const double* const row = dense_.weights[n].data() + a * out;
        double* const sum = y.order(order);
        for (std::size_t b = 0; b < out; ++b) sum[b] += factor * row[b];
      }
    if (n + 1 < dense_.weights.size())
      for (std::size_t b = 0; b < out; ++b) set(y, b, silu(at(y, b)));
    x = std::move(y);
  }
  return x;
}

Jets RadialNetwork::outputs(double r, double pair) const {
  Jets x = run(r, pair, dense_.weights.size());
  if (ending_ == Ending::density)
    for (std::size_t k = 0; k < x.size(); ++k) set(x, k, tanh(at(x, k) * at(x, k)));
  if (!d_.envelope_first) apply_envelope(r, x);
  return x;
}

Jets RadialNetwork::hidden(double r, double pair) const {
  Jets x = run(r, pair, dense_.weights.size() - 1);
  if (!d_.envelope_first) apply_envelope(r, x);
  return x;
}

Grid::Grid(double cutoff, int count)
    : first_(std::min(kFirstKnot, 0.5 * cutoff)),
      shape_(0.5 * cutoff),
      start_(coordinate(first_)),
      step_((coordinate(cutoff) - start_) / count),
      intervals_(count) {}

double Grid::knot(int k) const {
  const double s = start_ + k * step_;
  return shape_ * s / (1 - s);
}

int Grid::interval(double r, double& place) const {
  const double steps =
      std::min(std::max((coordinate(r) - start_) / step_, 0.0), static_cast<double>(intervals_));
  const int knot = std::min(static_cast<int>(steps), intervals_ - 1);
  place = steps - knot;
  return knot;
}

void Grid::rescale(double r, Jets& jets) const {
  const double dr = 1 / per_angstrom(r), ddr = 2 * dr * dr / (r + shape_);
  for (std::size_t k = 0; k < jets.size(); ++k) {
    const Jet f = at(jets, k);
    set(jets, k, {f.v, f.d * dr, f.dd * dr * dr + f.d * ddr});
  }
}

int choose_intervals(const RadialNetwork& network, double cutoff, const std::vector<double>& pairs,
                     const std::vector<int>& candidates, double tolerance) {
  constexpr int kSamples = 64;
  constexpr double kShortest = 0.5, kPlace = 0.27;  // where the slope's error is about the largest
  for (const int candidate : candidates) {
    const Grid grid(cutoff, candidate);
    double worst = 0, largest = 0;
    for (const double pair : pairs)
      for (int n = 0; n < kSamples; ++n) {
        const int k = static_cast<int>(static_cast<long>(candidate) * n / kSamples);
        const double ends[2] = {grid.knot(k), grid.knot(k + 1)};
        if (ends[0] < kShortest) continue;
        const double r = ends[0] + kPlace * (ends[1] - ends[0]);
        double w[12], place;
        grid.interval(r, place);
        Jets jets[2] = {network.hidden(ends[0], pair), network.hidden(ends[1], pair)};
        for (int end = 0; end < 2; ++end) grid.rescale(ends[end], jets[end]);
        const Jets exact = network.hidden(r, pair);
        hermite_weights(place, grid.per_angstrom(r), w);
        for (std::size_t f = 0; f < exact.size(); ++f) {
          double slope = 0;
          for (int order = 0; order < 3; ++order)
            slope += w[6 + order] * jets[0].order(order)[f] + w[9 + order] * jets[1].order(order)[f];
          worst = std::max(worst, std::abs(slope - exact.order(1)[f]));
          largest = std::max(largest, std::abs(exact.order(1)[f]));
        }
      }
    if (worst <= tolerance * largest) return candidate;
  }
  return candidates.back();
}

/// The hidden functions are scaled by the size of their weights, so that the tolerance is that of the outputs.
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
  for (std::size_t p = 0; p < pairs.size(); ++p)
    for (int k = 0; k < kSamples; ++k) {
      const Jets jets = network.hidden(grid.knot(k), pairs[p]);
      for (int a = 0; a < hidden; ++a) samples(p * kSamples + k, a) = size[a] * jets.order(0)[a];
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

void hermite_weights(double t, double h, double* w) {
  const double t2 = t * t, t3 = t2 * t, t4 = t3 * t, t5 = t4 * t;
  w[0] = 1 - 10 * t3 + 15 * t4 - 6 * t5;
  w[1] = t - 6 * t3 + 8 * t4 - 3 * t5;
  w[2] = 0.5 * (t2 - 3 * t3 + 3 * t4 - t5);
  w[3] = 10 * t3 - 15 * t4 + 6 * t5;
  w[4] = 7 * t4 - 4 * t3 - 3 * t5;
  w[5] = 0.5 * (t3 - 2 * t4 + t5);
  w[6] = 30 * h * (2 * t3 - t2 - t4);
  w[7] = h * (1 - 18 * t2 + 32 * t3 - 15 * t4);
  w[8] = h * (t - 4.5 * t2 + 6 * t3 - 2.5 * t4);
  w[9] = 30 * h * (t2 - 2 * t3 + t4);
  w[10] = h * (28 * t3 - 12 * t2 - 15 * t4);
  w[11] = h * (1.5 * t2 - 4 * t3 + 2.5 * t4);
}

}  // namespace mace
}  // namespace nearsight
