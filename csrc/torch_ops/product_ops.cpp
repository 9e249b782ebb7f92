// Polynomials of moments for training with channels whose weights are trained: values, reverse, and what the
// derivatives of the reverse need. The autograd formulas stand in Python (nearsight.models.native_products).
#include <algorithm>
#include <vector>

#include "core/engine/threads.hpp"
#include "core/models/ace/kernels.hpp"
#include "core/models/shared/aligned.hpp"
#include "core/models/shared/device_training.hpp"
#include "torch_ops/device.hpp"

namespace {

using namespace nearsight;
using ace::Product;

constexpr int kLanes = ace::kRun<double>;  // centers side by side

/// Arguments that the ops share, in the order of the schemas.
struct Call {
  std::vector<Product> terms;
  Tensor first, features, moments;
  std::int64_t num_threads;
  ace::Products products;

  explicit Call(StableIValue* stack)
      : first(argument<Tensor>(stack[0])),
        features(argument<Tensor>(stack[3])),
        moments(argument<Tensor>(stack[4])),
        num_threads(argument<std::int64_t>(stack[5])) {
    const Tensor factors = argument<Tensor>(stack[1]), coefficients = argument<Tensor>(stack[2]);
    const Span<const int> ends = span_of<const int>(factors);
    const Span<const double> c = span_of<const double>(coefficients);
    for (std::size_t t = 0; t < c.size(); ++t) terms.push_back({ends[2 * t], ends[2 * t + 1], c[t]});
    const int first_target = 1 + static_cast<int>(moments.size(1));
    const int num_targets = static_cast<int>(first.numel()) - 1;
    products = {first_target, num_targets, first_target + num_targets, span_of<const int>(first).data(),
                terms.data()};
  }

  /// Calls body(nodes, first center, number of centers, scratch) with all nodes of runs of centers, in
  /// threads. Scratch is `tables` times as large as nodes.
  template <class Body>
  void for_runs(int tables, const Body& body) const {
    const std::size_t count = moments.size(0), size = std::size_t(products.num_nodes) * kLanes;
    ThreadPool threads(static_cast<int>(num_threads));
    threads.split((count + kLanes - 1) / kLanes, [&](int, std::size_t begin, std::size_t end) {
      AlignedBuffer<double> buffer;
      double* const nodes = buffer.resize((1 + tables) * size);
      for (std::size_t run = begin; run < end; ++run) {
        const std::size_t center = run * kLanes, centers = std::min<std::size_t>(kLanes, count - center);
        load_moments(moments, center, centers, nodes);
        std::fill_n(nodes, kLanes, 1.0);
        ace::kernels<double>().products(products, nodes);
        body(nodes, center, centers, nodes + size);
      }
    });
  }

  /// Rows of [n, moments] to the lanes of the nodes; lanes without a center get zeros, as node 0 does.
  void load_moments(const Tensor& rows, std::size_t center, std::size_t centers, double* nodes) const {
    const std::size_t width = rows.size(1);
    const double* const values = span_of<const double>(rows).data() + center * width;
    std::fill_n(nodes, (1 + width) * kLanes, 0.0);
    for (std::size_t lane = 0; lane < centers; ++lane)
      for (std::size_t k = 0; k < width; ++k) nodes[(1 + k) * kLanes + lane] = values[lane * width + k];
  }
  void store_moments(const double* nodes, std::size_t center, std::size_t centers, const Tensor& rows) const {
    const std::size_t width = rows.size(1);
    double* const values = span_of<double>(rows).data() + center * width;
    for (std::size_t lane = 0; lane < centers; ++lane)
      for (std::size_t k = 0; k < width; ++k) values[lane * width + k] = nodes[(1 + k) * kLanes + lane];
  }

