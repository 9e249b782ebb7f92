#pragma once
#include <array>
#include <vector>

#include "core/mesh/convolution.hpp"
#include "core/mesh/periodic.hpp"
#include "core/mesh/spline.hpp"

namespace nearsight {

/// The reciprocal part of Ewald's sum on a mesh of numbers T: charges spread by B-splines, a convolution, and
/// potentials and fields from the same splines. Fields are the exact derivative of the mesh energy
/// ½ Σ_k G(k) B(k) |S(k)|². G(k) = 4π/V exp(-k²/4α²)/k² is Ewald's; B(k) = Ŵ²/(ΣŴ²)², of own and
/// equal-looking waves, is the factor for which the potential between charges at all places on the mesh is
/// closest to Ewald's in the mean square (Hockney and Eastwood; Ballenegger, Cerdà and Holm, J. Chem. Theory
/// Comput. 8, 936 (2012)). Unlike the interpolating factor of Essmann et al. it has no poles for odd orders,
/// and energies have no bias of first order. Waves at the mesh's limit, which have no sign, are left out.
/// Lengths may be smaller than the order.
template <class T>
class Mesh {
 public:
  /// Throws Error (argument) for lengths that Fft does not take.
  Mesh(const std::array<int, 3>& lengths, int order, double alpha);

  /// Adds the reciprocal sum, e/Å. The same bits for the same number of threads.
  void add(const Charges& charges, const Box& box, ThreadPool& threads, Coulomb& result);

 private:
  static constexpr int kSpline = 2 * kMaxOrder;  // weights and slopes of one direction

  void update_influence(const Box& box, ThreadPool& threads);
  void place(const Charges& charges, const Box& box, ThreadPool& threads);
  void spread(const Charges& charges, ThreadPool& threads);
  void convolve(const Box& box, ThreadPool& threads, Coulomb& result);
  void gather(const Box& box, ThreadPool& threads, Coulomb& result);
  /// The wave of column c in row h0, rad/Å.
  Vec3 wave(const Box& box, std::size_t h0, std::size_t column) const;

  std::array<int, 3> lengths_;
  int order_;
  double alpha_;
  std::size_t row_;  // a line with its periodic continuation
  Convolution<T> convolution_;
  Mat3 vectors_{};  // the cell of `influence_`
  AlignedBuffer<T> mesh_, influence_;
  std::vector<std::array<int, 3>> first_;     // [n] lowest mesh point that a charge reaches
  std::vector<T> splines_;                    // [n][3][weights, slopes]
  std::vector<std::size_t> starts_, sorted_;  // charges by their first plane
};

extern template class Mesh<float>;
extern template class Mesh<double>;

}  // namespace nearsight
