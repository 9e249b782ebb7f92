#pragma once
// Kernels of the polynomials of messages; part of kernels.cpp.
#include "core/models/equivariant/convolution_kernels.hpp"

namespace nearsight {
namespace equivariant {
namespace {

/// Values of the nodes for one atom and one vector of channels.
template <class T>
inline void node_values(const Contraction<T>& c, const T* messages, std::int64_t i, T* values) {
  constexpr int w = width<T>;
  put<T>(values, broadcast<T>(T(1)));
  for (int m = 0; m < c.num_components; ++m)
    put<T>(values + (1 + m) * w, at(messages + c.places[m] + i * c.strides[m]));
  for (int n = 1 + c.num_components; n < c.num_nodes; ++n) {
    const Node& node = c.nodes[n - 1 - c.num_components];
    put<T>(values + n * w, at(values + node.a * w) * at(values + node.b * w));
  }
}

/// Their derivatives along the tangents of the messages.
template <class T>
inline void node_tangents(const Contraction<T>& c, const T* messages, std::int64_t i, const T* values,
                          T* tangents) {
  constexpr int w = width<T>;
  put<T>(tangents, broadcast<T>(T(0)));
  for (int m = 0; m < c.num_components; ++m)
    put<T>(tangents + (1 + m) * w,
           messages ? at(messages + c.places[m] + i * c.strides[m]) : broadcast<T>(T(0)));
  for (int n = 1 + c.num_components; n < c.num_nodes; ++n) {
    const Node& node = c.nodes[n - 1 - c.num_components];
    put<T>(tangents + n * w, at(tangents + node.a * w) * at(values + node.b * w) +
                                 at(values + node.a * w) * at(tangents + node.b * w));
  }
}

/// Calls body(atom, k) for every atom and vector of channels of a run.
template <class T, class Body>
inline void for_atoms(const Contraction<T>& c, int channel, const Body& body) {
  for (int k = channel; k < channel + kRun<T>; k += width<T>)
    for (std::int64_t i = c.first_atom; i < c.last_atom; ++i) body(i, k);
}

template <class T>
void contract(const Contraction<T>& c, int channel, T* values) {
  for_atoms(c, channel, [&](std::int64_t i, int k) {
    node_values(c, c.messages + k, i, values);
    int t = 0;
    for (int target = 0; target < c.num_targets; ++target) {
      Vec<T> sum = broadcast<T>(T(0));
      for (; t < c.num_terms && c.terms[t].target == target; ++t)
        sum += at(c.weights + t * c.channels + k) * at(values + c.terms[t].node * width<T>);
      put<T>(c.products + c.target_places[target] + i * c.target_strides[target] + k, sum);
    }
  });
}

template <class T>
void contract_reverse(const Contraction<T>& c, int channel, T* values) {
  constexpr int w = width<T>;
  T* const adjoints = values + c.num_nodes * w;
  for_atoms(c, channel, [&](std::int64_t i, int k) {
    node_values(c, c.messages + k, i, values);
    clear(adjoints, c.num_nodes);
    int t = 0;
    for (int target = 0; target < c.num_targets; ++target) {
      const Vec<T> d = at(c.adjoints + c.target_places[target] + i * c.target_strides[target] + k);
      for (; t < c.num_terms && c.terms[t].target == target; ++t) {
        const int node = c.terms[t].node * w, weight = t * c.channels + k;
        add<T>(adjoints + node, d * at(c.weights + weight));
        if (c.weight_adjoints) add<T>(c.weight_adjoints + weight, d * at(values + node));
      }
    }
    for (int n = c.num_nodes - 1; n > c.num_components; --n) {
      const Node& node = c.nodes[n - 1 - c.num_components];
      const Vec<T> d = at(adjoints + n * w);
      add<T>(adjoints + node.a * w, d * at(values + node.b * w));
      add<T>(adjoints + node.b * w, d * at(values + node.a * w));
    }
    for (int m = 0; m < c.num_components; ++m)
      put<T>(c.message_adjoints + c.places[m] + i * c.strides[m] + k, at(adjoints + (1 + m) * w));
  });
}

template <class T>
void contract_tangent(const Contraction<T>& c, int channel, T* values) {
  constexpr int w = width<T>;
  T* const tangents = values + c.num_nodes * w;
  T* const adjoints = tangents + c.num_nodes * w;
  T* const adjoint_tangents = adjoints + c.num_nodes * w;
  for_atoms(c, channel, [&](std::int64_t i, int k) {
    node_values(c, c.messages + k, i, values);
    node_tangents(c, c.message_tangents ? c.message_tangents + k : nullptr, i, values, tangents);
    clear(adjoints, 2 * c.num_nodes);
    int t = 0;
    for (int target = 0; target < c.num_targets; ++target) {
      const std::int64_t place = c.target_places[target] + i * c.target_strides[target] + k;
      const Vec<T> d = at(c.adjoints + place);
      Vec<T> sum = broadcast<T>(T(0));
      for (; t < c.num_terms && c.terms[t].target == target; ++t) {
        const int node = c.terms[t].node * w, weight = t * c.channels + k;
        const Vec<T> value = at(c.weights + weight), tangent = at(tangents + node);
        sum += value * tangent;
        add<T>(adjoints + node, d * value);
        add<T>(c.weight_adjoints + weight, d * tangent);
        if (!c.weight_tangents) continue;
        const Vec<T> value_tangent = at(c.weight_tangents + weight);
        sum += value_tangent * at(values + node);
        add<T>(adjoint_tangents + node, d * value_tangent);
      }
      put<T>(c.products + place, sum);
    }
    for (int n = c.num_nodes - 1; n > c.num_components; --n) {
      const Node& node = c.nodes[n - 1 - c.num_components];
      const int a = node.a * w, b = node.b * w;
      const Vec<T> d = at(adjoints + n * w), d_tangent = at(adjoint_tangents + n * w);
      add<T>(adjoints + a, d * at(values + b));
      add<T>(adjoint_tangents + a, d_tangent * at(values + b) + d * at(tangents + b));
      add<T>(adjoints + b, d * at(values + a));
      add<T>(adjoint_tangents + b, d_tangent * at(values + a) + d * at(tangents + a));
    }
    for (int m = 0; m < c.num_components; ++m)
      put<T>(c.message_adjoints + c.places[m] + i * c.strides[m] + k, at(adjoint_tangents + (1 + m) * w));
  });
}

}  // namespace
}  // namespace equivariant
}  // namespace nearsight
