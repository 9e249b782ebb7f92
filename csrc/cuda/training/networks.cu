// Twin of core/models/networks/training.cpp on a GPU, all atoms of a species at once. Numbers of a layer are
// [members][atoms][outputs]; products of matrices are 2 atoms x inputs x outputs operations for a layer and
// member, once for values, once for gradient, twice for the weights, and five times for second().
#include <algorithm>

#include "cuda/device.hpp"
#include "cuda/models/networks/activations.hpp"
#include "cuda/training/matrices.hpp"
#include "cuda/training/training.hpp"

namespace nearsight {
namespace cuda {
namespace training {

using nearsight::networks::Activation;
using nearsight::networks::Inputs;
using nearsight::networks::NetworkShape;

namespace {

constexpr std::int64_t kFewBlocks = 512;    // of a product, below which its inner dimension is split
constexpr std::int64_t kAtomsOfSplit = 64;  // at least

/// Rows of atoms in the tables of all atoms.
struct Rows {
  const std::int64_t* atoms;
  std::int64_t count;
};

/// to[row][k] = from[atoms[row]][k] - shift[k]
__global__ void gather(Rows rows, const double* from, std::int64_t stride, const double* shift, int width,
                       double* to) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n >= rows.count * width) return;
  const std::int64_t row = n / width, k = n % width;
  to[n] = from[rows.atoms[row] * stride + k] - (shift ? shift[k] : 0.0);
}

/// The other way round, with zeros in what is left of a row.
__global__ void scatter(Rows rows, const double* from, int width, std::int64_t stride, double* to) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n >= rows.count * stride) return;
  const std::int64_t row = n / stride, k = n % stride;
  to[rows.atoms[row] * stride + k] = k < width ? from[row * width + k] : 0.0;
}

/// Place of number n of [members][rows][columns] in [all atoms][members][columns].
__device__ inline std::int64_t output_place(const Rows& rows, int members, int columns, std::int64_t n) {
  const std::int64_t member = n / (rows.count * columns), row = n / columns % rows.count;
  return (rows.atoms[row] * members + member) * columns + n % columns;
}
__global__ void gather_outputs(Rows rows, int members, int columns, const double* all, double* of_rows) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n < rows.count * members * columns) of_rows[n] = all[output_place(rows, members, columns, n)];
}
__global__ void scatter_outputs(Rows rows, int members, int columns, const double* of_rows, double* all) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n < rows.count * members * columns) all[output_place(rows, members, columns, n)] = of_rows[n];
}

/// Numbers of a layer, [members][atoms][outputs].
struct Layer {
  int inputs, outputs;
  Activation activation;
  const double *weight, *bias;  // of the first member
  std::int64_t first_weight, first_state;
  double *value, *slope, *curvature;  // y', a', a''
  double *outer, *delta;              // dN/dy', δ
  double *rate, *moving, *change;     // ż, ẏ', δ̇
};

using Part = double* Layer::*;

/// y', a' and a'' of z, which is in the state.
__global__ void activate_layer(Layer layer, std::int64_t rows, int members, const double* state,
                               std::int64_t state_width) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n >= rows * members * layer.outputs) return;
  const std::int64_t member = n / (rows * layer.outputs), row = n / layer.outputs % rows;
  const double z =
      state[row * state_width + member * (state_width / members) + layer.first_state + n % layer.outputs];
  const auto a = networks::activate(layer.activation, z);
  layer.value[n] = a.value;
  if (!layer.slope) return;
  layer.slope[n] = a.derivative;
  layer.curvature[n] = a.second;
}

__global__ void multiply_each(std::int64_t count, const double* a, const double* b, double* c) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n < count) c[n] = a[n] * b[n];
}

/// δ̇ from what came from the layer above, nothing for the last one.
__global__ void change_layer(std::int64_t count, Layer layer, bool is_last) {
  const auto n = static_cast<std::int64_t>(thread_number());
  if (n >= count) return;
  const double from_above = is_last ? 0.0 : layer.change[n] * layer.slope[n];
  layer.change[n] = from_above + layer.curvature[n] * layer.rate[n] * layer.outer[n];
}

