// Products with stored derivatives of a descriptor, dG/dr, of one frame: what reverse and tangent compute, as
// products of matrices that were made once.
//
// The edges of a frame are divided into blocks whose derivatives are zero outside some columns. A block has
// edges, sorted by center, columns, and values [edges][3][columns] in single precision. The number of columns
// is a multiple of four: a column may be there twice, the second time with zeros.
#include <algorithm>
#include <vector>

#include "core/engine/threads.hpp"
#include "core/models/shared/denormals.hpp"
#include "core/models/shared/device_training.hpp"
#include "torch_ops/device.hpp"

namespace {

using namespace nearsight;

constexpr int kFour = 4;
typedef float Four __attribute__((vector_size(4 * kFour), aligned(4), may_alias));

Four load(const float* p) {
  return *reinterpret_cast<const Four*>(p);
}

constexpr std::size_t kThreadWork = 1 << 18;  // values that are worth a thread

struct Block {
  const std::int32_t *edges, *columns;
  std::int64_t num_edges, num_columns;
  const float* values;
};

struct Call {
  Tensor values_, edges_, columns_, sizes_, centers_, input_, output_;
  std::vector<Block> blocks;
  Span<const std::int32_t> centers;  // of every edge of the frame
  int num_threads;

  explicit Call(StableIValue* stack)
      : values_(argument<Tensor>(stack[0])),
        edges_(argument<Tensor>(stack[1])),
        columns_(argument<Tensor>(stack[2])),
        sizes_(argument<Tensor>(stack[3])),
        centers_(argument<Tensor>(stack[4])),
        input_(argument<Tensor>(stack[5])),
        output_(argument<Tensor>(stack[6])),
        centers(span_of<const std::int32_t>(centers_)) {
    const float* values = span_of<const float>(values_).data();
    const std::int32_t* edges = span_of<const std::int32_t>(edges_).data();
    const std::int32_t* columns = span_of<const std::int32_t>(columns_).data();
    const Span<const std::int64_t> sizes = span_of<const std::int64_t>(sizes_);
    for (std::size_t k = 0; k + 2 <= sizes.size(); k += 2) {
      blocks.push_back({edges, columns, sizes[k], sizes[k + 1], values});
      edges += sizes[k];
      columns += sizes[k + 1];
      values += 3 * sizes[k] * sizes[k + 1];
    }
    const std::size_t worth = static_cast<std::size_t>(values_.numel()) / kThreadWork;
    num_threads = static_cast<int>(std::clamp<std::int64_t>(worth, 1, argument<std::int64_t>(stack[7])));
  }

