// Twin of core/models/equivariant/contraction_kernels.hpp for training on a GPU. Products and adjoints of
// messages: a thread for each atom and channel, which keeps components and targets in a column of shared
// memory; the warps of a block have the same channels of neighboring atoms, which mostly share the weights
// that they read. Adjoints of weights: a thread for each term and channel, which sums over the atoms of its
// species, so that nothing is added to by two threads.
//
// With A atoms, K channels, N monomials and t terms about A K (N + t) multiply-adds for the products, 2 and 4
// times as many for reverse and tangent, and A K times 4 t for weights; weights are read once per block from
// L2, 4 t bytes for each channel of 4 to 16 atoms.
#include "cuda/device.hpp"
#include "cuda/training/contraction.hpp"
#include "cuda/training/work.hpp"

namespace nearsight {
namespace cuda {
namespace training {

using equivariant::Contraction;
using equivariant::Counts;
using equivariant::Leaf;
using equivariant::Node;

namespace {

constexpr std::size_t kMostShared = 96 * 1024;  // bytes of a block, so that two share a multiprocessor

/// Threads as [tiles of channels][rows][lanes of a tile].
struct Division {
  int lanes;
  std::int64_t rows;

  __device__ std::int64_t row() const { return static_cast<std::int64_t>(thread_number()) / lanes % rows; }
  __device__ int channel() const {
    const auto thread = static_cast<std::int64_t>(thread_number());
    return static_cast<int>(thread / lanes / rows) * lanes + static_cast<int>(thread % lanes);
  }
};

/// A thread's numbers in shared memory: element n is at [n * threads of the block].
template <class T>
class Column {
 public:
  __device__ explicit Column(int number) : begin_(dynamic_shared<T>() + number * blockDim.x + threadIdx.x) {}
  __device__ T& operator[](int n) const { return begin_[n * blockDim.x]; }

 private:
  T* begin_;
};

__device__ inline std::int64_t species_of(const Counts& counts, std::int64_t atom) {
  std::int64_t species = 0;
  while (species + 1 < counts.num_species && atom >= counts.of_species[species])
    atom -= counts.of_species[species++];
  return species;
}

/// Node 0, which is `one`, and the components after it; zeros for null.
template <class T>
__device__ inline void load_components(const Contraction<T>& c, const T* messages, std::int64_t atom, int k,
                                       T one, const Column<T>& nodes) {
  nodes[0] = one;
  for (int m = 0; m < c.num_components; ++m)
    nodes[1 + m] = messages ? messages[c.places[m] + atom * c.strides[m] + k] : T(0);
}

template <class T>
__device__ inline void load_targets(const Contraction<T>& c, const T* products, std::int64_t atom, int k,
                                    const Column<T>& targets) {
  for (int n = 0; n < c.num_targets; ++n)
    targets[n] = products ? products[c.target_places[n] + atom * c.target_strides[n] + k] : T(0);
}

/// A number and its derivative along the tangents.
template <class T>
struct Dual {
  T value, tangent;

