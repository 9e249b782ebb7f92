#pragma once
// Sums over edges of the later layers: A[path, m3] = Σ_j R(r_ij) Σ Φ[m3, m1] u_j[m1], all channels.
#include <cstdint>

#include "cuda/engine/graph.hpp"
#include "cuda/models/mace/geometry.hpp"

namespace nearsight {
namespace cuda {
namespace mace {

/// One path of a layer; places are counted in rows of channels.
struct PathTable {
  int l1, l3;
  int feature;          // first component among those of the sources
  int sums, sums_step;  // where A of the first m3 is in a row of A, and from one m3 to the next
  int phi;              // first of its Φ[m3][m1], a multiple of 4
};

/// One term of a coupling: number of the harmonic, or of Φ.
template <class T>
struct CouplingTerm {
  int from;
  T coefficient;
};

/// Sums of terms: number k has those from first[k] to first[k + 1].
template <class T>
struct Couplings {
  const std::int32_t* first;
  const CouplingTerm<T>* terms;
};

template <class T>
struct PathWork {
  Edges<T> edges;
  int rows;              // of the edges, from the first one on
  EdgeArrays<T> arrays;  // of these edges
  int num_harmonics, num_functions;
  const PathTable* paths;
  int num_paths, num_phi;        // num_phi: with padding, a multiple of 4
  Couplings<T> phi;              // Φ from harmonics
  Couplings<T> phi_behind;       // the same of -r
  Couplings<T> harmonics;        // adjoints of harmonics from those of Φ
  const T* weights;              // [functions][paths][channels]
  int channels;                  // a multiple of 32
  const T* sources;              // u [atoms][source_width]
  int source_width, sums_width;  // numbers of a row
};

/// Writes A [rows][sums_width].
template <class T>
void path_sums(const Stream& stream, const PathWork<T>& work, T* sums);

/// Adds to the adjoints of harmonics and to the slopes of the edges, from the adjoints of A.
template <class T>
void path_edges_reverse(const Stream& stream, const PathWork<T>& work, const T* of_sums,
                        const EdgeAdjoints<T>& found);

/// Writes the adjoints [atoms][source_width] of u, of the rows that the edges have: each atom gathers from
/// those that have it for a neighbor, receivers 0 ... num_receivers - 1.
template <class T>
void path_sources_reverse(const Stream& stream, const PathWork<T>& work, const T* of_sums, int num_receivers,
                          T* of_sources);

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
