#pragma once
// Kernels of the polynomials of messages; part of kernels.cpp.
#include <initializer_list>

#include "core/models/equivariant/convolution_kernels.hpp"

namespace nearsight {
namespace equivariant {
namespace {

/// What a kernel keeps of one vector of channels; terms and targets lie side by side in the caches.
template <class T>
struct Work {
  T *values, *tangents, *adjoints, *adjoint_tangents;  // of the nodes
  T *weights, *weight_tangents, *weight_adjoints;      // of the terms
  T *targets, *target_adjoints;

  Work(const Contraction<T>& c, T* scratch) {
    const auto take = [&](int vectors) {
      T* const begin = scratch;
      scratch += vectors * width<T>;
      return begin;
    };
    for (T** part : {&values, &tangents, &adjoints, &adjoint_tangents}) *part = take(c.num_nodes);
    for (T** part : {&weights, &weight_tangents, &weight_adjoints}) *part = take(c.num_terms);
    for (T** part : {&targets, &target_adjoints}) *part = take(c.num_targets);
  }
};

template <class T>
std::size_t contraction_scratch(const Contraction<T>& c) {
  return static_cast<std::size_t>(4 * c.num_nodes + 3 * c.num_terms + 2 * c.num_targets) * width<T>;
}

/// The terms of a vector of channels out of rows of all channels, and back.
template <class T>
inline void gather_terms(const Contraction<T>& c, const T* rows, int k, T* terms) {
  for (int t = 0; t < c.num_terms; ++t) put<T>(terms + t * width<T>, at(rows + t * c.channels + k));
}
template <class T>
inline void add_terms(const Contraction<T>& c, const T* terms, int k, T* rows) {
  for (int t = 0; t < c.num_terms; ++t) add<T>(rows + t * c.channels + k, at(terms + t * width<T>));
}

/// The components of an atom's messages as nodes, which follow node 0.
template <class T>
inline void load_components(const Contraction<T>& c, const T* messages, std::int64_t i, T* nodes) {
  for (int m = 0; m < c.num_components; ++m)
    put<T>(nodes + (1 + m) * width<T>,
           messages ? at(messages + c.places[m] + i * c.strides[m]) : broadcast<T>(T(0)));
}
template <class T>
inline void store_components(const Contraction<T>& c, const T* nodes, std::int64_t i, T* messages) {
  for (int m = 0; m < c.num_components; ++m)
    put<T>(messages + c.places[m] + i * c.strides[m], at(nodes + (1 + m) * width<T>));
}
template <class T>
inline void load_targets(const Contraction<T>& c, const T* products, std::int64_t i, T* targets) {
  for (int n = 0; n < c.num_targets; ++n)
    put<T>(targets + n * width<T>, at(products + c.target_places[n] + i * c.target_strides[n]));
}
template <class T>
inline void store_targets(const Contraction<T>& c, const T* targets, std::int64_t i, T* products) {
  for (int n = 0; n < c.num_targets; ++n)
    put<T>(products + c.target_places[n] + i * c.target_strides[n], at(targets + n * width<T>));
}

/// Values of the nodes for one atom.
template <class T>
inline void node_values(const Contraction<T>& c, const T* messages, std::int64_t i, T* values) {
  constexpr int w = width<T>;
  put<T>(values, broadcast<T>(T(1)));
  load_components(c, messages, i, values);
  for (int n = 1 + c.num_components; n < c.num_nodes; ++n) {
    const Node& node = c.nodes[n];
    put<T>(values + n * w, at(values + node.a * w) * at(values + node.b * w));
  }
}

/// Their derivatives along the tangents of the messages.
template <class T>
inline void node_tangents(const Contraction<T>& c, const T* messages, std::int64_t i, const T* values,
                          T* tangents) {
  constexpr int w = width<T>;
  put<T>(tangents, broadcast<T>(T(0)));
  load_components(c, messages, i, tangents);
  for (int n = 1 + c.num_components; n < c.num_nodes; ++n) {
    const int a = c.nodes[n].a * w, b = c.nodes[n].b * w;
    put<T>(tangents + n * w, at(tangents + a) * at(values + b) + at(values + a) * at(tangents + b));
  }
}

template <class T>
void contract(const Contraction<T>& c, int channel, T* scratch) {
  constexpr int w = width<T>;
  const Work<T> work(c, scratch);
  const auto add_to_targets = [&](Vec<T> monomial, int first, int last) {
    for (int t = first; t < last; ++t)
      add<T>(work.targets + c.targets[t] * w, at(work.weights + t * w) * monomial);
  };
  for (int k = channel; k < channel + kRun<T>; k += w) {
    gather_terms(c, c.weights, k, work.weights);
    for (std::int64_t i = c.first_atom; i < c.last_atom; ++i) {
      node_values(c, c.messages + k, i, work.values);
      clear(work.targets, c.num_targets);
      for (int n = 0; n < c.num_nodes; ++n) {
        const Vec<T> value = at(work.values + n * w);
        add_to_targets(value, c.nodes[n].first_term, c.nodes[n + 1].first_term);
        for (int l = c.nodes[n].first_leaf; l < c.nodes[n + 1].first_leaf; ++l)
          add_to_targets(value * at(work.values + c.leaves[l].component * w), c.leaves[l].first_term,
                         c.leaves[l + 1].first_term);
      }
      store_targets(c, work.targets, i, c.products + k);
    }
  }
}

/// Adjoint of a monomial by its terms, and those of their weights.
template <class T, bool with_weights>
inline Vec<T> reverse_terms(const Contraction<T>& c, const Work<T>& work, int first, int last,
                            Vec<T> monomial) {
  constexpr int w = width<T>;
  Vec<T> adjoint = broadcast<T>(T(0));
  for (int t = first; t < last; ++t) {
    const Vec<T> d = at(work.target_adjoints + c.targets[t] * w);
    adjoint += d * at(work.weights + t * w);
    if (with_weights) add<T>(work.weight_adjoints + t * w, d * monomial);
  }
  return adjoint;
}

template <class T, bool with_weights>
inline void reverse_of_run(const Contraction<T>& c, const Work<T>& work, int k) {
  constexpr int w = width<T>;
  gather_terms(c, c.weights, k, work.weights);
  if (with_weights) clear(work.weight_adjoints, c.num_terms);
  for (std::int64_t i = c.first_atom; i < c.last_atom; ++i) {
    node_values(c, c.messages + k, i, work.values);
    load_targets(c, c.adjoints + k, i, work.target_adjoints);
    clear(work.adjoints, c.num_nodes);
    for (int n = c.num_nodes - 1; n >= 0; --n) {
      const Node &node = c.nodes[n], &next = c.nodes[n + 1];
      const Vec<T> value = at(work.values + n * w);
      Vec<T> adjoint = reverse_terms<T, with_weights>(c, work, node.first_term, next.first_term, value);
      for (int l = node.first_leaf; l < next.first_leaf; ++l) {
        const int m = c.leaves[l].component * w;
        const Vec<T> component = at(work.values + m);
        const Vec<T> of_leaf = reverse_terms<T, with_weights>(c, work, c.leaves[l].first_term,
                                                              c.leaves[l + 1].first_term, value * component);
        adjoint += of_leaf * component;
        add<T>(work.adjoints + m, of_leaf * value);
      }
      adjoint += at(work.adjoints + n * w);
      if (n > c.num_components) {
        add<T>(work.adjoints + node.a * w, adjoint * at(work.values + node.b * w));
        add<T>(work.adjoints + node.b * w, adjoint * at(work.values + node.a * w));
      } else {
        put<T>(work.adjoints + n * w, adjoint);
      }
    }
    store_components(c, work.adjoints, i, c.message_adjoints + k);
  }
  if (with_weights) add_terms(c, work.weight_adjoints, k, c.weight_adjoints);
}

template <class T>
void contract_reverse(const Contraction<T>& c, int channel, T* scratch) {
  const Work<T> work(c, scratch);
  for (int k = channel; k < channel + kRun<T>; k += width<T>)
    if (c.weight_adjoints)
      reverse_of_run<T, true>(c, work, k);
    else
      reverse_of_run<T, false>(c, work, k);
}

/// A number for each channel, and its derivative along the tangents.
template <class T>
struct Dual {
  Vec<T> value, tangent;

