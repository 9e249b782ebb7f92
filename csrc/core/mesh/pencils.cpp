#include "core/mesh/pencils.hpp"

#include <algorithm>
#include <limits>
#include <string>

#include "core/engine/error.hpp"

namespace nearsight {
namespace {

// Rough times, there and back, s: the first as measured on one core, the others of common networks.
constexpr double kTransform = 40e-9;  // of a wave along one direction
constexpr double kTransfer = 20e-9;   // of a wave: packed, sent, and unpacked
constexpr double kMessage = 4e-6;

int share(int n, int parts) {
  return (n + parts - 1) / parts;
}

double seconds(const std::array<int, 3>& lengths, int ranks, int a, int b) {
  const int half = lengths[2] / 2 + 1;
  const double rows = double(share(lengths[0], a)) * share(lengths[1], b) * half;
  const double planes = double(share(lengths[0], a)) * lengths[1] * share(half, b);
  const double columns = double(lengths[0]) * share(lengths[1], a) * share(half, b);
  double moved = rows, messages = double(ranks) / (a * b);  // to and from the bricks of charges
  if (b > 1) moved += rows + planes, messages += 2 * b;
  if (a > 1) moved += planes + columns, messages += 2 * a;
  return kTransform * (rows + planes + columns) + kTransfer * moved + kMessage * messages;
}

std::array<int, 2> fastest(const std::array<int, 3>& lengths, int ranks) {
  std::array<int, 2> best{1, 1};
  double least = std::numeric_limits<double>::infinity();
  for (int a = 1; a <= ranks; ++a)
    for (int b = 1; a * b <= ranks; ++b) {
      const double found = seconds(lengths, ranks, a, b);
      if (found >= least) continue;
      least = found;
      best = {a, b};
    }
  return best;
}

/// The k-th of `parts` parts of n points.
void divide(int n, int k, int parts, int d, Block& block) {
  const auto edge = [&](int part) { return static_cast<int>(static_cast<long long>(n) * part / parts); };
  block.first[d] = edge(k);
  block.size[d] = edge(k + 1) - edge(k);
}

/// Points that two blocks share along one direction: where they begin in either.
struct Overlap {
  int in_a, in_b, size;
};

/// One after another: a block may meet the other at both of its ends.
std::vector<Overlap> overlaps(int n, const Block& a, const Block& b, int d) {
  std::vector<Overlap> found;
  for (int shift = -n; shift <= n; shift += n) {
    const int first = std::max(a.first[d], b.first[d] + shift);
    const int last = std::min(a.first[d] + a.size[d], b.first[d] + shift + b.size[d]);
    if (first < last) found.push_back({first - a.first[d], first - b.first[d] - shift, last - first});
  }
  return found;
}

/// visit(offset in a, offset in b, count) for each line of points that two blocks share.
template <class Visit>
void for_lines(const std::array<int, 3>& lengths, const Block& a, std::size_t row_a, const Block& b,
               std::size_t row_b, const Visit& visit) {
  const auto offset = [](const Block& block, std::size_t row, int x, int y, int z) {
    return (static_cast<std::size_t>(x) * block.size[1] + y) * row + z;
  };
  std::vector<Overlap> along[3];
  for (int d = 0; d < 3; ++d) along[d] = overlaps(lengths[d], a, b, d);
  for (const Overlap& x : along[0])
    for (int i = 0; i < x.size; ++i)
      for (const Overlap& y : along[1])
        for (int j = 0; j < y.size; ++j)
          for (const Overlap& z : along[2])
            visit(offset(a, row_a, x.in_a + i, y.in_a + j, z.in_a),
                  offset(b, row_b, x.in_b + i, y.in_b + j, z.in_b), z.size);
}

std::size_t num_shared(const std::array<int, 3>& lengths, const Block& a, const Block& b) {
  std::size_t product = 1;
  for (int d = 0; d < 3; ++d) {
    std::size_t sum = 0;
    for (const Overlap& part : overlaps(lengths[d], a, b, d)) sum += part.size;
    product *= sum;
  }
  return product;
}

std::size_t total(const std::vector<std::size_t>& counts) {
  std::size_t sum = 0;
  for (const std::size_t count : counts) sum += count;
  return sum;
}

}  // namespace

Pencils::Pencils(const std::array<int, 3>& lengths, int ranks, std::array<int, 2> wish)
    : grid(wish == std::array<int, 2>{0, 0} ? fastest(lengths, ranks) : wish) {
  if (grid[0] < 1 || grid[1] < 1 || static_cast<long long>(grid[0]) * grid[1] > ranks)
    throw Error(ErrorKind::argument, "the transforms are to be done by a grid of " + std::to_string(grid[0]) +
                                         " x " + std::to_string(grid[1]) + " ranks, but there are " +
                                         std::to_string(ranks) +
                                         ": give a smaller grid, or 0 x 0 for the automatic one");
  points.resize(ranks);
  rows.resize(ranks);
  planes.resize(ranks);
  columns.resize(ranks);
  const int used = grid[0] * grid[1], half = lengths[2] / 2 + 1;
  for (int k = 0; k < used; ++k) {
    // Spread over the ranks, which stand node by node.
    const std::size_t rank = static_cast<std::size_t>(k) * ranks / used;
    const int a = k / grid[1], b = k % grid[1];
    divide(lengths[0], a, grid[0], 0, rows[rank]);
    divide(lengths[1], b, grid[1], 1, rows[rank]);
    rows[rank].size[2] = half;
    points[rank] = rows[rank];
    points[rank].size[2] = lengths[2];
    divide(lengths[0], a, grid[0], 0, planes[rank]);
    planes[rank].size[1] = lengths[1];
    divide(half, b, grid[1], 2, planes[rank]);
    columns[rank].size[0] = lengths[0];
    divide(lengths[1], a, grid[0], 1, columns[rank]);
    divide(half, b, grid[1], 2, columns[rank]);
  }
}

template <class T>
void Mover<T>::move(const std::vector<Block>& from, const Part& source, const std::vector<Block>& to,
                    const Part& target, bool add, Ranks& ranks) {
  const int own = ranks.rank(), size = ranks.size();
  std::vector<std::size_t> sent(size), received(size);
  for (int r = 0; r < size; ++r) {
    sent[r] = source.components.size() * num_shared(lengths_, from[own], to[r]);
    received[r] = target.components.size() * num_shared(lengths_, from[r], to[own]);
  }
  sent_.resize(total(sent));
  received_.resize(total(received));
  T* next = sent_.data();
  for (int r = 0; r < size; ++r)
    for (const T* component : source.components)
      for_lines(lengths_, from[own], source.row, to[r], 0, [&](std::size_t place, std::size_t, int count) {
        next = std::copy_n(component + place, count, next);
      });
  ranks.exchange(sent_.data(), sent, received_.data(), received);
  const T* found = received_.data();
  for (int r = 0; r < size; ++r)
    for (T* component : target.components)
      for_lines(lengths_, from[r], 0, to[own], target.row, [&](std::size_t, std::size_t place, int count) {
        for (int k = 0; k < count; ++k) component[place + k] = (add ? component[place + k] : T(0)) + found[k];
        found += count;
      });
}

template class Mover<float>;
template class Mover<double>;

}  // namespace nearsight
