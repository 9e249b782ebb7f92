#pragma once
#include <array>
#include <vector>

#include "core/mesh/mesh_kernels.hpp"
#include "core/mesh/wave_sum.hpp"

namespace nearsight {

/// The reciprocal part of Ewald's sum on a mesh of numbers T: charges spread by B-splines, a convolution, and
/// potentials and fields from the same splines. A rank has the brick of the mesh that its charges reach.
/// Fields are the exact derivative of the mesh energy ½ Σ_k G(k) B(k) |S(k)|². G(k) = 4π/V exp(-k²/4α²)/k² is
/// Ewald's; B(k) = Ŵ²/(ΣŴ²)², of own and equal-looking waves, is the factor for which the potential between
/// charges at all places on the mesh is closest to Ewald's in the mean square (Hockney and Eastwood;
/// Ballenegger, Cerdà and Holm, J. Chem. Theory Comput. 8, 936 (2012)). Unlike the interpolating factor of
/// Essmann et al. it has no poles for odd orders, and energies have no bias of first order. Waves at the
/// mesh's limit, which have no sign, are left out. Lengths may be smaller than the order.
template <class T>
class Mesh {
 public:
  /// Throws Error (argument) for lengths that Fft does not take.
  Mesh(const std::array<int, 3>& lengths, int order, double alpha, const Pencils& pencils, int rank);

  /// Adds the reciprocal sum, e/Å: potentials and fields of this rank's charges, the virial of its waves;
  /// without `fields` potentials alone.
  /// Collective. The same bits for the same ranks and number of threads.
  void add(const Charges& charges, const Box& box, const std::vector<Region>& regions, bool fields,
           ThreadPool& threads, Ranks& ranks, Coulomb& result);

  /// Spent in transforms so far, without exchanges, s.
  double seconds() const { return waves_.seconds(); }

 private:
  void place(const Charges& charges, const Box& box, ThreadPool& threads);
  mesh::Placed<T> placed() const;
  void spread(ThreadPool& threads);
  void continue_lines();
  void gather(const Box& box, bool fields, ThreadPool& threads, Coulomb& result);

  std::array<int, 3> lengths_;
  int order_;
  WaveSum<T> waves_;
  Block brick_;          // of this rank
  std::size_t row_ = 0;  // a line of the brick with its periodic continuation
  AlignedBuffer<T> mesh_;
  std::vector<std::size_t> starts_, sorted_;  // charges by the first plane of the brick that they reach
  // In that order, with room behind: points that they reach first, places beyond them.
  std::vector<int> first_[3];
  std::vector<double> place_[3];
  std::vector<T> charges_;
};

extern template class Mesh<float>;
extern template class Mesh<double>;

}  // namespace nearsight
