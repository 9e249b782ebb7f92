#include <cmath>

#include "core/models/equivariant/equivariant.hpp"

namespace nearsight {
namespace equivariant {
namespace {

constexpr double kSame = 1e-6;  // Å; images of an atom are much further apart

/// The edge of `center` that leads back along v to `neighbor` and has no pair yet, or -1.
std::int64_t opposite(std::int64_t edge, std::int64_t begin, std::int64_t end, std::int64_t neighbor,
                      Span<const std::int64_t> neighbors, Span<const double> vectors,
                      const std::vector<std::int32_t>& pairs) {
  const double* const v = vectors.data() + 3 * edge;
  for (std::int64_t e = begin; e < end; ++e) {
    if (neighbors[e] != neighbor || pairs[e] >= 0 || e == edge) continue;
    const double* const w = vectors.data() + 3 * e;
    if (std::fabs(v[0] + w[0]) + std::fabs(v[1] + w[1]) + std::fabs(v[2] + w[2]) < kSame) return e;
  }
  return -1;
}

}  // namespace

Pairing pair_edges(Span<const std::int64_t> offsets, Span<const std::int64_t> neighbors,
                   Span<const double> vectors) {
  const std::size_t atoms = offsets.size() - 1;
  std::vector<std::int32_t> pairs(neighbors.size(), -1);
  std::vector<std::int64_t> first_of_pair;
  for (std::size_t i = 0; i < atoms; ++i)
    for (std::int64_t e = offsets[i]; e < offsets[i + 1]; ++e) {
      if (pairs[e] >= 0) continue;
      const std::int64_t j = neighbors[e];
      const auto number = static_cast<std::int32_t>(first_of_pair.size());
      const std::int64_t back =
          opposite(e, offsets[j], offsets[j + 1], static_cast<std::int64_t>(i), neighbors, vectors, pairs);
      pairs[e] = number;
      if (back >= 0) pairs[back] = number;
      first_of_pair.push_back(e);
    }
  Pairing result;
  result.middles.resize(atoms);
  result.firsts.resize(first_of_pair.size());
  const auto take = [&](std::int64_t e) {
    result.order.push_back(e);
    result.pairs.push_back(pairs[e]);
  };
  for (std::size_t i = 0; i < atoms; ++i) {
    for (std::int64_t e = offsets[i]; e < offsets[i + 1]; ++e)
      if (first_of_pair[pairs[e]] == e) {
        result.firsts[pairs[e]] = static_cast<std::int64_t>(result.order.size());
        take(e);
      }
    result.middles[i] = static_cast<std::int64_t>(result.order.size());
    for (std::int64_t e = offsets[i]; e < offsets[i + 1]; ++e)
      if (first_of_pair[pairs[e]] != e) take(e);
  }
  return result;
}

}  // namespace equivariant
}  // namespace nearsight
