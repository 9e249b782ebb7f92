#include "cuda/models/mace/products.hpp"

namespace nearsight {
namespace cuda {
namespace mace {
namespace {

using nearsight::mace::Node;
using nearsight::mace::Polynomials;

/// Atoms of one species that a thread evaluates for its channel: a node and a weight are read once for all.
constexpr int kAtoms = 4;

template <class T>
struct alignas(16) Four {
  T at[kAtoms];
};

template <class T>
__device__ __forceinline__ void add(Four<T>& sum, const Four<T>& a, const Four<T>& b) {
#pragma unroll
  for (int n = 0; n < kAtoms; ++n) sum.at[n] += a.at[n] * b.at[n];
}
template <class T>
__device__ __forceinline__ void add(Four<T>& sum, T a, const Four<T>& b) {
#pragma unroll
  for (int n = 0; n < kAtoms; ++n) sum.at[n] += a * b.at[n];
}
template <class T>
__device__ __forceinline__ Four<T> all(T value) {
  Four<T> four;
#pragma unroll
  for (int n = 0; n < kAtoms; ++n) four.at[n] = value;
  return four;
}

/// One channel of four atoms: messages in shared memory, [component][thread].
template <class T>
struct Site {
  const ProductWork<T>& work;
  int first, count, channel;  // rows; what is behind the last one is computed like it and not written
  const T* weights;           // of the species and channel, num_weights rows

  __device__ Site(const ProductWork<T>& w, const RowTile& tile, int group)
      : work(w), first(tile.first + group * kAtoms), channel(blockIdx.y * blockDim.x + threadIdx.x) {
    count = tile.count - group * kAtoms;
    count = count < kAtoms ? count : kAtoms;
    weights = w.weights + static_cast<std::int64_t>(tile.species) * w.num_weights * w.channels + channel;
  }

