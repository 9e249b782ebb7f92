// The ops of equivariant_ops.cpp and edge_ops.cpp on a GPU; the schemas are there.
#include "core/models/equivariant/device.hpp"
#include "torch_ops/device.hpp"
#include "torch_ops/equivariant_arguments.hpp"

namespace {

using namespace nearsight;
using namespace nearsight::equivariant;

void edge_pairs(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor offsets = arguments.tensor(), neighbors = arguments.tensor(), vectors = arguments.tensor();
  const Tensor order = arguments.tensor(), middles = arguments.tensor(), pairs = arguments.tensor(),
               firsts = arguments.tensor(), count = arguments.tensor();
  TorchScope scope(offsets);
  device_edge_kernels().pair(scope, offsets.numel() - 1, neighbors.numel(), data<const std::int64_t>(offsets),
                             data<const std::int64_t>(neighbors), data<const double>(vectors),
                             data<std::int64_t>(order), data<std::int64_t>(middles),
                             data<std::int32_t>(pairs), data<std::int64_t>(firsts),
                             data<std::int64_t>(count));
}

FrameEdges frame_edges(const Tensor& index, const Tensor& frame, const Tensor& vectors,
                       const Tensor& virials) {
  const std::int64_t* const centers = data<const std::int64_t>(index);
  return {index.size(1),
          frame.numel(),
          virials.size(0),
          centers,
          centers + index.size(1),
          data<const std::int64_t>(frame),
          data<const double>(vectors)};
}

void edge_sums(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor index = arguments.tensor(), frame = arguments.tensor(), vectors = arguments.tensor();
  const Tensor gradients = arguments.tensor(), forces = arguments.tensor(), virials = arguments.tensor();
  TorchScope scope(vectors);
  device_edge_kernels().sums(scope, frame_edges(index, frame, vectors, virials),
                             data<const double>(gradients), data<double>(forces), data<double>(virials));
}

void edge_differences(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor index = arguments.tensor(), frame = arguments.tensor(), vectors = arguments.tensor();
  const Tensor forces = arguments.tensor(), virials = arguments.tensor(), output = arguments.tensor();
  TorchScope scope(vectors);
  device_edge_kernels().differences(scope, frame_edges(index, frame, vectors, virials),
                                    data<const double>(forces), data<const double>(virials),
                                    data<double>(output));
}

// ---- sums over edges ----

/// Calls body(kernels, scope, arguments) for the type of the features.
template <class Body>
void with_convolution(const Graphs& g, const Body& body) {
  with_type_of(g.values, [&](auto type) {
    using T = decltype(type);
    TorchScope scope(g.values);
    const Paths paths(span_of<const std::int64_t>(g.paths), g.middles.numel(), g.channels());
    Convolution<T> c{};
    c.graph = g.graph();
    c.channels = g.channels();
    c.components = paths.components;
    c.num_paths = static_cast<int>(paths.list.size());
    c.num_harmonics = static_cast<int>(g.couplings.size(0));
    c.num_phi = paths.num_phi;
    c.paths = paths.list.data();
    c.dense = data<const T>(g.couplings);
    g.set_tensors(c);
    body(device_kernels<T>(), scope, c);
  });
}

void edge_convolution(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Graphs graphs(arguments);
  const Tensor output = arguments.tensor();
  with_convolution(graphs, [&](const auto& kernels, TorchScope& scope, auto& c) {
    c.sums = data<std::remove_pointer_t<decltype(c.sums)>>(output);
    kernels.convolve(scope, c);
  });
}

void edge_convolution_by_geometry(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Graphs graphs(arguments);
  const Tensor adjoints = arguments.tensor(), by_sources = arguments.tensor(),
               by_distances = arguments.tensor(), by_harmonics = arguments.tensor();
  with_convolution(graphs, [&](const auto& kernels, TorchScope& scope, auto& c) {
    using T = std::remove_pointer_t<decltype(c.sums)>;
    c.adjoints = data<const T>(adjoints);
    c.harmonic_adjoints = data<T>(by_harmonics);
    c.distance_adjoints = data<double>(by_distances);
    kernels.by_geometry(scope, c, data<T>(by_sources));
  });
}

void edge_convolution_by_parameters(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Graphs graphs(arguments);
  const Tensor adjoints = arguments.tensor(), by_sources = arguments.tensor(), by_values = arguments.tensor();
  with_convolution(graphs, [&](const auto& kernels, TorchScope& scope, auto& c) {
    using T = std::remove_pointer_t<decltype(c.sums)>;
    c.adjoints = data<const T>(adjoints);
    c.value_adjoints = data<T>(by_values);
    kernels.by_parameters(scope, c, data<T>(by_sources));
  });
}

void edge_convolution_of_tangent(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Graphs graphs(arguments);
  const Tensor adjoints = arguments.tensor(), along_sources = arguments.tensor(),
               along_distances = arguments.tensor(), along_harmonics = arguments.tensor();
  const Tensor output = arguments.tensor(), by_sources = arguments.tensor(), by_values = arguments.tensor(),
               by_slopes = arguments.tensor();
  with_convolution(graphs, [&](const auto& kernels, TorchScope& scope, auto& c) {
    using T = std::remove_pointer_t<decltype(c.sums)>;
    c.adjoints = data<const T>(adjoints);
    c.source_tangents = data<const T>(along_sources);
    c.distance_tangents = data<const double>(along_distances);
    c.harmonic_tangents = data<const T>(along_harmonics);
    c.sums = data<T>(output);
    c.value_adjoints = data<T>(by_values);
    c.slope_adjoints = data<T>(by_slopes);
    kernels.of_tangent(scope, c, data<T>(by_sources));
  });
}

// ---- polynomials of messages ----

/// Calls body(kernels, scope, arguments, counts) for the type of the features.
template <class Body>
void with_contraction(const Polynomials& p, const Body& body) {
  with_type_of(p.weights, [&](auto type) {
    using T = decltype(type);
    TorchScope scope(p.weights);
    const Counts counts{p.num_atoms(), p.counts.numel(), data<const std::int64_t>(p.counts)};
    p.with_arguments<T>([&](Contraction<T>& c) { body(device_kernels<T>(), scope, c, counts); });
  });
}

void message_contraction(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Polynomials polynomials(arguments);
  const Tensor output = arguments.tensor();
  with_contraction(polynomials, [&](const auto& kernels, TorchScope& scope, auto& c, const Counts& counts) {
    c.products = data<std::remove_pointer_t<decltype(c.products)>>(output);
    kernels.contract(scope, c, counts);
  });
}

void message_contraction_reverse(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Polynomials polynomials(arguments);
  const Tensor adjoints = arguments.tensor(), by_messages = arguments.tensor(),
               by_weights = arguments.tensor();
  with_contraction(polynomials, [&](const auto& kernels, TorchScope& scope, auto& c, const Counts& counts) {
    using T = std::remove_pointer_t<decltype(c.products)>;
    c.adjoints = data<const T>(adjoints);
    c.message_adjoints = data<T>(by_messages);
    c.weight_adjoints = data<T>(by_weights);
    kernels.contract_reverse(scope, c, counts);
  });
}

void message_contraction_tangent(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Polynomials polynomials(arguments);
  const Tensor adjoints = arguments.tensor(), along_messages = arguments.tensor(),
               along_weights = arguments.tensor();
  const Tensor output = arguments.tensor(), by_messages = arguments.tensor(), by_weights = arguments.tensor();
  with_contraction(polynomials, [&](const auto& kernels, TorchScope& scope, auto& c, const Counts& counts) {
    using T = std::remove_pointer_t<decltype(c.products)>;
    c.adjoints = data<const T>(adjoints);
    c.message_tangents = data<const T>(along_messages);
    c.weight_tangents = data<const T>(along_weights);
    c.products = data<T>(output);
    c.message_adjoints = data<T>(by_messages);
    c.weight_adjoints = data<T>(by_weights);
    kernels.contract_tangent(scope, c, counts);
  });
}

// ---- functions of edges ----

void edge_harmonics(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor vectors = arguments.tensor(), output = arguments.tensor();
  const auto l_max = static_cast<int>(arguments.integer());
  TorchScope scope(vectors);
  with_type_of(output, [&](auto type) {
    using T = decltype(type);
    device_kernels<T>().harmonics(scope, data<const double>(vectors), vectors.size(0), l_max,
                                  data<T>(output));
  });
}

void edge_harmonics_reverse(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor vectors = arguments.tensor(), adjoints = arguments.tensor(), output = arguments.tensor();
  const auto l_max = static_cast<int>(arguments.integer());
  TorchScope scope(vectors);
  with_type_of(adjoints, [&](auto type) {
    using T = decltype(type);
    device_kernels<T>().harmonics_reverse(scope, data<const double>(vectors), vectors.size(0), l_max,
                                          data<const T>(adjoints), data<double>(output));
  });
}

void edge_harmonics_tangent(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor vectors = arguments.tensor(), directions = arguments.tensor(), output = arguments.tensor();
  const auto l_max = static_cast<int>(arguments.integer());
  TorchScope scope(vectors);
  with_type_of(output, [&](auto type) {
    using T = decltype(type);
    device_kernels<T>().harmonics_tangent(scope, data<const double>(vectors), vectors.size(0), l_max,
                                          data<const double>(directions), data<T>(output));
  });
}

void dual_silu(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor x = arguments.tensor(), output = arguments.tensor();
  TorchScope scope(x);
  with_type_of(x, [&](auto type) {
    using T = decltype(type);
    device_kernels<T>().silu(scope, data<const T>(x), data<T>(output), x.numel() / 2);
  });
}

void dual_silu_reverse(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor x = arguments.tensor(), adjoints = arguments.tensor(), output = arguments.tensor();
  TorchScope scope(x);
  with_type_of(x, [&](auto type) {
    using T = decltype(type);
    device_kernels<T>().silu_reverse(scope, data<const T>(x), data<const T>(adjoints), data<T>(output),
                                     x.numel() / 2);
  });
}

template <class Library>
void implement_ops(Library& m) {
  m.impl("edge_pairs", &edge_pairs);
  m.impl("edge_sums", &edge_sums);
  m.impl("edge_differences", &edge_differences);
  m.impl("edge_convolution", &edge_convolution);
  m.impl("edge_convolution_by_geometry", &edge_convolution_by_geometry);
  m.impl("edge_convolution_by_parameters", &edge_convolution_by_parameters);
  m.impl("edge_convolution_of_tangent", &edge_convolution_of_tangent);
  m.impl("message_contraction", &message_contraction);
  m.impl("message_contraction_reverse", &message_contraction_reverse);
  m.impl("message_contraction_tangent", &message_contraction_tangent);
  m.impl("edge_harmonics", &edge_harmonics);
  m.impl("edge_harmonics_reverse", &edge_harmonics_reverse);
  m.impl("edge_harmonics_tangent", &edge_harmonics_tangent);
  m.impl("dual_silu", &dual_silu);
  m.impl("dual_silu_reverse", &dual_silu_reverse);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(nearsight, CUDA, m) {
  implement_ops(m);
}
STABLE_TORCH_LIBRARY_IMPL(nearsight_device, CPU, m) {
  implement_ops(m);
}
