#pragma once
// The hot loops of D3, compiled once per instruction set (see core/models/shared/isa.hpp).
#include "core/mesh/kernels.hpp"

namespace nearsight {
namespace d3 {

using pairs::kBlock;

constexpr double kSteepness = 16.0;                    // k1 of D3
constexpr double kExpSteepness = 8886110.52050787264;  // exp(16)

/// 1 up to √start2, 0 from √cutoff2 on, in between a polynomial of r² with two continuous derivatives. A
/// scale of kStep makes it a step.
template <class T>
struct Window {
  T cutoff2, start2, scale;  // scale = 1 / (cutoff2 - start2)
};
constexpr double kStep = 1e30;

/// Atoms in the lanes of a block; [kBlock] each, aligned to 64 bytes.
template <class T>
struct Lanes {
  const T *x, *y, *z;
  const T* radii;   // Å
  const T* slopes;  // dE/dCN, eV
  /// [species of the other][3 + 2 references]: f⁶, f⁸, s8 C8/C6, then coefficients that the other's weights
  /// are multiplied by to give C6, and its derivative by the coordination number of the lane's atom.
  const T* tables;
};

/// Images that a block meets.
template <class T>
struct Others {
  const T *x, *y, *z;
  const int* atoms;
};

/// All atoms that an image may be of.
template <class T>
struct Atoms {
  const int* species;
  const T* radii;    // [species] Å
  const T* weights;  // [atoms][references]
  const T* slopes;   // [atoms] dE/dCN, eV
  int references;
};

/// What the atoms of a block sum up, [kBlock] each. With g = dE/d(r²) of a pair and the vector r to the
/// other: 2 g r is a force, -g r ⊗ r half of a virial.
enum Sum { value, slope, force_x, force_y, force_z, xx, yy, zz, xy, xz, yz, kNumSums };

template <class T>
struct Kernels {
  /// Sums over `count` others. value: the counting function 1 / (1 + exp(-16 (R/r - 1))).
  void (*count)(const Window<T>&, const Lanes<T>&, int count, const Others<T>&, const Atoms<T>&,
                T (*sums)[kBlock<T>]);
  /// g r and g r ⊗ r of the same, times dE/dCN of both atoms.
  void (*move)(const Window<T>&, const Lanes<T>&, int count, const Others<T>&, const Atoms<T>&,
               T (*sums)[kBlock<T>]);
  /// value: the energy of pairs; slope: its derivative by the coordination number; g r and g r ⊗ r.
  void (*attract)(const Window<T>&, T s6, const Lanes<T>&, int count, const Others<T>&, const Atoms<T>&,
                  T (*sums)[kBlock<T>]);
};
template <class T>
const Kernels<T>& kernels();
template <>
const Kernels<float>& kernels<float>();
template <>
const Kernels<double>& kernels<double>();

}  // namespace d3
}  // namespace nearsight
