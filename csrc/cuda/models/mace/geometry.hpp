#pragma once
// What the later layers need of the edges, once for all channels; densities of neighbors.
#include "core/models/shared/harmonics.hpp"
#include "cuda/models/mace/edges.hpp"

namespace nearsight {
namespace cuda {
namespace mace {

/// Harmonics and few functions of each edge.
template <class T>
struct EdgeArrays {
  T* harmonics;           // [places][number of harmonics]
  T *functions, *slopes;  // [places][functions]; slopes per Å, null where they are not wanted
};

/// For the edges of rows edges.first_row ...
template <class T>
void edge_arrays(const Stream& stream, const Edges<T>& edges, const HarmonicFactors<T>& harmonics,
                 const Functions<T>& functions, const EdgeArrays<T>& arrays);

/// Writes inverse[rows] = 1 / (1 + ρ), where the density ρ is the sum of one function of the edges.
template <class T>
void densities(const Stream& stream, const Edges<T>& edges, int rows, const Functions<T>& function,
               T* inverse);

/// Adds what the density gives to the slopes [places] of the edges: from the messages as they enter the
/// polynomials and their adjoints, [rows][width].
template <class T>
void densities_reverse(const Stream& stream, const Edges<T>& edges, int rows, const Functions<T>& function,
                       const T* inverse, const T* messages, const T* adjoints, int width, T* slopes);

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
