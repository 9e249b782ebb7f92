#pragma once
#include <array>
#include <vector>

#include "core/mesh/convolution.hpp"
#include "core/mesh/region.hpp"

namespace nearsight {

/// The bricks of the mesh that the charges of each rank reach with splines of an order; one rank has all of
/// it.
std::vector<Block> find_bricks(const std::vector<Region>& regions, const std::array<int, 3>& lengths,
                               int order);

/// From charges on a mesh of numbers T, which ranks hold in bricks, to potentials: the waves of Mesh. Bricks
/// are added up to the rows of the convolution, and filled from them afterwards.
template <class T>
class WaveSum {
 public:
  /// Throws Error (argument) for lengths that Fft does not take.
  WaveSum(const std::array<int, 3>& lengths, int order, double alpha, const Pencils& pencils, int rank);

  /// In place, e/Å, of this rank's brick, whose lines are `row` numbers apart; adds the virial of its waves.
  /// Collective. The same bits for the same ranks and number of threads.
  void apply(T* mesh, std::size_t row, const std::vector<Block>& bricks, const Box& box, ThreadPool& threads,
             Ranks& ranks, Coulomb& result);

  /// Spent in transforms so far, without exchanges, s.
  double seconds() const { return seconds_; }

 private:
  void update_influence(const Box& box, ThreadPool& threads);
  void multiply(const Box& box, std::size_t first, int count, T* real, T* imaginary, Coulomb& result) const;
  /// h1 and h2 of a column of this rank.
  std::array<int, 2> periods(std::size_t column) const;
  /// The wave of a column in row h0, rad/Å.
  Vec3 wave(const Box& box, std::size_t h0, std::size_t column) const;

  std::array<int, 3> lengths_;
  int order_;
  double alpha_;
  Pencils pencils_;
  Block columns_;  // of this rank
  Convolution<T> convolution_;
  Mover<T> mover_;
  double seconds_ = 0;
  Mat3 vectors_{};  // the cell of `influence_`
  AlignedBuffer<T> rows_, influence_;
};

extern template class WaveSum<float>;
extern template class WaveSum<double>;

}  // namespace nearsight