/// of_weights W [outputs][inputs], b [outputs] from splits [splits][members][outputs][inputs + 1].
__global__ void sum_splits(const double* parts, int splits, int members, int inputs, int outputs,
                           std::int64_t stride, double* of_weights) {
  const auto n = static_cast<std::int64_t>(thread_number());
  const std::int64_t size = static_cast<std::int64_t>(outputs) * (inputs + 1);
  if (n >= members * size) return;
  const std::int64_t member = n / size, output = n % size / (inputs + 1), input = n % (inputs + 1);
  double sum = 0.0;
  for (int split = 0; split < splits; ++split) sum += parts[split * members * size + n];
  const std::int64_t place =
      input < inputs ? output * inputs + input : static_cast<std::int64_t>(outputs) * inputs + output;
  of_weights[member * stride + place] = sum;
}

/// The networks of a species at work.
class Pass {
 public:
  Pass(DeviceScope& scope, const NetworkShape& shape, const double* weights, const Inputs& inputs)
      : work_(scope),
        shape_(shape),
        given_(inputs),
        rows_{inputs.atoms.data(), static_cast<std::int64_t>(inputs.atoms.size())} {
    num_weights_ = static_cast<std::int64_t>(shape.num_weights());
    state_width_ = static_cast<std::int64_t>(shape.state_width());
    std::int64_t place = 0, state = 0;
    for (int l = 0; l < shape.layers(); ++l) {
      Layer layer{};
      layer.inputs = shape.widths[l];
      layer.outputs = shape.widths[l + 1];
      layer.activation = shape.activations[l];
      layer.first_weight = place;
      layer.weight = weights + place;
      layer.bias = layer.weight + static_cast<std::int64_t>(layer.inputs) * layer.outputs;
      layer.first_state = state;
      place += static_cast<std::int64_t>(layer.outputs) * (layer.inputs + 1);
      state += layer.outputs;
      layers_.push_back(layer);
    }
  }

  void values(double* state, double* outputs) {
    gather_inputs();
    for (int l = 0; l < shape_.layers(); ++l) {
      Layer& layer = layers_[l];
      Multiplication p = product(layer, below(l, &Layer::value, x_), weight(layer).transposed());
      p.bias = layer.bias;
      p.bias_member = num_weights_;
      p.c = state + layer.first_state;
      p.c_row = state_width_;
      p.c_member = state_width_ / shape_.members;
      multiply(work_, p);
      layer.value = take(layer);
      activate(layer, state);
    }
    scatter_rows(layers_.back().value, outputs);
  }

  void gradient(const double* state, const double* cotangents, double* c) {
    backward(state, cotangents);
    to_inputs(&Layer::delta, c);
  }

  void weights(const double* state, const double* cotangents, double* of_weights) {
    gather_inputs();
    backward(state, cotangents);
    for (int l = 0; l < shape_.layers(); ++l) add_gradients(l, layers_[l].delta, false, of_weights);
  }

  void second(const double* state, const double* cotangents, const double* directions, double* of_weights,
              double* of_cotangents, double* of_table) {
    gather_inputs();
    directions_ = gathered(directions, nullptr);
    backward(state, cotangents);
    for (int l = 0; l < shape_.layers(); ++l) move(l);
    for (int l = shape_.layers() - 1; l >= 0; --l) change(l);
    for (int l = 0; l < shape_.layers(); ++l) add_gradients(l, layers_[l].change, true, of_weights);
    if (of_table) to_inputs(&Layer::change, of_table);
    if (of_cotangents) scatter_rows(layers_.back().moving, of_cotangents);
  }

 private:
  std::int64_t size(const Layer& layer) const { return shape_.members * rows_.count * layer.outputs; }
  double* take(const Layer& layer) { return work_.take<double>(size(layer)); }

