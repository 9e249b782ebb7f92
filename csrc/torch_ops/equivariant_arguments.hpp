#pragma once
// What the ops of equivariant message passing take, for kernels of the CPU and of GPUs.
#include "core/models/equivariant/equivariant.hpp"
#include "torch_ops/stable.hpp"

namespace nearsight {

/// Calls body(float) or body(double), of the type that a tensor has.
template <class Body>
void with_type_of(const Tensor& tensor, const Body& body) {
  if (tensor.element_size() == sizeof(float))
    body(float{});
  else
    body(double{});
}

/// The numbers of a tensor, or null if it is empty.
template <class T>
T* data(const Tensor& tensor) {
  return tensor.numel() ? static_cast<T*>(tensor.data_ptr()) : nullptr;
}

/// Reads the arguments of an op one after another.
class Arguments {
 public:
  explicit Arguments(StableIValue* stack) : stack_(stack) {}
  Tensor tensor() { return argument<Tensor>(stack_[next_++]); }
  std::int64_t integer() { return argument<std::int64_t>(stack_[next_++]); }

 private:
  StableIValue* stack_;
  int next_ = 0;
};

/// What all ops of the convolution begin with, in the order of the schema.
struct Graphs {
  Tensor offsets, middles, places, neighbors, pairs, paths, couplings, sources, values, slopes, harmonics;
  int num_threads;

  explicit Graphs(Arguments& a)
      : offsets(a.tensor()),
        middles(a.tensor()),
        places(a.tensor()),
        neighbors(a.tensor()),
        pairs(a.tensor()),
        paths(a.tensor()),
        couplings(a.tensor()),
        sources(a.tensor()),
        values(a.tensor()),
        slopes(a.tensor()),
        harmonics(a.tensor()),
        num_threads(static_cast<int>(a.integer())) {}

  equivariant::Neighborhoods graph() const {
    return {middles.numel(),
            neighbors.numel(),
            values.size(0),
            data<const std::int64_t>(offsets),
            data<const std::int64_t>(middles),
            data<const std::int64_t>(places),
            data<const std::int32_t>(neighbors),
            data<const std::int32_t>(pairs)};
  }
  int channels() const { return static_cast<int>(values.size(1) / paths.size(0)); }

  template <class T>
  void set_tensors(equivariant::Convolution<T>& c) const {
    c.sources = data<const T>(sources);
    c.values = data<const T>(values);
    c.slopes = data<const T>(slopes);
    c.harmonics = data<const T>(harmonics);
  }
};

/// What all ops of the contraction begin with, in the order of the schema.
struct Polynomials {
  Tensor nodes, leaves, targets, sizes, target_sizes, counts, messages, weights;
  int num_threads;

  explicit Polynomials(Arguments& a)
      : nodes(a.tensor()),
        leaves(a.tensor()),
        targets(a.tensor()),
        sizes(a.tensor()),
        target_sizes(a.tensor()),
        counts(a.tensor()),
        messages(a.tensor()),
        weights(a.tensor()),
        num_threads(static_cast<int>(a.integer())) {}

  int channels() const { return static_cast<int>(weights.size(2)); }
  std::int64_t num_atoms() const {
    std::int64_t components = 0;
    for (const std::int64_t size : span_of<const std::int64_t>(sizes)) components += size;
    return messages.numel() / (components * channels());
  }

  /// Calls body(arguments), for a kernel.
  template <class T, class Body>
  void with_arguments(const Body& body) const {
    const std::int64_t atoms = num_atoms();
    const equivariant::Layout layout(span_of<const std::int64_t>(sizes), atoms, channels()),
        results(span_of<const std::int64_t>(target_sizes), atoms, channels());
    equivariant::Contraction<T> c{};
    c.channels = channels();
    c.num_components = static_cast<int>(layout.places.size());
    c.num_terms = static_cast<int>(targets.numel());
    c.num_targets = static_cast<int>(results.places.size());
    c.num_nodes = static_cast<int>(nodes.size(0)) - 1;
    c.nodes = reinterpret_cast<const equivariant::Node*>(data<const std::int32_t>(nodes));
    c.leaves = reinterpret_cast<const equivariant::Leaf*>(data<const std::int32_t>(leaves));
    c.targets = data<const std::int32_t>(targets);
    c.places = layout.places.data();
    c.strides = layout.strides.data();
    c.target_places = results.places.data();
    c.target_strides = results.strides.data();
    c.messages = data<const T>(messages);
    c.weights = data<const T>(weights);
    body(c);
  }
};

}  // namespace nearsight
