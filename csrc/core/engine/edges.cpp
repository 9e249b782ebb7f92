#include "core/engine/edges.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/engine/error.hpp"

namespace nearsight {
namespace {

constexpr int kNoNumber = -1;  // in messages

}  // namespace

void EdgeBuffer::clear() {
  centers_.clear();
  offsets_.assign(1, 0);
  num_edges_ = num_rows_ = 0;
}

void EdgeBuffer::reserve(std::size_t more) {
  if (neighbors_.size() >= num_edges_ + more) return;
  const std::size_t size = std::max(2 * neighbors_.size(), num_edges_ + more);
  neighbors_.resize(size);
  vectors_.resize(3 * size);
}

void EdgeBuffer::append(const Domain& domain, double cutoff, int center, const HostList& list) {
  const int count = list.num_neighbors[center];
  const int* const others = list.neighbors[center];
  reserve(count);
  const double* const x = domain.positions.data();
  const int* const species = domain.species.data();
  const double xi = x[3 * center], yi = x[3 * center + 1], zi = x[3 * center + 2], rc2 = cutoff * cutoff;
  int* const neighbors = neighbors_.data();
  double* const vectors = vectors_.data();
  std::size_t n = num_edges_;
  double min_r2 = std::numeric_limits<double>::max();
  for (int k = 0; k < count; ++k) {
    const int j = others[k] & list.mask;
    const double dx = x[3 * j] - xi, dy = x[3 * j + 1] - yi, dz = x[3 * j + 2] - zi;
    const double r2 = dx * dx + dy * dy + dz * dz;
    // Written first, kept by advancing n: no branch that cannot be predicted.
    neighbors[n] = j;
    vectors[3 * n] = dx, vectors[3 * n + 1] = dy, vectors[3 * n + 2] = dz;
    const bool keep = (r2 < rc2) & (species[j] >= 0);
    min_r2 = keep && r2 < min_r2 ? r2 : min_r2;
    n += keep;
  }
  num_edges_ = n;
  finish(domain, center, min_r2, kNoNumber);  // those of a rank mean nothing to the user
}

void EdgeBuffer::append(const Domain& domain, double cutoff, int center, const NeighborList& list,
                        const Cell& cell, int first) {
  const auto begin = list.offsets[center - first], end = list.offsets[center - first + 1];
  reserve(end - begin);
  const double* const x = domain.positions.data();
  const double* const h = cell.vectors.data();
  const double rc2 = cutoff * cutoff;
  std::size_t n = num_edges_;
  double min_r2 = std::numeric_limits<double>::max();
  for (auto k = begin; k < end; ++k) {
    const int j = first + list.neighbors[k];
    const auto& s = list.shifts[k];
    double d[3], r2 = 0.0;
    for (int a = 0; a < 3; ++a) {
      d[a] = x[3 * j + a] - x[3 * center + a] + (s[0] * h[a] + s[1] * h[3 + a] + s[2] * h[6 + a]);
      r2 += d[a] * d[a];
      vectors_[3 * n + a] = d[a];
    }
    neighbors_[n] = j;
    const bool keep = (r2 < rc2) & (domain.species[j] >= 0);
    min_r2 = keep && r2 < min_r2 ? r2 : min_r2;
    n += keep;
  }
  num_edges_ = n;
  finish(domain, center, min_r2, center - first);
}

void throw_too_close(double distance, const std::string& name) {
  throw Error(ErrorKind::numeric,
              "an atom lies " + std::to_string(distance) + " Å from " + name +
                  ": atoms must not be on top of each other; check the geometry, the cell and the time step");
}

void EdgeBuffer::finish(const Domain& domain, int center, double min_squared_distance, int number) {
  if (min_squared_distance < kMinDistance * kMinDistance)
    throw_too_close(std::sqrt(min_squared_distance),
                    number == kNoNumber ? "another" : "atom " + std::to_string(number) + " (counted from 0)");
  centers_.push_back(center);
  offsets_.push_back(static_cast<std::int64_t>(num_edges_));
  if (static_cast<std::size_t>(center) < domain.num_owned) ++num_rows_;
}

Graph EdgeBuffer::graph(const Domain& domain) const {
  Graph g;
  g.species = domain.species;
  g.centers = centers_;
  g.num_rows = num_rows_;
  g.offsets = offsets_;
  g.neighbors = Span<const int>(neighbors_.data(), num_edges_);
  g.vectors = Span<const double>(vectors_.data(), 3 * num_edges_);
  return g;
}

}  // namespace nearsight
