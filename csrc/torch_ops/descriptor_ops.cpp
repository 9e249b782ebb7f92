// Descriptors for training: forward, reverse and tangent, each linear in its last input, so that they are one
// another's derivatives. The autograd formulas stand in Python (nearsight.models.native); native inference
// needs none.
#include <algorithm>
#include <numeric>
#include <vector>

#include "core/engine/threads.hpp"
#include "core/models/design/design.hpp"
#include "core/models/training_descriptor.hpp"
#include "torch_ops/device.hpp"

namespace {

using namespace nearsight;

/// Arguments that the ops share, in the order of the schemas.
struct Call {
  std::int64_t handle;
  Tensor species, offsets, neighbors, vectors, input, output;
  std::int64_t num_threads;

  explicit Call(StableIValue* stack)
      : handle(argument<std::int64_t>(stack[0])),
        species(argument<Tensor>(stack[1])),
        offsets(argument<Tensor>(stack[2])),
        neighbors(argument<Tensor>(stack[3])),
        vectors(argument<Tensor>(stack[4])),
        input(argument<Tensor>(stack[5])),
        output(argument<Tensor>(stack[6])),
        num_threads(argument<std::int64_t>(stack[7])) {}

  TrainingDescriptor& training_descriptor() const { return *reinterpret_cast<TrainingDescriptor*>(handle); }
  const Descriptor& descriptor() const { return training_descriptor().on_cpu(); }

  /// Every atom is a center; `atoms` holds their numbers.
  Graph graph(std::vector<int>& atoms) const {
    Graph graph;
    graph.offsets = span_of<const std::int64_t>(offsets);
    graph.num_rows = graph.offsets.size() - 1;
    atoms.resize(graph.num_rows);
    std::iota(atoms.begin(), atoms.end(), 0);
    graph.species = span_of<const int>(species);
    graph.centers = atoms;
    graph.neighbors = span_of<const int>(neighbors);
    graph.vectors = span_of<const double>(vectors);
    return graph;
  }

