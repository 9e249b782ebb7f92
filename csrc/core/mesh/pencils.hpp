#pragma once
// Who holds which part of a mesh, and how parts move between ranks.
#include <array>
#include <cstddef>
#include <vector>

#include "core/engine/ranks.hpp"

namespace nearsight {

/// Points [first, first + size) along each direction; of a periodic mesh they may go on beyond its end, where
/// it begins again.
struct Block {
  std::array<int, 3> first{}, size{};

  std::size_t volume() const { return static_cast<std::size_t>(size[0]) * size[1] * size[2]; }
};

/// The lines that each rank transforms. Some ranks form a grid: with place (a, b) a rank has the a-th part of
/// the first and the b-th part of the second direction for transforms along the third (rows), then the b-th
/// part of the third instead of the second (planes), then the a-th part of the second instead of the first
/// (columns). Ranks outside of the grid have empty blocks. One rank has everything at each step.
struct Pencils {
  std::array<int, 2> grid{1, 1};
  std::vector<Block> points;                 // [ranks] rows of the mesh [n0][n1][n2]
  std::vector<Block> rows, planes, columns;  // [ranks] of waves [n0][n1][n2 / 2 + 1]

  /// grid {0, 0}: the fastest by estimate, of any number of ranks. Throws Error (argument) for a grid with
  /// more ranks than there are.
  Pencils(const std::array<int, 3>& lengths, int ranks, std::array<int, 2> grid = {0, 0});
};

/// Moves numbers of type T between two ways in which ranks hold a mesh.
template <class T>
class Mover {
 public:
  /// Of this rank's block: `components` arrays, with lines along the last direction `row` numbers apart.
  struct Part {
    std::vector<T*> components;
    std::size_t row;
  };

  explicit Mover(const std::array<int, 3>& lengths) : lengths_(lengths) {}

  /// Takes what is at `source`, a part of blocks `from`, to where blocks `to` hold it, once or several times.
  /// `target` may be the same memory. Adds, in the order of ranks, or overwrites. Collective.
  void move(const std::vector<Block>& from, const Part& source, const std::vector<Block>& to,
            const Part& target, bool add, Ranks& ranks);

 private:
  std::array<int, 3> lengths_;
  std::vector<T> sent_, received_;
};

extern template class Mover<float>;
extern template class Mover<double>;

}  // namespace nearsight
