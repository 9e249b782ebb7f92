#pragma once
#include "core/engine/device.hpp"
#include "cuda/engine/graph.hpp"
#include "cuda/neighbors/neighbor_list.hpp"

namespace nearsight {
namespace cuda {

/// Edges within the cutoff, and what is summed over them.
template <class T>
class EdgeSet {
 public:
  /// Those of rows first ... last - 1 of the list, in the positions of its last update.
  Edges<T> find(const Stream& stream, const NeighborList& list, int first, int last);
  /// Room for dE/dr_ij of the last find().
  Vec4<T>* gradients() { return gradients_.resize(vectors_.size()); }

  /// Forgets what check() would find.
  void clear(const Stream& stream);
  /// Waits for the device. Throws Error (numeric) if atoms were on top of each other in a find() since
  /// clear().
  void check(const Stream& stream) const;

 private:
  Buffer<std::int32_t> counts_, neighbors_;
  Buffer<Vec4<T>> vectors_, gradients_;
  Buffer<unsigned long long> closest_;  // shortest forbidden distance and an atom of it
};

/// Sums of dE/dr_ij over edges, those of atoms in units of 2^-42 eV or eV/Å: integers add up to the same
/// number in any order.
class FixedSums {
 public:
  struct Wanted {
    bool virials, centroid_virials;
  };
  /// Sets everything to zero.
  void clear(const Stream& stream, int num_atoms, const Wanted& wanted);

  template <class T>
  void add(const Stream& stream, const Edges<T>& edges, const Vec4<T>* gradients);

  /// Adds to the arrays of the host's atoms. Waits for the device. Throws Error (numeric) for an edge of more
  /// than 1.3e5 eV/Å, or of no number.
  void add_to(const Stream& stream, const AtomOrder& order, const EdgeSums& sums);

 private:
  void add_array(const Stream& stream, const AtomOrder& order, const Buffer<unsigned long long>& from,
                 int width, Span<double> to);

  int num_atoms_ = 0;
  Wanted wanted_{};
  Buffer<unsigned long long> forces_, virials_, centroid_virials_;
  Buffer<double> parts_, virial_;  // of blocks; their sum
  Buffer<int> overflow_;
  Buffer<double> unpacked_;
  Pinned<double> staging_;
};

}  // namespace cuda
}  // namespace nearsight
