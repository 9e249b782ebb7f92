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
  /// Queues what check() looks at.
  void fetch(const Stream& stream);
  /// After fetch() and Stream::synchronize(). Throws Error (numeric) if atoms were on top of each other in a
  /// find() since clear().
  void check() const;

 private:
  Buffer<std::int32_t> counts_, neighbors_;
  Buffer<Vec4<T>> vectors_, gradients_;
  Buffer<unsigned long long> closest_;  // shortest forbidden distance and an atom of it
  Pinned<unsigned long long> found_;    // the same on the host
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

  /// Adds to the device's array of forces, and queues what add_to() needs, for the same `sums`.
  void fetch(const Stream& stream, const AtomOrder& order, const EdgeSums& sums);
  /// Adds to the host's arrays; after fetch() and Stream::synchronize(). Throws Error (numeric) for an edge
  /// of more than 1.3e5 eV/Å, or of no number.
  void add_to(const EdgeSums& sums) const;

 private:
  /// `width` numbers for each atom.
  struct Array {
    explicit Array(int width) : width(width) {}
    const int width;
    Buffer<unsigned long long> sums;
    Buffer<double> unpacked;  // of the host's atoms
    Pinned<double> staging;   // the same on the host
    void clear(const Stream& stream, std::size_t num_atoms) { sums.clear(stream, width * num_atoms); }
    void unpack(const Stream& stream, const AtomOrder& order, double* to) const;
    void fetch(const Stream& stream, const AtomOrder& order, std::size_t size);
    void add_to(Span<double> to) const;
  };

  Wanted wanted_{};
  Array forces_{3}, virials_{6}, centroid_virials_{9};
  Buffer<double> parts_, virial_;  // of blocks; their sum
  Buffer<int> overflow_;
  Pinned<double> host_virial_;
  Pinned<int> host_overflow_;
};

}  // namespace cuda
}  // namespace nearsight
