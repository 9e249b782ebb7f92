// Training of equivariant message passing: the sums over edges and the polynomials of messages with what
// their first and second derivatives need. The autograd formulas stand in Python
// (nearsight.models.equivariant_native).
#include <algorithm>

#include "torch_ops/equivariant_arguments.hpp"

namespace {

using namespace nearsight;
using namespace nearsight::equivariant;

void edge_pairs(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor offsets = arguments.tensor(), neighbors = arguments.tensor(), vectors = arguments.tensor();
  const Tensor order = arguments.tensor(), middles = arguments.tensor(), pairs = arguments.tensor(),
               firsts = arguments.tensor(), count = arguments.tensor();
  const Pairing found = pair_edges(span_of<const std::int64_t>(offsets),
                                   span_of<const std::int64_t>(neighbors), span_of<const double>(vectors));
  std::copy(found.order.begin(), found.order.end(), data<std::int64_t>(order));
  std::copy(found.middles.begin(), found.middles.end(), data<std::int64_t>(middles));
  std::copy(found.pairs.begin(), found.pairs.end(), data<std::int32_t>(pairs));
  std::copy(found.firsts.begin(), found.firsts.end(), data<std::int64_t>(firsts));
  *data<std::int64_t>(count) = static_cast<std::int64_t>(found.firsts.size());
}

// ---- sums over edges ----

template <class T>
EdgeSums<T> sums_of(const Graphs& g) {
  EdgeSums<T> sums(g.graph(), g.channels(), static_cast<int>(g.couplings.size(0)),
                   span_of<const std::int64_t>(g.paths), span_of<const T>(g.couplings));
  g.set_tensors(sums.arguments);
  return sums;
}

void edge_convolution(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Graphs graphs(arguments);
  const Tensor output = arguments.tensor();
  with_type_of(graphs.values, [&](auto type) {
    using T = decltype(type);
    auto sums = sums_of<T>(graphs);
    sums.arguments.sums = data<T>(output);
    ThreadPool threads(graphs.num_threads);
    sums.convolve(threads);
  });
}

void edge_convolution_by_geometry(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Graphs graphs(arguments);
  const Tensor adjoints = arguments.tensor(), by_sources = arguments.tensor(),
               by_distances = arguments.tensor(), by_harmonics = arguments.tensor();
  with_type_of(graphs.values, [&](auto type) {
    using T = decltype(type);
    auto sums = sums_of<T>(graphs);
    sums.arguments.adjoints = data<const T>(adjoints);
    sums.arguments.harmonic_adjoints = data<T>(by_harmonics);
    ThreadPool threads(graphs.num_threads);
    sums.by_geometry(data<T>(by_sources), data<double>(by_distances), threads);
  });
}

void edge_convolution_by_parameters(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Graphs graphs(arguments);
  const Tensor adjoints = arguments.tensor(), by_sources = arguments.tensor(), by_values = arguments.tensor();
  with_type_of(graphs.values, [&](auto type) {
    using T = decltype(type);
    auto sums = sums_of<T>(graphs);
    sums.arguments.adjoints = data<const T>(adjoints);
    sums.arguments.value_adjoints = data<T>(by_values);
    ThreadPool threads(graphs.num_threads);
    sums.by_parameters(data<T>(by_sources), threads);
  });
}

void edge_convolution_of_tangent(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Graphs graphs(arguments);
  const Tensor adjoints = arguments.tensor(), along_sources = arguments.tensor(),
               along_distances = arguments.tensor(), along_harmonics = arguments.tensor();
  const Tensor output = arguments.tensor(), by_sources = arguments.tensor(), by_values = arguments.tensor(),
               by_slopes = arguments.tensor();
  with_type_of(graphs.values, [&](auto type) {
    using T = decltype(type);
    auto sums = sums_of<T>(graphs);
    sums.arguments.adjoints = data<const T>(adjoints);
    sums.arguments.source_tangents = data<const T>(along_sources);
    sums.arguments.distance_tangents = data<const double>(along_distances);
    sums.arguments.harmonic_tangents = data<const T>(along_harmonics);
    sums.arguments.sums = data<T>(output);
    sums.arguments.value_adjoints = data<T>(by_values);
    sums.arguments.slope_adjoints = data<T>(by_slopes);
    ThreadPool threads(graphs.num_threads);
    sums.of_tangent(data<T>(by_sources), threads);
  });
}

// ---- polynomials of messages ----

/// Calls the kernel with the arguments that fill(arguments) completes.
template <class T, class Fill>
void contract_with(const Polynomials& polynomials, Contracted what, const Fill& fill) {
  polynomials.with_arguments<T>([&](Contraction<T>& c) {
    fill(c);
    ThreadPool threads(polynomials.num_threads);
    contract<T>(c, what, span_of<const std::int64_t>(polynomials.counts), threads);
  });
}

void message_contraction(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Polynomials polynomials(arguments);
  const Tensor output = arguments.tensor();
  with_type_of(polynomials.weights, [&](auto type) {
    using T = decltype(type);
    contract_with<T>(polynomials, Contracted::value,
                     [&](Contraction<T>& c) { c.products = data<T>(output); });
  });
}

void message_contraction_reverse(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Polynomials polynomials(arguments);
  const Tensor adjoints = arguments.tensor(), by_messages = arguments.tensor(),
               by_weights = arguments.tensor();
  with_type_of(polynomials.weights, [&](auto type) {
    using T = decltype(type);
    contract_with<T>(polynomials, Contracted::reverse, [&](Contraction<T>& c) {
      c.adjoints = data<const T>(adjoints);
      c.message_adjoints = data<T>(by_messages);
      c.weight_adjoints = data<T>(by_weights);
    });
  });
}

void message_contraction_tangent(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Polynomials polynomials(arguments);
  const Tensor adjoints = arguments.tensor(), along_messages = arguments.tensor(),
               along_weights = arguments.tensor();
  const Tensor output = arguments.tensor(), by_messages = arguments.tensor(), by_weights = arguments.tensor();
  with_type_of(polynomials.weights, [&](auto type) {
    using T = decltype(type);
    contract_with<T>(polynomials, Contracted::tangent, [&](Contraction<T>& c) {
      c.adjoints = data<const T>(adjoints);
      c.message_tangents = data<const T>(along_messages);
      c.weight_tangents = data<const T>(along_weights);
      c.products = data<T>(output);
      c.message_adjoints = data<T>(by_messages);
      c.weight_adjoints = data<T>(by_weights);
    });
  });
}

// ---- functions of edges ----

void edge_harmonics(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor vectors = arguments.tensor(), output = arguments.tensor();
  const auto l_max = static_cast<int>(arguments.integer());
  with_type_of(output, [&](auto type) {
    using T = decltype(type);
    kernels<T>().harmonics(data<const double>(vectors), vectors.size(0), l_max, data<T>(output));
  });
}

void edge_harmonics_reverse(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor vectors = arguments.tensor(), adjoints = arguments.tensor(), output = arguments.tensor();
  const auto l_max = static_cast<int>(arguments.integer());
  with_type_of(adjoints, [&](auto type) {
    using T = decltype(type);
    kernels<T>().harmonics_reverse(data<const double>(vectors), vectors.size(0), l_max,
                                   data<const T>(adjoints), data<double>(output));
  });
}

void edge_harmonics_tangent(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor vectors = arguments.tensor(), directions = arguments.tensor(), output = arguments.tensor();
  const auto l_max = static_cast<int>(arguments.integer());
  with_type_of(output, [&](auto type) {
    using T = decltype(type);
    kernels<T>().harmonics_tangent(data<const double>(vectors), vectors.size(0), l_max,
                                   data<const double>(directions), data<T>(output));
  });
}

void dual_silu(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor x = arguments.tensor(), output = arguments.tensor();
  with_type_of(x, [&](auto type) {
    using T = decltype(type);
    kernels<T>().silu(data<const T>(x), data<T>(output), x.numel() / 2);
  });
}

void dual_silu_reverse(StableIValue* stack, std::uint64_t, std::uint64_t) {
  Arguments arguments(stack);
  const Tensor x = arguments.tensor(), adjoints = arguments.tensor(), output = arguments.tensor();
  with_type_of(x, [&](auto type) {
    using T = decltype(type);
    kernels<T>().silu_reverse(data<const T>(x), data<const T>(adjoints), data<T>(output), x.numel() / 2);
  });
}

// Contiguous tensors; T is float32 or float64, the same for all that are called T. A tensor without elements
// stands for zeros, or for a result that is not wanted. The layout of features is that of `EdgeSums`;
// channels come in whole runs of 64 bytes. The order of atoms in features is `places`, atoms of a species
// together.
//
// offsets int64 [atoms + 1], middles int64 [atoms], places int64 [atoms], neighbors and pairs int32 [edges],
// paths int64 [paths, 4], couplings T [harmonics, Φ], sources T, values and slopes T [pairs, paths *
// channels], harmonics T [edges, harmonics], distances float64 [pairs]. `output`, `by_sources` and
// `by_weights` begin as zero where they are sums.
#define NEARSIGHT_CONVOLUTION                                                                             \
  "(Tensor offsets, Tensor middles, Tensor places, Tensor neighbors, Tensor pairs, Tensor paths, Tensor " \
  "couplings, Tensor sources, Tensor values, Tensor slopes, Tensor harmonics, int num_threads, "
// nodes int32 [nodes + 1, 4], leaves int32 [leaves + 1, 2], targets int32 [terms], sizes and target_sizes
// int64 [irreps], counts int64 [species] of atoms, weights T [species, terms, channels].
#define NEARSIGHT_CONTRACTION                                                                               \
  "(Tensor nodes, Tensor leaves, Tensor targets, Tensor sizes, Tensor target_sizes, Tensor counts, Tensor " \
  "messages, Tensor "                                                                                       \
  "weights, int num_threads, "

//
// For a GPU tensors are there, but paths, sizes and target_sizes, which the host reads.
template <class Library>
void define_ops(Library& m) {
  m.def(
      "edge_pairs(Tensor offsets, Tensor neighbors, Tensor vectors, Tensor(a!) order, Tensor(b!) middles, "
      "Tensor(c!) pairs, Tensor(d!) firsts, Tensor(e!) count) -> ()");
  m.def("edge_convolution" NEARSIGHT_CONVOLUTION "Tensor(a!) output) -> ()");
  m.def("edge_convolution_by_geometry" NEARSIGHT_CONVOLUTION
        "Tensor adjoints, Tensor(a!) by_sources, Tensor(b!) by_distances, Tensor(c!) by_harmonics) -> ()");
  m.def("edge_convolution_by_parameters" NEARSIGHT_CONVOLUTION
        "Tensor adjoints, Tensor(a!) by_sources, Tensor(b!) by_values) -> ()");
  m.def("edge_convolution_of_tangent" NEARSIGHT_CONVOLUTION
        "Tensor adjoints, Tensor along_sources, Tensor along_distances, Tensor along_harmonics, "
        "Tensor(a!) output, Tensor(b!) by_sources, Tensor(c!) by_values, Tensor(d!) by_slopes) -> ()");
  m.def("message_contraction" NEARSIGHT_CONTRACTION "Tensor(a!) output) -> ()");
  m.def("message_contraction_reverse" NEARSIGHT_CONTRACTION
        "Tensor adjoints, Tensor(a!) by_messages, Tensor(b!) by_weights) -> ()");
  m.def("message_contraction_tangent" NEARSIGHT_CONTRACTION
        "Tensor adjoints, Tensor along_messages, Tensor along_weights, Tensor(a!) output, "
        "Tensor(b!) by_messages, Tensor(c!) by_weights) -> ()");
  m.def("edge_harmonics(Tensor vectors, Tensor(a!) output, int l_max) -> ()");
  m.def("edge_harmonics_reverse(Tensor vectors, Tensor adjoints, Tensor(a!) output, int l_max) -> ()");
  m.def("edge_harmonics_tangent(Tensor vectors, Tensor directions, Tensor(a!) output, int l_max) -> ()");
  m.def("dual_silu(Tensor x, Tensor(a!) output) -> ()");
  m.def("dual_silu_reverse(Tensor x, Tensor adjoints, Tensor(a!) output) -> ()");
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(nearsight, m) {
  define_ops(m);
}
// The kernels of GPUs on tensors of the CPU, for tests: see device.hpp.
STABLE_TORCH_LIBRARY_FRAGMENT(nearsight_device, m) {
  define_ops(m);
}

STABLE_TORCH_LIBRARY_IMPL(nearsight, CPU, m) {
  m.impl("edge_pairs", &edge_pairs);
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