  __device__ std::int64_t place(int atom, int components, int component) const {
    const int inside = atom < count ? atom : count - 1;
    return (static_cast<std::int64_t>(first + inside) * components + component) * work.channels + channel;
  }
  __device__ Four<T> read(const T* rows, int components, int component) const {
    Four<T> four;
#pragma unroll
    for (int n = 0; n < kAtoms; ++n) four.at[n] = rows[place(n, components, component)];
    return four;
  }
  __device__ void write(T* rows, int components, int component, const Four<T>& four) const {
#pragma unroll
    for (int n = 0; n < kAtoms; ++n)
      if (n < count) rows[place(n, components, component)] = four.at[n];
  }
  __device__ T weight(int number) const {
    return number >= 0 ? weights[static_cast<std::int64_t>(number) * work.channels] : T(0);
  }
};

/// w_ab + Σ_c m_c w_abc
template <class T>
__device__ __forceinline__ Four<T> middle_value(const Site<T>& site, const Four<T>* messages,
                                                const Node& middle) {
  Four<T> sum = all(site.weight(middle.weight));
  for (int k = middle.first; k < middle.last; ++k) {
    const Node leaf = site.work.polynomials.leaves[k];
    add(sum, site.weight(leaf.weight), messages[leaf.factor * blockDim.x]);
  }
  return sum;
}

/// Blocks: tiles of rows times groups of four, blocks of channels.
template <class T>
__global__ void __launch_bounds__(64) evaluate_products(ProductWork<T> work, T* products) {
  constexpr int groups = kTileRows / kAtoms;
  const RowTile tile = work.tiles[blockIdx.x / groups];
  const int group = blockIdx.x % groups;
  if (group * kAtoms >= tile.count) return;
  const Site<T> site(work, tile, group);
  const Polynomials& p = work.polynomials;
  Four<T>* const messages = dynamic_shared<Four<T>>() + threadIdx.x;
  for (int c = 0; c < p.num_inputs; ++c) messages[c * blockDim.x] = site.read(work.messages, p.num_inputs, c);
  for (int c = 0; c < p.num_outputs; ++c) {
    Four<T> value = all(T(0));
    for (int a = p.first_root[c]; a < p.first_root[c + 1]; ++a) {
      const Node root = p.roots[a];
      Four<T> sum = all(site.weight(root.weight));
      for (int b = root.first; b < root.last; ++b) {
        const Node middle = p.middles[b];
        add(sum, middle_value(site, messages, middle), messages[middle.factor * blockDim.x]);
      }
      add(value, sum, messages[root.factor * blockDim.x]);
    }
    site.write(products, p.num_outputs, c, value);
  }
}

template <class T>
__global__ void __launch_bounds__(64)
    reverse_products(ProductWork<T> work, const T* of_products, T* of_messages) {
  constexpr int groups = kTileRows / kAtoms;
  const RowTile tile = work.tiles[blockIdx.x / groups];
  const int group = blockIdx.x % groups;
  if (group * kAtoms >= tile.count) return;
  const Site<T> site(work, tile, group);
  const Polynomials& p = work.polynomials;
  Four<T>* const messages = dynamic_shared<Four<T>>() + threadIdx.x;
  Four<T>* const adjoints = messages + p.num_inputs * blockDim.x;
  for (int c = 0; c < p.num_inputs; ++c) {
    messages[c * blockDim.x] = site.read(work.messages, p.num_inputs, c);
    adjoints[c * blockDim.x] = all(T(0));
  }
  for (int c = 0; c < p.num_outputs; ++c) {
    const Four<T> given = site.read(of_products, p.num_outputs, c);
    for (int a = p.first_root[c]; a < p.first_root[c + 1]; ++a) {
      const Node root = p.roots[a];
      Four<T> sum = all(site.weight(root.weight)), of_root = all(T(0));
      add(of_root, given, messages[root.factor * blockDim.x]);
      for (int b = root.first; b < root.last; ++b) {
        const Node middle = p.middles[b];
        const Four<T> factor = messages[middle.factor * blockDim.x];
        Four<T> inner = all(site.weight(middle.weight)), of_middle = all(T(0));
        add(of_middle, of_root, factor);
        for (int k = middle.first; k < middle.last; ++k) {
          const Node leaf = p.leaves[k];
          const T weight = site.weight(leaf.weight);
          add(inner, weight, messages[leaf.factor * blockDim.x]);
          add(adjoints[leaf.factor * blockDim.x], weight, of_middle);
        }
        add(sum, inner, factor);
        add(adjoints[middle.factor * blockDim.x], inner, of_root);
      }
      add(adjoints[root.factor * blockDim.x], sum, given);
    }
  }
  for (int c = 0; c < p.num_inputs; ++c) site.write(of_messages, p.num_inputs, c, adjoints[c * blockDim.x]);
}

template <class T>
Grid grid_of(const ProductWork<T>& work, int arrays) {
  constexpr std::size_t most = 96 * 1024;  // of shared memory that every card has
  const std::size_t each = static_cast<std::size_t>(arrays) * work.polynomials.num_inputs * sizeof(Four<T>);
  const int channels = work.channels % 64 == 0 && 64 * each <= most ? 64 : 32;
  return {dim3(work.num_tiles * (kTileRows / kAtoms), work.channels / channels), dim3(channels),
          channels * each};
}

}  // namespace

template <class T>
void products(const Stream& stream, const ProductWork<T>& work, T* products) {
  launch(stream, grid_of(work, 1), evaluate_products<T>, work, products);
}

template <class T>
void products_reverse(const Stream& stream, const ProductWork<T>& work, const T* adjoints, T* of_messages) {
  launch(stream, grid_of(work, 2), reverse_products<T>, work, adjoints, of_messages);
}

#define NEARSIGHT_PRODUCTS(T)                                       \
  template void products(const Stream&, const ProductWork<T>&, T*); \
  template void products_reverse(const Stream&, const ProductWork<T>&, const T*, T*);
NEARSIGHT_PRODUCTS(float)
NEARSIGHT_PRODUCTS(double)
#undef NEARSIGHT_PRODUCTS

}  // namespace mace
}  // namespace cuda
}  // namespace nearsight