  /// Calls body(workspace, graph, centers) for all centers, a tile at a time, in threads.
  template <class Body>
  void for_tiles(const Body& body) const {
    const Descriptor& descriptor = this->descriptor();
    std::vector<int> atoms;
    const Graph graph = this->graph(atoms);
    const std::vector<std::size_t> numbers(atoms.begin(), atoms.end());
    const Span<const std::size_t> all(numbers);
    const std::size_t tile = descriptor.tile();
    ThreadPool threads(static_cast<int>(num_threads));
    threads.split((all.size() + tile - 1) / tile, [&](int, std::size_t first, std::size_t last) {
      const auto workspace = descriptor.make_workspace(true);
      for (std::size_t k = first; k < last; ++k)
        body(*workspace, graph, all.subspan(k * tile, std::min(tile, all.size() - k * tile)));
    });
  }
};

void descriptor_forward(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  double* const features = span_of<double>(call.output).data();
  const std::size_t width = call.output.size(1);
  call.for_tiles([&](auto& workspace, const Graph& graph, Span<const std::size_t> centers) {
    workspace.forward(graph, centers, features + centers[0] * width, width);
  });
}

void descriptor_reverse(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  const double* const cotangents = span_of<const double>(call.input).data();
  const Span<double> gradients = span_of<double>(call.output);
  const std::size_t width = call.input.size(1);
  call.for_tiles([&](auto& workspace, const Graph& graph, Span<const std::size_t> centers) {
    std::vector<double> features(centers.size() * width);
    workspace.prepare(graph, centers, features.data(), width);
    workspace.reverse(graph, centers, cotangents + centers[0] * width, width, gradients);
  });
}

void descriptor_tangent(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  const Span<const double> directions = span_of<const double>(call.input);
  double* const tangents = span_of<double>(call.output).data();
  const std::size_t width = call.output.size(1);
  call.for_tiles([&](auto& workspace, const Graph& graph, Span<const std::size_t> centers) {
    workspace.tangent(graph, centers, directions, tangents + centers[0] * width, width);
  });
}

void descriptor_jacobian(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  float* const jacobian = span_of<float>(call.output).data();
  const std::size_t width = call.output.size(2);
  call.for_tiles([&](auto& workspace, const Graph& graph, Span<const std::size_t> centers) {
    std::vector<double> rows;
    for (const std::size_t center : centers) {
      const std::size_t first = 3 * graph.offsets[center] * width,
                        last = 3 * graph.offsets[center + 1] * width;
      rows.assign(last - first, 0.0);
      workspace.jacobian(graph, center, rows.data(), width);
      std::copy(rows.begin(), rows.end(), jacobian + first);
    }
  });
}

/// first_atom [frames + 1] stands in the place of the input; energy, forces and virial follow the threads.
void descriptor_design(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  std::vector<int> atoms;
  const Graph graph = call.graph(atoms);
  const auto num_species = argument<std::int64_t>(stack[8]);
  const Tensor forces = argument<Tensor>(stack[9]);
  const Tensor virial = argument<Tensor>(stack[10]);
  const DesignRows rows{span_of<double>(call.output).data(), span_of<double>(forces).data(),
                        span_of<double>(virial).data()};
  ThreadPool threads(static_cast<int>(call.num_threads));
  design_rows(call.descriptor(), static_cast<int>(num_species), graph,
              span_of<const std::int64_t>(call.input), rows, threads);
}

// ---- on a GPU ----

/// Calls body(twin, scope, centers, input, output).
template <class Body>
void on_device(StableIValue* stack, const Body& body) {
  const Call call(stack);
  const DeviceCenters centers{call.species.numel(),
                              call.neighbors.numel(),
                              span_of<const std::int32_t>(call.species).data(),
                              span_of<const std::int64_t>(call.offsets).data(),
                              span_of<const std::int32_t>(call.neighbors).data(),
                              span_of<const double>(call.vectors).data()};
  TorchScope scope(call.vectors);
  call.training_descriptor().on_device(
      scope, [&](DeviceDescriptor& twin) { body(twin, scope, centers, call.input, call.output); });
}

void device_forward(StableIValue* stack, std::uint64_t, std::uint64_t) {
  on_device(stack, [](auto& twin, auto& scope, auto& centers, const Tensor&, const Tensor& output) {
    twin.forward(scope, centers, span_of<double>(output).data(), static_cast<int>(output.size(1)));
  });
}

void device_reverse(StableIValue* stack, std::uint64_t, std::uint64_t) {
  on_device(stack, [](auto& twin, auto& scope, auto& centers, const Tensor& input, const Tensor& output) {
    twin.reverse(scope, centers, span_of<const double>(input).data(), static_cast<int>(input.size(1)),
                 span_of<double>(output).data());
  });
}

void device_tangent(StableIValue* stack, std::uint64_t, std::uint64_t) {
  on_device(stack, [](auto& twin, auto& scope, auto& centers, const Tensor& input, const Tensor& output) {
    twin.tangent(scope, centers, span_of<const double>(input).data(), span_of<double>(output).data(),
                 static_cast<int>(output.size(1)));
  });
}

// `handle` is that of nearsight.lib._core.Descriptor. Contiguous float64 tensors, int32 species [centers] and
// neighbors [edges], int64 offsets [centers + 1]; features, cotangents and tangents are [centers, width] with
// width >= the features of any species. The Jacobian is float32 [edges, 3, width]. The rows of
// descriptor_design are zero when it is called, see core/models/design/design.hpp. A GPU has no Jacobian and
// no design; all tensors are there.
#define NEARSIGHT_DESCRIPTOR_SCHEMA(name, input)                                                      \
  name "(int handle, Tensor species, Tensor offsets, Tensor neighbors, Tensor vectors, Tensor " input \
       ", Tensor(a!) output, int num_threads) -> ()"

template <class Library>
void define_ops(Library& m) {
  m.def(NEARSIGHT_DESCRIPTOR_SCHEMA("descriptor_forward", "unused"));
  m.def(NEARSIGHT_DESCRIPTOR_SCHEMA("descriptor_reverse", "cotangents"));
  m.def(NEARSIGHT_DESCRIPTOR_SCHEMA("descriptor_tangent", "directions"));
  m.def(NEARSIGHT_DESCRIPTOR_SCHEMA("descriptor_jacobian", "unused"));
  m.def(
      "descriptor_design(int handle, Tensor species, Tensor offsets, Tensor neighbors, Tensor vectors, "
      "Tensor first_atom, Tensor(a!) energy, int num_threads, int num_species, Tensor(b!) forces, "
      "Tensor(c!) virial) -> ()");
}

template <class Library>
void implement_on_device(Library& m) {
  m.impl("descriptor_forward", &device_forward);
  m.impl("descriptor_reverse", &device_reverse);
  m.impl("descriptor_tangent", &device_tangent);
}

}  // namespace

STABLE_TORCH_LIBRARY(nearsight, m) {
  define_ops(m);
}
STABLE_TORCH_LIBRARY(nearsight_device, m) {
  define_ops(m);
}

STABLE_TORCH_LIBRARY_IMPL(nearsight, CPU, m) {
  m.impl("descriptor_forward", &descriptor_forward);
  m.impl("descriptor_reverse", &descriptor_reverse);
  m.impl("descriptor_tangent", &descriptor_tangent);
  m.impl("descriptor_jacobian", &descriptor_jacobian);
  m.impl("descriptor_design", &descriptor_design);
}
STABLE_TORCH_LIBRARY_IMPL(nearsight, CUDA, m) {
  implement_on_device(m);
}
STABLE_TORCH_LIBRARY_IMPL(nearsight_device, CPU, m) {
  implement_on_device(m);
}