  /// [atoms][outputs] of all members; of the inputs, which they share.
  Matrix numbers(const Layer& layer, const double* data) const {
    return {data, layer.outputs, 1, rows_.count * layer.outputs};
  }
  Matrix below(int l, Part what, const double* of_inputs) const {
    if (l > 0) return numbers(layers_[l - 1], layers_[l - 1].*what);
    return {of_inputs, shape_.inputs(), 1, 0};
  }
  /// [outputs][inputs]
  Matrix weight(const Layer& layer) const { return {layer.weight, layer.inputs, 1, num_weights_}; }

  /// [atoms][outputs] = a b, where the caller says what else.
  Multiplication product(const Layer& layer, const Matrix& a, const Matrix& b) const {
    Multiplication p{};
    p.rows = static_cast<int>(rows_.count);
    p.columns = layer.outputs;
    p.inner = layer.inputs;
    p.members = shape_.members;
    p.pairs = p.splits = 1;
    p.a[0] = a;
    p.b[0] = b;
    p.c_row = p.columns;
    p.c_member = rows_.count * p.columns;
    return p;
  }
  /// [atoms][inputs] = δ W, to the layer below.
  void multiply_down(const Layer& layer, const double* delta, double* c) {
    Multiplication p = product(layer, numbers(layer, delta), weight(layer));
    std::swap(p.columns, p.inner);
    p.c = c;
    p.c_row = p.columns;
    p.c_member = rows_.count * p.columns;
    multiply(work_, p);
  }

  const double* gathered(const double* table, const double* shift) {
    double* const to = work_.take<double>(rows_.count * shape_.inputs());
    launch(work_.stream, one_each(rows_.count * shape_.inputs()), gather, rows_, table,
           static_cast<std::int64_t>(given_.stride), shift, shape_.inputs(), to);
    return to;
  }
  void gather_inputs() { x_ = gathered(given_.table, given_.shift); }
  void scatter_rows(const double* of_rows, double* all) {
    launch(work_.stream, one_each(size(layers_.back())), scatter_outputs, rows_, shape_.members,
           shape_.outputs(), of_rows, all);
  }
  void activate(const Layer& layer, const double* state) {
    launch(work_.stream, one_each(size(layer)), activate_layer, layer, rows_.count, shape_.members, state,
           state_width_);
  }

  /// y', a', a'', dN/dy' and δ of all layers.
  void backward(const double* state, const double* cotangents) {
    for (Layer& layer : layers_) {
      for (const Part part : {&Layer::value, &Layer::slope, &Layer::curvature, &Layer::outer, &Layer::delta})
        layer.*part = take(layer);
      activate(layer, state);
    }
    launch(work_.stream, one_each(size(layers_.back())), gather_outputs, rows_, shape_.members,
           shape_.outputs(), cotangents, layers_.back().outer);
    for (int l = shape_.layers() - 1; l >= 0; --l) {
      const Layer& layer = layers_[l];
      launch(work_.stream, one_each(size(layer)), multiply_each, size(layer), layer.slope, layer.outer,
             layer.delta);
      if (l > 0) multiply_down(layer, layer.delta, layers_[l - 1].outer);
    }
  }

  /// Σ over members of Wᵀ δ of the first layer, to the rows of a table.
  void to_inputs(Part delta, double* table) {
    const Layer& layer = layers_[0];
    double* const sum = work_.take<double>(rows_.count * layer.inputs);
    Multiplication p = product(layer, numbers(layer, layer.*delta), weight(layer));
    std::swap(p.columns, p.inner);
    p.members = 1;
    p.c = sum;
    p.c_row = p.columns;
    for (int m = 0; m < shape_.members; ++m) {
      multiply(work_, p);
      p.a[0].data += p.a[0].member;
      p.b[0].data += p.b[0].member;
      p.add = true;
    }
    const auto stride = static_cast<std::int64_t>(given_.stride);
    launch(work_.stream, one_each(rows_.count * stride), scatter, rows_, sum, layer.inputs, stride, table);
  }

