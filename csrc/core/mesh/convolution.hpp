#pragma once
#include <array>
#include <functional>
#include <memory>

#include "core/engine/threads.hpp"
#include "core/mesh/fft.hpp"
#include "core/mesh/pencils.hpp"
#include "core/models/shared/aligned.hpp"

namespace nearsight {

/// The Fourier transform of a real periodic mesh [n0][n1][n2], of which each rank has a block of rows, and
/// back, by columns of which it has a block.
template <class T>
class Convolution {
 public:
  static constexpr int kLanes = Fft<T>::kLanes;

  /// Multiplies S(k) of the columns [first, first + count) by something real and even: element h0 of column
  /// first + l is at [h0 * kLanes + l], up to kLanes 0. Columns of the rank's block are numbered with h2
  /// running fastest.
  using Visitor = std::function<void(int thread, std::size_t first, int count, T* real, T* imaginary)>;

  Convolution(const std::array<int, 3>& lengths, const Pencils& pencils, int rank);

  /// Of this rank.
  std::size_t num_columns() const { return columns_.volume() / lengths_[0]; }

  /// In place: mesh[m] = Σ_k S(k) exp(2πi k·m / n) of what visit makes of S(k) = Σ_m mesh[m] exp(-2πi k·m /
  /// n); not divided by the number of points. Lines of the last direction are `row` numbers apart.
  /// Collective. The same bits for any number of threads.
  void apply(T* mesh, std::size_t row, ThreadPool& threads, const Visitor& visit, Ranks& ranks);

 private:
  struct Buffer {
    AlignedBuffer<T> real, imaginary, work;
  };

  void rows_forward(const T* mesh, std::size_t row, ThreadPool& threads);
  void rows_backward(T* mesh, std::size_t row, ThreadPool& threads);
  void planes(bool forward, ThreadPool& threads);
  void columns(ThreadPool& threads, const Visitor& visit);
  /// From one way of holding waves to the next, if so many ranks are concerned.
  void turn(const std::vector<Block>& from, const std::vector<Block>& to, int concerned, Ranks& ranks);
  void load(std::size_t from, std::size_t stride, int length, int count, Buffer& buffer) const;
  void store(std::size_t to, std::size_t stride, int length, int count, Buffer& buffer);

  std::array<int, 3> lengths_;
  std::size_t half_;  // n2 / 2 + 1
  Pencils pencils_;
  Block rows_, planes_, columns_;  // of this rank
  std::array<Fft<T>, 3> ffts_;
  AlignedBuffer<T> real_, imaginary_;  // rows, planes or columns of waves
  Mover<T> mover_;
  std::vector<std::unique_ptr<Buffer>> buffers_;  // of threads
};

extern template class Convolution<float>;
extern template class Convolution<double>;

}  // namespace nearsight
