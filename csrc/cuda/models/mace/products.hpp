#pragma once
// Polynomials of message components (trees, see core/models/mace/kernels.hpp).
#include "core/models/mace/kernels.hpp"
#include "cuda/models/mace/linear.hpp"

namespace nearsight {
namespace cuda {
namespace mace {

template <class T>
struct ProductWork {
  nearsight::mace::Polynomials polynomials;  // of device memory
  const T* weights;                          // [species][num_weights][channels]
  int num_weights, channels;                 // channels: a multiple of 32
  const RowTile* tiles;
  int num_tiles;
  const T* messages;  // [rows][inputs][channels]
};

/// Writes products[rows][outputs][channels].
template <class T>
void products(const Stream& stream, const ProductWork<T>& work, T* products);

/// Writes the adjoints of the messages from those of the products.
template <class T>
void products_reverse(const Stream& stream, const ProductWork<T>& work, const T* adjoints, T* of_messages);

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