  Dual operator*(const Dual& b) const { return {value * b.value, tangent * b.value + value * b.tangent}; }
};
template <class T>
inline void add_dual(T* values, T* tangents, const Dual<T>& x) {
  add<T>(values, x.value);
  add<T>(tangents, x.tangent);
}

/// `reverse_terms` with tangents; also the tangents of the targets.
template <class T, bool with_weights>
inline Dual<T> tangent_of_terms(const Contraction<T>& c, const Work<T>& work, int first, int last,
                                const Dual<T>& monomial) {
  constexpr int w = width<T>;
  Dual<T> adjoint{broadcast<T>(T(0)), broadcast<T>(T(0))};
  for (int t = first; t < last; ++t) {
    const Vec<T> d = at(work.target_adjoints + c.targets[t] * w), weight = at(work.weights + t * w);
    adjoint.value += d * weight;
    add<T>(work.weight_adjoints + t * w, d * monomial.tangent);
    Vec<T> result = weight * monomial.tangent;
    if (with_weights) {
      const Vec<T> weight_tangent = at(work.weight_tangents + t * w);
      adjoint.tangent += d * weight_tangent;
      result += weight_tangent * monomial.value;
    }
    add<T>(work.targets + c.targets[t] * w, result);
  }
  return adjoint;
}

template <class T, bool with_weights>
inline void tangent_of_run(const Contraction<T>& c, const Work<T>& work, int k) {
  constexpr int w = width<T>;
  const auto node_at = [&](int n) { return Dual<T>{at(work.values + n * w), at(work.tangents + n * w)}; };
  const auto add_adjoint = [&](int n, const Dual<T>& x) {
    add_dual(work.adjoints + n * w, work.adjoint_tangents + n * w, x);
  };
  gather_terms(c, c.weights, k, work.weights);
  if (with_weights) gather_terms(c, c.weight_tangents, k, work.weight_tangents);
  clear(work.weight_adjoints, c.num_terms);
  for (std::int64_t i = c.first_atom; i < c.last_atom; ++i) {
    node_values(c, c.messages + k, i, work.values);
    node_tangents(c, c.message_tangents ? c.message_tangents + k : nullptr, i, work.values, work.tangents);
    load_targets(c, c.adjoints + k, i, work.target_adjoints);
    clear(work.targets, c.num_targets);
    clear(work.adjoints, 2 * c.num_nodes);
    for (int n = c.num_nodes - 1; n >= 0; --n) {
      const Node &node = c.nodes[n], &next = c.nodes[n + 1];
      const Dual<T> value = node_at(n);
      Dual<T> adjoint = tangent_of_terms<T, with_weights>(c, work, node.first_term, next.first_term, value);
      for (int l = node.first_leaf; l < next.first_leaf; ++l) {
        const Dual<T> component = node_at(c.leaves[l].component);
        const Dual<T> of_leaf = tangent_of_terms<T, with_weights>(
            c, work, c.leaves[l].first_term, c.leaves[l + 1].first_term, value * component);
        const Dual<T> more = of_leaf * component;
        adjoint = {adjoint.value + more.value, adjoint.tangent + more.tangent};
        add_adjoint(c.leaves[l].component, of_leaf * value);
      }
      add_adjoint(n, adjoint);
      if (n > c.num_components) {
        adjoint = {at(work.adjoints + n * w), at(work.adjoint_tangents + n * w)};
        add_adjoint(node.a, adjoint * node_at(node.b));
        add_adjoint(node.b, adjoint * node_at(node.a));
      }
    }
    store_targets(c, work.targets, i, c.products + k);
    store_components(c, work.adjoint_tangents, i, c.message_adjoints + k);
  }
  add_terms(c, work.weight_adjoints, k, c.weight_adjoints);
}

template <class T>
void contract_tangent(const Contraction<T>& c, int channel, T* scratch) {
  const Work<T> work(c, scratch);
  for (int k = channel; k < channel + kRun<T>; k += width<T>)
    if (c.weight_tangents)
      tangent_of_run<T, true>(c, work, k);
    else
      tangent_of_run<T, false>(c, work, k);
}

}  // namespace
}  // namespace equivariant
}  // namespace nearsight
