#pragma once
// Polynomials of message components, for kernels.cpp: channels in the lanes, several atoms of one species at
// a time share the weights.
#include "core/models/mace/kernels.hpp"
#include "core/models/shared/simd.hpp"

namespace nearsight {
namespace mace {
namespace {

constexpr int kMaxInputs = 32, kMaxOutputs = 18;  // both parities up to l = 3, and 2

/// One vector of channels of some atoms.
template <class T, int atoms>
struct ProductTile {
  simd::Vec<T> inputs[kMaxInputs][atoms], adjoints[kMaxInputs][atoms];

  void load(const ProductWork<T>& p, int atom, int channel) {
    const Components<T>& in = p.inputs;
    for (int c = 0; c < p.polynomials->num_inputs; ++c)
      for (int n = 0; n < atoms; ++n)
        inputs[c][n] = simd::load(in.data + in.offset[c] + (atom + n) * in.stride[c] + channel);
  }
};

template <class T, int atoms>
struct Row4 {
  simd::Vec<T> at[atoms];
};

template <class T, int atoms>
inline Row4<T, atoms> weight_of(const T* weights, int number) {
  Row4<T, atoms> row;
  const simd::Vec<T> w = number >= 0 ? simd::load(weights + number * kPad) : simd::broadcast<T>(T(0));
#pragma GCC unroll 4
  for (int n = 0; n < atoms; ++n) row.at[n] = w;
  return row;
}

/// w_ab + Σ_c m_c w_abc
template <class T, int atoms>
inline Row4<T, atoms> middle_value(const Polynomials& p, const T* weights, const ProductTile<T, atoms>& tile,
                                   const Node& middle) {
  Row4<T, atoms> sum = weight_of<T, atoms>(weights, middle.weight);
  for (int k = middle.first; k < middle.last; ++k) {
    const simd::Vec<T> w = simd::load(weights + p.leaves[k].weight * kPad);
    const simd::Vec<T>* const m = tile.inputs[p.leaves[k].factor];
#pragma GCC unroll 4
    for (int n = 0; n < atoms; ++n) sum.at[n] += w * m[n];
  }
  return sum;
}

template <class T, int atoms>
inline void products_block(const ProductWork<T>& work, const T* weights, int atom, int channel) {
  const Polynomials& p = *work.polynomials;
  const Components<T>& out = work.outputs;
  ProductTile<T, atoms> tile;
  tile.load(work, atom, channel);
  for (int c = 0; c < p.num_outputs; ++c) {
    Row4<T, atoms> value = weight_of<T, atoms>(weights, -1);
    for (int a = p.first_root[c]; a < p.first_root[c + 1]; ++a) {
      const Node& root = p.roots[a];
      Row4<T, atoms> sum = weight_of<T, atoms>(weights, root.weight);
      for (int b = root.first; b < root.last; ++b) {
        const Row4<T, atoms> inner = middle_value(p, weights, tile, p.middles[b]);
        const simd::Vec<T>* const m = tile.inputs[p.middles[b].factor];
#pragma GCC unroll 4
        for (int n = 0; n < atoms; ++n) sum.at[n] += inner.at[n] * m[n];
      }
      const simd::Vec<T>* const m = tile.inputs[root.factor];
#pragma GCC unroll 4
      for (int n = 0; n < atoms; ++n) value.at[n] += sum.at[n] * m[n];
    }
#pragma GCC unroll 4
    for (int n = 0; n < atoms; ++n)
      simd::store<T>(out.data + out.offset[c] + (atom + n) * out.stride[c] + channel, value.at[n]);
  }
}

/// Adds what a root's tree gives to the adjoints, for the output's adjoint g.
template <class T, int atoms>
inline void root_reverse(const Polynomials& p, const T* weights, ProductTile<T, atoms>& tile,
                         const Node& root, const Row4<T, atoms>& g) {
  Row4<T, atoms> sum = weight_of<T, atoms>(weights, root.weight), of_root;
#pragma GCC unroll 4
  for (int n = 0; n < atoms; ++n) of_root.at[n] = g.at[n] * tile.inputs[root.factor][n];
  for (int b = root.first; b < root.last; ++b) {
    const Node& middle = p.middles[b];
    const Row4<T, atoms> inner = middle_value(p, weights, tile, middle);
    Row4<T, atoms> of_middle;
#pragma GCC unroll 4
    for (int n = 0; n < atoms; ++n) {
      const simd::Vec<T> m = tile.inputs[middle.factor][n];
      sum.at[n] += inner.at[n] * m;
      tile.adjoints[middle.factor][n] += of_root.at[n] * inner.at[n];
      of_middle.at[n] = of_root.at[n] * m;
    }
    for (int k = middle.first; k < middle.last; ++k) {
      const simd::Vec<T> w = simd::load(weights + p.leaves[k].weight * kPad);
      simd::Vec<T>* const target = tile.adjoints[p.leaves[k].factor];
#pragma GCC unroll 4
      for (int n = 0; n < atoms; ++n) target[n] += of_middle.at[n] * w;
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < atoms; ++n) tile.adjoints[root.factor][n] += g.at[n] * sum.at[n];
}

template <class T, int atoms>
inline void products_reverse_block(const ProductWork<T>& work, const T* weights, int atom, int channel) {
  const Polynomials& p = *work.polynomials;
  const Components<T>&out = work.outputs, &back = work.input_adjoints;
  ProductTile<T, atoms> tile;
  tile.load(work, atom, channel);
  for (int c = 0; c < p.num_inputs; ++c)
    for (int n = 0; n < atoms; ++n) tile.adjoints[c][n] = simd::broadcast<T>(T(0));
  for (int c = 0; c < p.num_outputs; ++c) {
    Row4<T, atoms> g;
    for (int n = 0; n < atoms; ++n)
      g.at[n] = simd::load(out.data + out.offset[c] + (atom + n) * out.stride[c] + channel);
    for (int a = p.first_root[c]; a < p.first_root[c + 1]; ++a) root_reverse(p, weights, tile, p.roots[a], g);
  }
  for (int c = 0; c < p.num_inputs; ++c)
    for (int n = 0; n < atoms; ++n)
      simd::store<T>(back.data + back.offset[c] + (atom + n) * back.stride[c] + channel, tile.adjoints[c][n]);
}

/// Calls Block<atoms> for all atoms, four at a time while there are four.
template <class T, bool reverse>
void all_products(const ProductWork<T>& work) {
  for (int channel = 0; channel < work.channels; channel += simd::width<T>) {
    const T* const weights = work.weights + channel / kPad * work.num_weights * kPad + channel % kPad;
    int atom = work.first_atom;
    for (; atom + 4 <= work.last_atom; atom += 4)
      reverse ? products_reverse_block<T, 4>(work, weights, atom, channel)
              : products_block<T, 4>(work, weights, atom, channel);
    for (; atom < work.last_atom; ++atom)
      reverse ? products_reverse_block<T, 1>(work, weights, atom, channel)
              : products_block<T, 1>(work, weights, atom, channel);
  }
}

}  // namespace
}  // namespace mace
}  // namespace nearsight