  /// Calls body(block, its first and last edge of the center, row of the table, room for a row) for every
  /// center of every block, in threads over the centers. The table is [centers, width].
  template <class Body>
  void for_centers(const Tensor& table, const Body& body) const {
    const auto width = static_cast<std::size_t>(table.size(1));
    double* const rows = span_of<double>(table).data();
    ThreadPool threads(num_threads);
    threads.split(static_cast<std::size_t>(table.size(0)), [&](int, std::size_t first, std::size_t last) {
      const FlushDenormals flush;  // derivatives far out are as small as they like
      std::vector<float> row(width + kFour);
      for (const Block& block : blocks) {
        std::int64_t e = std::partition_point(block.edges, block.edges + block.num_edges,
                                              [&](std::int32_t edge) { return centers[edge] < int(first); }) -
                         block.edges;
        while (e < block.num_edges && centers[block.edges[e]] < int(last)) {
          const std::int32_t center = centers[block.edges[e]];
          const std::int64_t begin = e;
          while (e < block.num_edges && centers[block.edges[e]] == center) ++e;
          body(block, begin, e, rows + center * width, row.data());
        }
      }
    });
  }
};

/// sums[a] = sum of values[a][k] row[k].
void three_dots(const float* values, const float* row, std::int64_t n, double* sums) {
  Four x{}, y{}, z{};
  for (std::int64_t k = 0; k < n; k += kFour) {
    const Four r = load(row + k);
    x += load(values + k) * r;
    y += load(values + n + k) * r;
    z += load(values + 2 * n + k) * r;
  }
  sums[0] = (x[0] + x[1]) + (x[2] + x[3]);
  sums[1] = (y[0] + y[1]) + (y[2] + y[3]);
  sums[2] = (z[0] + z[1]) + (z[2] + z[3]);
}

/// row[k] += sum over a of direction[a] values[a][k].
void add_three(const float* values, const double* direction, std::int64_t n, float* row) {
  const Four zero{};
  const Four x = zero + static_cast<float>(direction[0]), y = zero + static_cast<float>(direction[1]),
             z = zero + static_cast<float>(direction[2]);
  for (std::int64_t k = 0; k < n; k += kFour) {
    const Four sum = x * load(values + k) + y * load(values + n + k) + z * load(values + 2 * n + k);
    *reinterpret_cast<Four*>(row + k) += sum;
  }
}

/// cotangents [centers, width] -> gradients [edges, 3]
void stored_reverse(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  double* const gradients = span_of<double>(call.output_).data();
  call.for_centers(call.input_, [&](const Block& b, std::int64_t begin, std::int64_t end,
                                    const double* cotangents, float* row) {
    for (std::int64_t c = 0; c < b.num_columns; ++c) row[c] = static_cast<float>(cotangents[b.columns[c]]);
    for (std::int64_t e = begin; e < end; ++e)
      three_dots(b.values + 3 * e * b.num_columns, row, b.num_columns, gradients + 3 * b.edges[e]);
  });
}

/// directions [edges, 3] -> tangents [centers, width]
void stored_tangent(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  const double* const directions = span_of<const double>(call.input_).data();
  call.for_centers(
      call.output_, [&](const Block& b, std::int64_t begin, std::int64_t end, double* tangents, float* row) {
        std::fill_n(row, b.num_columns, 0.0f);
        for (std::int64_t e = begin; e < end; ++e)
          add_three(b.values + 3 * e * b.num_columns, directions + 3 * b.edges[e], b.num_columns, row);
        for (std::int64_t c = 0; c < b.num_columns; ++c) tangents[b.columns[c]] += row[c];
      });
}

/// slots [edges], -1 for edges that are not wanted -> dense derivatives [slots, 3, width]
void stored_gather(StableIValue* stack, std::uint64_t, std::uint64_t) {
  const Call call(stack);
  const Span<const std::int64_t> slots = span_of<const std::int64_t>(call.input_);
  double* const dense = span_of<double>(call.output_).data();
  const std::int64_t width = call.output_.size(2);
  for (const Block& b : call.blocks)
    for (std::int64_t e = 0; e < b.num_edges; ++e) {
      const std::int64_t slot = slots[b.edges[e]];
      if (slot < 0) continue;
      for (std::int64_t a = 0; a < 3; ++a)
        for (std::int64_t c = 0; c < b.num_columns; ++c)
          dense[(3 * slot + a) * width + b.columns[c]] += b.values[(3 * e + a) * b.num_columns + c];
    }
}

// ---- on a GPU ----

/// Calls body(kernels, scope, derivatives, input, output).
template <class Body>
void on_device(StableIValue* stack, int table, const Body& body) {
  const Tensor values = argument<Tensor>(stack[0]), edges = argument<Tensor>(stack[1]),
               columns = argument<Tensor>(stack[2]), sizes = argument<Tensor>(stack[3]),
               centers = argument<Tensor>(stack[4]), input = argument<Tensor>(stack[5]),
               output = argument<Tensor>(stack[6]);
  const Tensor& of_table = table == 5 ? input : output;
  const StoredDerivatives derivatives{span_of<const float>(values).data(),
                                      span_of<const std::int32_t>(edges).data(),
                                      span_of<const std::int32_t>(columns).data(),
                                      span_of<const std::int64_t>(sizes),
                                      span_of<const std::int32_t>(centers).data(),
                                      of_table.size(0),
                                      of_table.size(of_table.dim() - 1)};
  TorchScope scope(values);
  body(device_descriptor_kernels(), scope, derivatives, input, output);
}

void device_reverse(StableIValue* stack, std::uint64_t, std::uint64_t) {
  on_device(stack, 5, [](auto& kernels, auto& scope, auto& derivatives, auto& input, auto& output) {
    kernels.stored_reverse(scope, derivatives, span_of<const double>(input).data(),
                           span_of<double>(output).data());
  });
}

void device_tangent(StableIValue* stack, std::uint64_t, std::uint64_t) {
  on_device(stack, 6, [](auto& kernels, auto& scope, auto& derivatives, auto& input, auto& output) {
    kernels.stored_tangent(scope, derivatives, span_of<const double>(input).data(),
                           span_of<double>(output).data());
  });
}

void device_gather(StableIValue* stack, std::uint64_t, std::uint64_t) {
  on_device(stack, 6, [](auto& kernels, auto& scope, auto& derivatives, auto& input, auto& output) {
    kernels.stored_gather(scope, derivatives, span_of<const std::int64_t>(input).data(),
                          span_of<double>(output).data());
  });
}

// values float32 [sum of 3 * edges * columns], edges int32 and columns int32 of all blocks one after the
// other, sizes int64 [blocks, 2]: edges and columns of each block; centers int32 of every edge of the frame;
// input and output float64. Every edge is in exactly one block; `tangents` begins as zero. For
// a GPU all tensors but `sizes` are there.
#define NEARSIGHT_STORED_SCHEMA(name, input)                                                       \
  name "(Tensor values, Tensor edges, Tensor columns, Tensor sizes, Tensor centers, Tensor " input \
       ", Tensor(a!) output, int num_threads) -> ()"

template <class Library>
void define_ops(Library& m) {
  m.def(NEARSIGHT_STORED_SCHEMA("stored_reverse", "cotangents"));
  m.def(NEARSIGHT_STORED_SCHEMA("stored_tangent", "directions"));
  m.def(NEARSIGHT_STORED_SCHEMA("stored_gather", "slots"));
}

template <class Library>
void implement_on_device(Library& m) {
  m.impl("stored_reverse", &device_reverse);
  m.impl("stored_tangent", &device_tangent);
  m.impl("stored_gather", &device_gather);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(nearsight, m) {
  define_ops(m);
}
STABLE_TORCH_LIBRARY_FRAGMENT(nearsight_device, m) {
  define_ops(m);
}

STABLE_TORCH_LIBRARY_IMPL(nearsight, CPU, m) {
  m.impl("stored_reverse", &stored_reverse);
  m.impl("stored_tangent", &stored_tangent);
  m.impl("stored_gather", &stored_gather);
}
STABLE_TORCH_LIBRARY_IMPL(nearsight, CUDA, m) {
  implement_on_device(m);
}
STABLE_TORCH_LIBRARY_IMPL(nearsight_device, CPU, m) {
  implement_on_device(m);
}
