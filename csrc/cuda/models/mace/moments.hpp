#pragma once
// Sums over edges of the first layer, and gradients of all edges.
#include "core/models/shared/harmonics.hpp"
#include "cuda/models/mace/edges.hpp"

namespace nearsight {
namespace cuda {
namespace mace {

/// Moments of few functions: M[row][lm][slot of the neighbors' species][function]; rows from 0.
template <class T>
struct MomentWork {
  Edges<T> edges;
  int rows;
  Functions<T> functions;       // their number is a multiple of 4
  const std::int32_t* slot_of;  // [species]
  int slots;
  HarmonicFactors<T> harmonics;
  PairTerms pairs;
};

/// Writes the moments, and the energies [rows] of pairs.
template <class T>
void moments(const Stream& stream, const MomentWork<T>& work, T* moments, double* pair_energies);

/// Writes gradients[places] from the adjoints of the moments, those found before, and cotangents[num_rows]
/// [columns], the first of which are of energies.
template <class T>
void moments_reverse(const Stream& stream, const MomentWork<T>& work, const T* adjoints,
                     const EdgeAdjoints<T>& before, const double* cotangents, int num_rows, int columns,
                     Vec4<T>* gradients);

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