  /// ż and ẏ' along the directions.
  void move(int l) {
    Layer& layer = layers_[l];
    for (const Part part : {&Layer::rate, &Layer::moving, &Layer::change}) layer.*part = take(layer);
    Multiplication p = product(layer, below(l, &Layer::moving, directions_), weight(layer).transposed());
    p.c = layer.rate;
    multiply(work_, p);
    launch(work_.stream, one_each(size(layer)), multiply_each, size(layer), layer.slope, layer.rate,
           layer.moving);
  }

  void change(int l) {
    const bool is_last = l == shape_.layers() - 1;
    if (!is_last) multiply_down(layers_[l + 1], layers_[l + 1].change, layers_[l].change);
    launch(work_.stream, one_each(size(layers_[l])), change_layer, size(layers_[l]), layers_[l], is_last);
  }

  /// dW = gᵀ y and db = Σ g of the given g, which is δ, or with_tangent δ̇, with δᵀ ẏ in dW.
  void add_gradients(int l, const double* given, bool with_tangent, double* of_weights) {
    const Layer& layer = layers_[l];
    Multiplication p = product(layer, numbers(layer, given).transposed(), below(l, &Layer::value, x_));
    p.rows = layer.outputs;
    p.columns = layer.inputs + 1;
    p.inner = static_cast<int>(rows_.count);
    p.b[0].end = layer.inputs;
    p.b[0].beyond = 1.0;
    if (with_tangent) {
      p.pairs = 2;
      p.a[1] = numbers(layer, layer.delta).transposed();
      p.b[1] = below(l, &Layer::moving, directions_);
      p.b[1].end = layer.inputs;
    }
    // The parts are a function of the sizes alone, so that sums have the same bits every time.
    const std::int64_t tiles = std::int64_t(shape_.members) * ((p.rows + 31) / 32) * ((p.columns + 31) / 32);
    const std::int64_t most = std::max<std::int64_t>(rows_.count / kAtomsOfSplit, 1);
    p.splits = static_cast<int>(std::clamp<std::int64_t>(kFewBlocks / tiles, 1, most));
    const std::int64_t count = std::int64_t(p.rows) * p.columns * shape_.members;
    double* const parts = work_.take<double>(p.splits * count);
    p.c = parts;
    p.c_row = p.columns;
    p.c_member = std::int64_t(p.rows) * p.columns;
    p.c_split = count;
    multiply(work_, p);
    launch(work_.stream, one_each(count), sum_splits, parts, p.splits, shape_.members, layer.inputs,
           layer.outputs, num_weights_, of_weights + layer.first_weight);
  }

  Work work_;
  const NetworkShape& shape_;
  const Inputs& given_;
  const Rows rows_;
  std::int64_t num_weights_, state_width_;
  std::vector<Layer> layers_;
  const double *x_ = nullptr, *directions_ = nullptr;  // [atoms][inputs]
};

void values(DeviceScope& scope, const NetworkShape& shape, const double* weights, const Inputs& inputs,
            double* state, double* outputs) {
  Pass(scope, shape, weights, inputs).values(state, outputs);
}

void gradient(DeviceScope& scope, const NetworkShape& shape, const double* weights, const Inputs& inputs,
              const double* state, const double* cotangents, double* c) {
  Pass(scope, shape, weights, inputs).gradient(state, cotangents, c);
}

void by_weights(DeviceScope& scope, const NetworkShape& shape, const double* weights, const Inputs& inputs,
                const double* state, const double* cotangents, double* of_weights) {
  Pass(scope, shape, weights, inputs).weights(state, cotangents, of_weights);
}

void second(DeviceScope& scope, const NetworkShape& shape, const double* weights, const Inputs& inputs,
            const double* state, const double* cotangents, const double* directions, double* of_weights,
            double* of_cotangents, double* of_table) {
  Pass(scope, shape, weights, inputs)
      .second(state, cotangents, directions, of_weights, of_cotangents, of_table);
}

}  // namespace

const nearsight::networks::DevicePasses& network_passes() {
  static const nearsight::networks::DevicePasses passes{values, gradient, by_weights, second};
  return passes;
}

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
