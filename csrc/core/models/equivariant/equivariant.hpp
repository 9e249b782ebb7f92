#pragma once
// Training of equivariant message passing: sums over edges and polynomials of messages with their first and
// second derivatives, in threads. Results do not depend on the number of threads.
#include <vector>

#include "core/engine/span.hpp"
#include "core/engine/threads.hpp"
#include "core/models/equivariant/kernels.hpp"

namespace nearsight {
namespace equivariant {

/// An order of the edges in which each center has those first that are the first of their pair. Both edges
/// between two atoms, with opposite vectors, are a pair; an edge whose opposite is missing is one alone.
struct Pairing {
  std::vector<std::int64_t> order;    // [edges] old numbers
  std::vector<std::int64_t> middles;  // [atoms] first edge of each center that is the second of its pair
  std::vector<std::int32_t> pairs;    // [edges] in the new order
  std::vector<std::int64_t> firsts;   // [pairs] first edge of each, in the new order
};

/// Pairs the edges of all centers; `vectors` [3 * edges] in Å, edges sorted by center.
Pairing pair_edges(Span<const std::int64_t> offsets, Span<const std::int64_t> neighbors,
                   Span<const double> vectors);

/// The paths of a convolution on contiguous tensors.
struct Paths {
  std::vector<Path> list;
  int components, num_phi;  // of the sources, of Φ

  /// `paths` has rows of four: first component and size of irrep 1, size and number of irrep 3, which does
  /// not fall.
  Paths(Span<const std::int64_t> paths, std::int64_t num_atoms, int channels);
};

/// A convolution on contiguous tensors. Components of an irrep stand together: features of irreps one after
/// another, each [atoms][component][channels]; sums of message irreps, each [atoms][m3][path][channels].
template <class T>
class EdgeSums {
 public:
  /// `paths` as for `Paths`; `dense` couplings [harmonics][Φ].
  EdgeSums(const Neighborhoods& graph, int channels, int num_harmonics, Span<const std::int64_t> paths,
           Span<const T> dense);

  Convolution<T> arguments;  // for the caller to fill in: tensors

  void convolve(ThreadPool& threads);
  /// Adjoints of sources only where `source_adjoints` is not null; it is overwritten.
  void by_geometry(T* source_adjoints, double* distance_adjoints, ThreadPool& threads);
  void by_parameters(T* source_adjoints, ThreadPool& threads);
  void of_tangent(T* source_adjoints, ThreadPool& threads);

 private:
  struct Chunk {
    std::int64_t first, last, first_source, last_source;
    std::vector<T> source_adjoints;
  };
  void make_chunks();
  template <class Body>
  void for_chunks(ThreadPool& threads, bool with_sources, const Body& body);
  void add_sources(T* source_adjoints, ThreadPool& threads);

  Paths paths_;
  std::vector<Coupling> couplings_;
  std::vector<T> dense_;
  std::vector<Chunk> chunks_;
  std::int64_t most_edges_ = 0;
};

/// Features of irreps in the layout of `EdgeSums`: where each component begins, and from atom to atom.
struct Layout {
  std::vector<std::int64_t> places, strides;
  Layout(Span<const std::int64_t> sizes, std::int64_t atoms, int channels);
};

enum class Contracted { value, reverse, tangent };

/// Calls the kernel for all species, whose atoms stand together, in threads over channels; weights are
/// [species][terms][channels].
template <class T>
void contract(Contraction<T> arguments, Contracted what, Span<const std::int64_t> counts,
              ThreadPool& threads);

}  // namespace equivariant
}  // namespace nearsight