  __device__ Dual operator*(const Dual& b) const {
    return {value * b.value, tangent * b.value + value * b.tangent};
  }
};

template <class T>
__global__ void products(Contraction<T> c, Counts counts, Division division) {
  const int k = division.channel();
  if (k >= c.channels) return;
  const std::int64_t atom = division.row();
  const Column<T> nodes(0), targets(1 + c.num_components);
  load_components(c, c.messages, atom, k, T(1), nodes);
  load_targets<T>(c, nullptr, atom, k, targets);
  const T* const weights = c.weights + species_of(counts, atom) * c.num_terms * c.channels + k;
  const auto add = [&](T monomial, int first, int last) {
    for (int t = first; t < last; ++t)
      targets[c.targets[t]] += weights[static_cast<std::int64_t>(t) * c.channels] * monomial;
  };
  for (int n = 0; n < c.num_nodes; ++n) {
    const Node node = c.nodes[n], next = c.nodes[n + 1];
    const T value = n <= c.num_components ? nodes[n] : nodes[node.a] * nodes[node.b];
    add(value, node.first_term, next.first_term);
    for (int l = node.first_leaf; l < next.first_leaf; ++l)
      add(value * nodes[c.leaves[l].component], c.leaves[l].first_term, c.leaves[l + 1].first_term);
  }
  for (int n = 0; n < c.num_targets; ++n)
    c.products[c.target_places[n] + atom * c.target_strides[n] + k] = targets[n];
}

template <class T>
__global__ void message_adjoints(Contraction<T> c, Counts counts, Division division) {
  const int k = division.channel();
  if (k >= c.channels) return;
  const std::int64_t atom = division.row();
  const int size = 1 + c.num_components;
  const Column<T> nodes(0), adjoints(size), of_targets(2 * size);
  load_components(c, c.messages, atom, k, T(1), nodes);
  load_components<T>(c, nullptr, atom, k, T(0), adjoints);
  load_targets(c, c.adjoints, atom, k, of_targets);
  const T* const weights = c.weights + species_of(counts, atom) * c.num_terms * c.channels + k;
  const auto by_terms = [&](int first, int last) {
    T sum = T(0);
    for (int t = first; t < last; ++t)
      sum += of_targets[c.targets[t]] * weights[static_cast<std::int64_t>(t) * c.channels];
    return sum;
  };
  for (int n = 1; n < c.num_nodes; ++n) {
    const Node node = c.nodes[n], next = c.nodes[n + 1];
    const bool is_product = n > c.num_components;
    const T value = is_product ? nodes[node.a] * nodes[node.b] : nodes[n];
    T adjoint = by_terms(node.first_term, next.first_term);
    for (int l = node.first_leaf; l < next.first_leaf; ++l) {
      const Leaf leaf = c.leaves[l];
      const T of_leaf = by_terms(leaf.first_term, c.leaves[l + 1].first_term);
      adjoint += of_leaf * nodes[leaf.component];
      adjoints[leaf.component] += of_leaf * value;
    }
    if (is_product) {
      adjoints[node.a] += adjoint * nodes[node.b];
      adjoints[node.b] += adjoint * nodes[node.a];
    } else {
      adjoints[n] += adjoint;
    }
  }
  for (int m = 0; m < c.num_components; ++m)
    c.message_adjoints[c.places[m] + atom * c.strides[m] + k] = adjoints[1 + m];
}

/// Derivatives of products and of the adjoints of messages along the tangents.
template <class T>
__global__ void tangents(Contraction<T> c, Counts counts, Division division) {
  const int k = division.channel();
  if (k >= c.channels) return;
  const std::int64_t atom = division.row();
  const int size = 1 + c.num_components;
  const Column<T> values(0), along(size), adjoints(2 * size), of_targets(3 * size),
      results(3 * size + c.num_targets);
  load_components(c, c.messages, atom, k, T(1), values);
  load_components(c, c.message_tangents, atom, k, T(0), along);
  load_components<T>(c, nullptr, atom, k, T(0), adjoints);
  load_targets(c, c.adjoints, atom, k, of_targets);
  load_targets<T>(c, nullptr, atom, k, results);
  const std::int64_t first_weight = species_of(counts, atom) * c.num_terms * c.channels + k;
  const auto node_at = [&](int n) { return Dual<T>{values[n], along[n]}; };
  const auto by_terms = [&](int first, int last, const Dual<T>& monomial) {
    Dual<T> sum{T(0), T(0)};
    for (int t = first; t < last; ++t) {
      const std::int64_t place = first_weight + static_cast<std::int64_t>(t) * c.channels;
      const int target = c.targets[t];
      const T d = of_targets[target], weight = c.weights[place];
      const T weight_tangent = c.weight_tangents ? c.weight_tangents[place] : T(0);
      sum.value += d * weight;
      sum.tangent += d * weight_tangent;
      results[target] += weight * monomial.tangent + weight_tangent * monomial.value;
    }
    return sum;
  };
  for (int n = 0; n < c.num_nodes; ++n) {
    const Node node = c.nodes[n], next = c.nodes[n + 1];
    const bool is_product = n > c.num_components;
    const Dual<T> value = is_product ? node_at(node.a) * node_at(node.b) : node_at(n);
    Dual<T> adjoint = by_terms(node.first_term, next.first_term, value);
    for (int l = node.first_leaf; l < next.first_leaf; ++l) {
      const Leaf leaf = c.leaves[l];
      const Dual<T> component = node_at(leaf.component);
      const Dual<T> of_leaf = by_terms(leaf.first_term, c.leaves[l + 1].first_term, value * component);
      const Dual<T> more = of_leaf * component;
      adjoint = {adjoint.value + more.value, adjoint.tangent + more.tangent};
      adjoints[leaf.component] += (of_leaf * value).tangent;
    }
    if (is_product) {
      adjoints[node.a] += (adjoint * node_at(node.b)).tangent;
      adjoints[node.b] += (adjoint * node_at(node.a)).tangent;
    } else if (n > 0) {
      adjoints[n] += adjoint.tangent;
    }
  }
  for (int n = 0; n < c.num_targets; ++n)
    c.products[c.target_places[n] + atom * c.target_strides[n] + k] = results[n];
  for (int m = 0; m < c.num_components; ++m)
    c.message_adjoints[c.places[m] + atom * c.strides[m] + k] = adjoints[1 + m];
}

/// The last n with first(n) <= number, among those in [0, count).
template <class First>
__device__ inline int last_before(int number, int count, const First& first) {
  int low = 0, high = count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (first(middle) <= number ? low : high) = middle;
  }
  return low;
}

/// Factors of the monomial of a term, as components from 0 on.
struct Factors {
  int of[3];  // -1 for a factor of 1

