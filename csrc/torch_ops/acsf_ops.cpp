// Symmetry functions for training: forward, reverse and tangent, each linear in its last input, so that they
// are one another's derivatives. The autograd formulas stand in Python (nearsight.models.native); native
// inference needs none.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "core/engine/error.hpp"
#include "core/engine/threads.hpp"
#include "core/models/bpnn/acsf.hpp"

#if !__has_include(<torch/headeronly/version.h>)
namespace torch::stable::detail {
using ::to;  // torch 2.9 has it in the global namespace
}
#endif

namespace {

using namespace nearsight;
using bpnn::SymmetryFunction;
using torch::stable::Tensor;

constexpr int kRow = 9;  // columns of the table of functions

template <class T>
Span<T> span_of(const Tensor& tensor) {
  return {static_cast<T*>(tensor.data_ptr()), static_cast<std::size_t>(tensor.numel())};
}

/// Columns: kind, center, neighbor1, neighbor2, eta, r_shift, lambda, zeta, cutoff.
std::vector<SymmetryFunction> read_functions(Span<const double> table) {
  std::vector<SymmetryFunction> functions;
  for (std::size_t k = 0; k + kRow <= table.size(); k += kRow) {
    const double* const f = table.data() + k;
    functions.push_back({static_cast<SymmetryFunction::Kind>(static_cast<int>(f[0])), static_cast<int>(f[1]),
                         static_cast<int>(f[2]), static_cast<int>(f[3]), f[4], f[5], f[6], f[7], f[8]});
  }
  return functions;
}

/// Arguments that the three ops share, in the order of the schemas.
struct Call {
  Tensor functions, species, offsets, neighbors, vectors, input, output;
  std::int64_t num_species, cutoff_function, num_threads;

  explicit Call(StableIValue* stack)
      : functions(torch::stable::detail::to<Tensor>(stack[0])),
        species(torch::stable::detail::to<Tensor>(stack[3])),
        offsets(torch::stable::detail::to<Tensor>(stack[4])),
        neighbors(torch::stable::detail::to<Tensor>(stack[5])),
        vectors(torch::stable::detail::to<Tensor>(stack[6])),
        input(torch::stable::detail::to<Tensor>(stack[7])),
        output(torch::stable::detail::to<Tensor>(stack[8])),
        num_species(torch::stable::detail::to<std::int64_t>(stack[1])),
        cutoff_function(torch::stable::detail::to<std::int64_t>(stack[2])),
        num_threads(torch::stable::detail::to<std::int64_t>(stack[9])) {}

  /// Calls body(workspace, center, first edge) for every center, in threads.
  template <class Body>
  void for_centers(const Body& body) const {
    const bpnn::Acsf<double> acsf(read_functions(span_of<const double>(functions)),
                                  static_cast<int>(num_species),
                                  static_cast<bpnn::CutoffFunction>(cutoff_function));
    Graph graph;
    graph.offsets = span_of<const std::int64_t>(offsets);
    graph.num_rows = graph.offsets.size() - 1;
    std::vector<int> centers(graph.num_rows);
    for (std::size_t c = 0; c < centers.size(); ++c) centers[c] = static_cast<int>(c);
    graph.species = span_of<const int>(species);
    graph.centers = centers;
    graph.neighbors = span_of<const int>(neighbors);
    graph.vectors = span_of<const double>(vectors);
    ThreadPool threads(static_cast<int>(num_threads));
    threads.split(graph.num_rows, [&](int, std::size_t first, std::size_t last) {
      bpnn::AcsfWorkspace<double> workspace(acsf);
      for (std::size_t c = first; c < last; ++c) {
        workspace.load(graph, c);
        body(workspace, c, graph.offsets[c]);
      }
    });
  }
};

void acsf_forward(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  double* const features = span_of<double>(call.output).data();
  const std::size_t width = call.output.size(1);
  call.for_centers(
      [&](auto& workspace, std::size_t c, std::int64_t) { workspace.features(features + c * width); });
}

void acsf_reverse(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  const double* const cotangents = span_of<const double>(call.input).data();
  double* const gradients = span_of<double>(call.output).data();
  const std::size_t width = call.input.size(1);
  call.for_centers([&](auto& workspace, std::size_t c, std::int64_t edge) {
    workspace.reverse(cotangents + c * width, gradients + 3 * edge);
  });
}

void acsf_tangent(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  const double* const directions = span_of<const double>(call.input).data();
  double* const tangents = span_of<double>(call.output).data();
  const std::size_t width = call.output.size(1);
  call.for_centers([&](auto& workspace, std::size_t c, std::int64_t edge) {
    workspace.tangent(directions + 3 * edge, tangents + c * width);
  });
}

}  // namespace

// Contiguous float64 tensors, int32 species [centers] and neighbors [edges], int64 offsets [centers + 1];
// features, cotangents and tangents are [centers, width] with width >= the functions of any species.
#define NEARSIGHT_ACSF_SCHEMA(name, input)                                                         \
  name "(Tensor functions, int num_species, int cutoff_function, Tensor species, Tensor offsets, " \
       "Tensor neighbors, Tensor vectors, Tensor " input ", Tensor(a!) output, int num_threads) -> ()"

STABLE_TORCH_LIBRARY(nearsight, m) {
  m.def(NEARSIGHT_ACSF_SCHEMA("acsf_forward", "unused"));
  m.def(NEARSIGHT_ACSF_SCHEMA("acsf_reverse", "cotangents"));
  m.def(NEARSIGHT_ACSF_SCHEMA("acsf_tangent", "directions"));
}

STABLE_TORCH_LIBRARY_IMPL(nearsight, CPU, m) {
  m.impl("acsf_forward", &acsf_forward);
  m.impl("acsf_reverse", &acsf_reverse);
  m.impl("acsf_tangent", &acsf_tangent);
}
