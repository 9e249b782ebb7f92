// Forces and virials from the gradients of the edges, and the transpose of that linear map, for training.
#include "torch_ops/stable.hpp"

namespace {

using namespace nearsight;

/// What both ops begin with. `edges` are centers, then neighbors.
struct Edges {
  Tensor index, frame, vectors;
  std::size_t count;
  const std::int64_t *center, *neighbor, *frames;
  const double* vector;

  explicit Edges(StableIValue* stack)
      : index(argument<Tensor>(stack[0])),
        frame(argument<Tensor>(stack[1])),
        vectors(argument<Tensor>(stack[2])),
        count(static_cast<std::size_t>(index.size(1))),
        center(span_of<const std::int64_t>(index).data()),
        neighbor(center + count),
        frames(span_of<const std::int64_t>(frame).data()),
        vector(span_of<const double>(vectors).data()) {}
};

/// F_i += g, F_j -= g, W -= (r g' + g r') / 2 for every edge with gradient g = dE/dr.
void edge_sums(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Edges edges(stack);
  const Tensor gradients = argument<Tensor>(stack[3]), forces = argument<Tensor>(stack[4]),
               virials = argument<Tensor>(stack[5]);
  const double* const g = span_of<const double>(gradients).data();
  double* const force = span_of<double>(forces).data();
  double* const virial = span_of<double>(virials).data();
  for (std::size_t e = 0; e < edges.count; ++e) {
    const double* const r = edges.vector + 3 * e;
    double* const on_center = force + 3 * edges.center[e];
    double* const on_neighbor = force + 3 * edges.neighbor[e];
    double* const w = virial + 9 * edges.frames[edges.center[e]];
    for (int a = 0; a < 3; ++a) {
      on_center[a] += g[3 * e + a];
      on_neighbor[a] -= g[3 * e + a];
      for (int b = 0; b < 3; ++b) w[3 * a + b] -= 0.5 * (r[a] * g[3 * e + b] + g[3 * e + a] * r[b]);
    }
  }
}

/// The transpose: from dL/dF and dL/dW to dL/dg.
void edge_differences(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Edges edges(stack);
  const Tensor forces = argument<Tensor>(stack[3]), virials = argument<Tensor>(stack[4]),
               output = argument<Tensor>(stack[5]);
  const double* const force = span_of<const double>(forces).data();
  const double* const virial = span_of<const double>(virials).data();
  double* const g = span_of<double>(output).data();
  for (std::size_t e = 0; e < edges.count; ++e) {
    const double* const r = edges.vector + 3 * e;
    const double* const on_center = force + 3 * edges.center[e];
    const double* const on_neighbor = force + 3 * edges.neighbor[e];
    const double* const w = virial + 9 * edges.frames[edges.center[e]];
    for (int a = 0; a < 3; ++a) {
      g[3 * e + a] = on_center[a] - on_neighbor[a];
      for (int b = 0; b < 3; ++b) g[3 * e + a] -= 0.5 * (w[3 * a + b] + w[3 * b + a]) * r[b];
    }
  }
}

// Contiguous tensors: edge_index int64 [2, edges], frame int64 [atoms], everything else float64; forces
// [atoms, 3] and virials [frames, 3, 3] begin as zero. For a GPU
// all tensors are there, and `frame` does not fall.
template <class Library>
void define_ops(Library& m) {
  m.def(
      "edge_sums(Tensor edge_index, Tensor frame, Tensor vectors, Tensor gradients, Tensor(a!) forces, "
      "Tensor(b!) virials) -> ()");
  m.def(
      "edge_differences(Tensor edge_index, Tensor frame, Tensor vectors, Tensor forces, Tensor virials, "
      "Tensor(a!) gradients) -> ()");
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(nearsight, m) {
  define_ops(m);
}
STABLE_TORCH_LIBRARY_FRAGMENT(nearsight_device, m) {
  define_ops(m);
}

STABLE_TORCH_LIBRARY_IMPL(nearsight, CPU, m) {
  m.impl("edge_sums", &edge_sums);
  m.impl("edge_differences", &edge_differences);
}
