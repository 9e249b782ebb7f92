// Passes through the networks of one species for training. The autograd formulas stand in Python
// (nearsight.models.native_networks).
#include <algorithm>

#include "core/models/networks/device.hpp"
#include "torch_ops/device.hpp"

namespace {

using namespace nearsight;
using networks::NetworkShape;
using networks::Passes;

/// Null if it is empty.
double* data(const Tensor& tensor) {
  return tensor.numel() ? span_of<double>(tensor).data() : nullptr;
}

constexpr double kWorkOfThread =
    5e6;  // products of numbers below which a second thread costs more than it saves

/// Arguments that the ops share, in the order of the schemas.
struct Call {
  NetworkShape shape;
  Tensor weights, atoms, table, shift, state;
  int num_threads;

  explicit Call(StableIValue* stack)
      : weights(argument<Tensor>(stack[1])),
        atoms(argument<Tensor>(stack[2])),
        table(argument<Tensor>(stack[3])),
        shift(argument<Tensor>(stack[4])),
        state(argument<Tensor>(stack[5])),
        num_threads(static_cast<int>(argument<std::int64_t>(stack[6]))) {
    const Tensor numbers = argument<Tensor>(stack[0]);
    const int* n = span_of<const int>(numbers).data();
    shape.members = *n++;
    const int layers = *n++;
    shape.widths.assign(n, n + layers + 1);
    for (n += layers + 1; shape.layers() < layers; ++n)
      shape.activations.push_back(static_cast<networks::Activation>(*n));
  }

  ThreadPool threads() const {
    const double work = static_cast<double>(atoms.numel()) * weights.numel();
    return ThreadPool(std::min(num_threads, 1 + static_cast<int>(work / kWorkOfThread)));
  }
  networks::Inputs inputs() const {
    return {span_of<const std::int64_t>(atoms), data(table), static_cast<std::size_t>(table.size(1)),
            data(shift)};
  }
};

void network_values(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  ThreadPool threads = call.threads();
  Passes(call.shape, data(call.weights), threads)
      .values(call.inputs(), data(call.state), data(argument<Tensor>(stack[7])));
}

void network_gradient(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  ThreadPool threads = call.threads();
  const networks::Inputs inputs = call.inputs();
  Passes(call.shape, data(call.weights), threads)
      .gradient(inputs.atoms, data(call.state), data(argument<Tensor>(stack[7])),
                data(argument<Tensor>(stack[8])), inputs.stride);
}

void network_weights(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  ThreadPool threads = call.threads();
  Passes(call.shape, data(call.weights), threads)
      .weights(call.inputs(), data(call.state), data(argument<Tensor>(stack[7])),
               data(argument<Tensor>(stack[8])));
}

void network_second(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  ThreadPool threads = call.threads();
  Passes(call.shape, data(call.weights), threads)
      .second(call.inputs(), data(call.state), data(argument<Tensor>(stack[7])),
              data(argument<Tensor>(stack[8])), data(argument<Tensor>(stack[9])),
              data(argument<Tensor>(stack[10])), data(argument<Tensor>(stack[11])));
}

// ---- on a GPU ----

void device_values(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  TorchScope scope(call.table);
  networks::device_passes().values(scope, call.shape, data(call.weights), call.inputs(), data(call.state),
                                   data(argument<Tensor>(stack[7])));
}

void device_gradient(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  TorchScope scope(call.table);
  networks::device_passes().gradient(scope, call.shape, data(call.weights), call.inputs(), data(call.state),
                                     data(argument<Tensor>(stack[7])), data(argument<Tensor>(stack[8])));
}

void device_weights(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  TorchScope scope(call.table);
  networks::device_passes().weights(scope, call.shape, data(call.weights), call.inputs(), data(call.state),
                                    data(argument<Tensor>(stack[7])), data(argument<Tensor>(stack[8])));
}

void device_second(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  TorchScope scope(call.table);
  networks::device_passes().second(scope, call.shape, data(call.weights), call.inputs(), data(call.state),
                                   data(argument<Tensor>(stack[7])), data(argument<Tensor>(stack[8])),
                                   data(argument<Tensor>(stack[9])), data(argument<Tensor>(stack[10])),
                                   data(argument<Tensor>(stack[11])));
}

// int32 shape: members, layers, widths [layers + 1], activations [layers] by their numbers in the core.
// Contiguous float64 tensors: weights and their gradients [members, weights], table, directions and gradients
// by the table [all atoms, width], shift [inputs], state [atoms of the species, …], outputs and cotangents
// [all atoms, members * outputs]; int64 atoms of the species, whose rows are written. An output without
// elements is not evaluated. For a GPU all tensors but `shape` are there.
#define NEARSIGHT_NETWORK_SCHEMA(name, state, more)                                      \
  name "(Tensor shape, Tensor weights, Tensor atoms, Tensor table, Tensor shift, " state \
       " state, int num_threads, " more ") -> ()"

template <class Library>
void define_ops(Library& m) {
  m.def(NEARSIGHT_NETWORK_SCHEMA("network_values", "Tensor(a!)", "Tensor(b!) outputs"));
  m.def(NEARSIGHT_NETWORK_SCHEMA("network_gradient", "Tensor", "Tensor cotangents, Tensor(a!) gradient"));
  m.def(NEARSIGHT_NETWORK_SCHEMA("network_weights", "Tensor", "Tensor cotangents, Tensor(a!) of_weights"));
  m.def(NEARSIGHT_NETWORK_SCHEMA("network_second", "Tensor",
                                 "Tensor cotangents, Tensor directions, Tensor(a!) of_weights, "
                                 "Tensor(b!) of_cotangents, Tensor(c!) of_table"));
}

template <class Library>
void implement_on_device(Library& m) {
  m.impl("network_values", &device_values);
  m.impl("network_gradient", &device_gradient);
  m.impl("network_weights", &device_weights);
  m.impl("network_second", &device_second);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(nearsight, m) {
  define_ops(m);
}
STABLE_TORCH_LIBRARY_FRAGMENT(nearsight_device, m) {
  define_ops(m);
}

STABLE_TORCH_LIBRARY_IMPL(nearsight, CPU, m) {
  m.impl("network_values", &network_values);
  m.impl("network_gradient", &network_gradient);
  m.impl("network_weights", &network_weights);
  m.impl("network_second", &network_second);
}
STABLE_TORCH_LIBRARY_IMPL(nearsight, CUDA, m) {
  implement_on_device(m);
}
STABLE_TORCH_LIBRARY_IMPL(nearsight_device, CPU, m) {
  implement_on_device(m);
}