  /// Rows of [n, features] to their nodes, zeros to the others.
  void load_features(const Tensor& rows, std::size_t center, std::size_t centers, double* nodes) const {
    const Span<const int> at = span_of<const int>(features);
    const double* const values = span_of<const double>(rows).data() + center * at.size();
    std::fill_n(nodes, std::size_t(products.num_nodes) * kLanes, 0.0);
    for (std::size_t lane = 0; lane < centers; ++lane)
      for (std::size_t k = 0; k < at.size(); ++k) nodes[at[k] * kLanes + lane] = values[lane * at.size() + k];
  }
  void store_features(const double* nodes, std::size_t center, std::size_t centers,
                      const Tensor& rows) const {
    const Span<const int> at = span_of<const int>(features);
    double* const values = span_of<double>(rows).data() + center * at.size();
    for (std::size_t lane = 0; lane < centers; ++lane)
      for (std::size_t k = 0; k < at.size(); ++k) values[lane * at.size() + k] = nodes[at[k] * kLanes + lane];
  }
};

void products_forward(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  const Tensor output = argument<Tensor>(stack[6]);
  call.for_runs(0, [&](const double* nodes, std::size_t center, std::size_t centers, double*) {
    call.store_features(nodes, center, centers, output);
  });
}

void products_reverse(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  const Tensor cotangents = argument<Tensor>(stack[6]), output = argument<Tensor>(stack[7]);
  call.for_runs(1, [&](const double* nodes, std::size_t center, std::size_t centers, double* adjoints) {
    call.load_features(cotangents, center, centers, adjoints);
    ace::kernels<double>().products_reverse(call.products, nodes, adjoints);
    call.store_moments(adjoints, center, centers, output);
  });
}

void products_second(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  const Tensor cotangents = argument<Tensor>(stack[6]), directions = argument<Tensor>(stack[7]),
               of_cotangents = argument<Tensor>(stack[8]), of_moments = argument<Tensor>(stack[9]);
  const std::size_t size = std::size_t(call.products.num_nodes) * kLanes;
  call.for_runs(3, [&](const double* nodes, std::size_t center, std::size_t centers, double* tangents) {
    double *const adjoints = tangents + size, *const curvatures = adjoints + size;
    call.load_moments(directions, center, centers, tangents);
    ace::kernels<double>().products_tangent(call.products, nodes, tangents);
    call.store_features(tangents, center, centers, of_cotangents);
    call.load_features(cotangents, center, centers, adjoints);
    std::fill_n(curvatures, size, 0.0);
    ace::kernels<double>().products_second(call.products, nodes, tangents, adjoints, curvatures);
    call.store_moments(curvatures, center, centers, of_moments);
  });
}

// ---- on a GPU ----

MomentProducts on_device(const Call& call) {
  return {call.products, span_of<const int>(call.features), span_of<const double>(call.moments).data(),
          call.moments.size(0), call.moments.size(1)};
}

void device_forward(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  TorchScope scope(call.moments);
  device_descriptor_kernels().products_forward(scope, on_device(call),
                                               span_of<double>(argument<Tensor>(stack[6])).data());
}

void device_reverse(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  const Tensor cotangents = argument<Tensor>(stack[6]), output = argument<Tensor>(stack[7]);
  TorchScope scope(call.moments);
  device_descriptor_kernels().products_reverse(
      scope, on_device(call), span_of<const double>(cotangents).data(), span_of<double>(output).data());
}

void device_second(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  const Tensor cotangents = argument<Tensor>(stack[6]), directions = argument<Tensor>(stack[7]),
               of_cotangents = argument<Tensor>(stack[8]), of_moments = argument<Tensor>(stack[9]);
  TorchScope scope(call.moments);
  device_descriptor_kernels().products_second(
      scope, on_device(call), span_of<const double>(cotangents).data(),
      span_of<const double>(directions).data(), span_of<double>(of_cotangents).data(),
      span_of<double>(of_moments).data());
}

// The table of products: int32 first [targets + 1] term of every target, int32 factors [terms, 2], float64
// coefficients [terms], int32 nodes of the features. Contiguous float64 tensors: moments, directions and
// their derivatives [centers, moments], cotangents and features [centers, features]. For a GPU the last are
// there, the table is in host memory.
#define NEARSIGHT_PRODUCTS_SCHEMA(name, more)                                                      \
  name "(Tensor first, Tensor factors, Tensor coefficients, Tensor features, Tensor moments, int " \
       "num_threads, " more ") -> ()"

template <class Library>
void define_ops(Library& m) {
  m.def(NEARSIGHT_PRODUCTS_SCHEMA("products_forward", "Tensor(a!) output"));
  m.def(NEARSIGHT_PRODUCTS_SCHEMA("products_reverse", "Tensor cotangents, Tensor(a!) output"));
  m.def(NEARSIGHT_PRODUCTS_SCHEMA("products_second",
                                  "Tensor cotangents, Tensor directions, Tensor(a!) of_cotangents, "
                                  "Tensor(b!) of_moments"));
}

template <class Library>
void implement_on_device(Library& m) {
  m.impl("products_forward", &device_forward);
  m.impl("products_reverse", &device_reverse);
  m.impl("products_second", &device_second);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(nearsight, m) {
  define_ops(m);
}
STABLE_TORCH_LIBRARY_FRAGMENT(nearsight_device, m) {
  define_ops(m);
}

STABLE_TORCH_LIBRARY_IMPL(nearsight, CPU, m) {
  m.impl("products_forward", &products_forward);
  m.impl("products_reverse", &products_reverse);
  m.impl("products_second", &products_second);
}
STABLE_TORCH_LIBRARY_IMPL(nearsight, CUDA, m) {
  implement_on_device(m);
}
STABLE_TORCH_LIBRARY_IMPL(nearsight_device, CPU, m) {
  implement_on_device(m);
}