  template <class T>
  __device__ Factors(const Contraction<T>& c, int term) : of{-1, -1, -1} {
    int node;
    if (term < c.nodes[c.num_nodes].first_term) {
      node = last_before(term, c.num_nodes, [&](int n) { return c.nodes[n].first_term; });
    } else {
      const int leaf =
          last_before(term, c.nodes[c.num_nodes].first_leaf, [&](int l) { return c.leaves[l].first_term; });
      of[2] = c.leaves[leaf].component - 1;
      node = last_before(leaf, c.num_nodes, [&](int n) { return c.nodes[n].first_leaf; });
    }
    if (node > c.num_components) {
      of[0] = c.nodes[node].a - 1;
      of[1] = c.nodes[node].b - 1;
    } else {
      of[0] = node - 1;
    }
  }
};

/// Σ over the atoms of a species of the adjoint of a term's target times its monomial, or the monomial's
/// derivative along the tangents. Rows are the terms of all species.
template <class T, bool kTangent>
__global__ void weight_adjoints(Contraction<T> c, Counts counts, Division division) {
  const int k = division.channel();
  if (k >= c.channels) return;
  const std::int64_t row = division.row(), species = row / c.num_terms;
  const int term = static_cast<int>(row % c.num_terms), target = c.targets[term];
  const Factors factors(c, term);
  std::int64_t atom = 0;
  for (std::int64_t s = 0; s < species; ++s) atom += counts.of_species[s];
  T sum = T(0);
  for (const std::int64_t end = atom + counts.of_species[species]; atom < end; ++atom) {
    Dual<T> monomial{T(1), T(0)};
    NEARSIGHT_UNROLL for (int f = 0; f < 3; ++f) {
      if (factors.of[f] < 0) continue;
      const std::int64_t place = c.places[factors.of[f]] + atom * c.strides[factors.of[f]] + k;
      monomial = monomial * Dual<T>{c.messages[place], kTangent ? c.message_tangents[place] : T(0)};
    }
    sum += c.adjoints[c.target_places[target] + atom * c.target_strides[target] + k] *
           (kTangent ? monomial.tangent : monomial.value);
  }
  c.weight_adjoints[row * c.channels + k] = sum;
}

/// Tables in memory of the device.
template <class T>
Contraction<T> on_device(Work& work, Contraction<T> c) {
  c.places = work.copied(c.places, c.num_components);
  c.strides = work.copied(c.strides, c.num_components);
  c.target_places = work.copied(c.target_places, c.num_targets);
  c.target_strides = work.copied(c.target_strides, c.num_targets);
  return c;
}

/// Starts a kernel for rows and channels, each thread with so many numbers in shared memory.
template <class T>
void start(const Work& work, void (*kernel)(Contraction<T>, Counts, Division), const Contraction<T>& c,
           const Counts& counts, std::int64_t rows, std::size_t numbers) {
  if (rows == 0) return;
  const int lanes = c.channels % 32 == 0 ? 32 : c.channels % 16 == 0 ? 16 : 8;
  unsigned threads = 256;
  while (threads > kWarp && threads * numbers * sizeof(T) > kMostShared) threads /= 2;
  Grid grid = one_each(static_cast<std::size_t>(rows * c.channels), threads);
  grid.shared_bytes = threads * numbers * sizeof(T);
  launch(work.stream, grid, kernel, c, counts, Division{lanes, rows});
}

}  // namespace

template <class T>
void contract(DeviceScope& scope, const Contraction<T>& given, const Counts& counts) {
  Work work(scope);
  const Contraction<T> c = on_device(work, given);
  start<T>(work, products<T>, c, counts, counts.num_atoms, 1 + c.num_components + c.num_targets);
}

template <class T>
void contract_reverse(DeviceScope& scope, const Contraction<T>& given, const Counts& counts) {
  Work work(scope);
  const Contraction<T> c = on_device(work, given);
  start<T>(work, message_adjoints<T>, c, counts, counts.num_atoms,
           2 * (1 + c.num_components) + c.num_targets);
  if (c.weight_adjoints)
    start<T>(work, weight_adjoints<T, false>, c, counts, counts.num_species * c.num_terms, 0);
}

template <class T>
void contract_tangent(DeviceScope& scope, const Contraction<T>& given, const Counts& counts) {
  Work work(scope);
  const Contraction<T> c = on_device(work, given);
  start<T>(work, tangents<T>, c, counts, counts.num_atoms, 3 * (1 + c.num_components) + 2 * c.num_targets);
  if (c.message_tangents)
    start<T>(work, weight_adjoints<T, true>, c, counts, counts.num_species * c.num_terms, 0);
}

#define NEARSIGHT_CONTRACTION(T)                                                      \
  template void contract(DeviceScope&, const Contraction<T>&, const Counts&);         \
  template void contract_reverse(DeviceScope&, const Contraction<T>&, const Counts&); \
  template void contract_tangent(DeviceScope&, const Contraction<T>&, const Counts&);
NEARSIGHT_CONTRACTION(float)
NEARSIGHT_CONTRACTION(double)

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
