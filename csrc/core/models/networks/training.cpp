#include "core/models/networks/training.hpp"

#include <algorithm>

namespace nearsight {
namespace networks {
namespace {

constexpr std::size_t kBlock = 48;  // atoms at a time
constexpr std::size_t kTasks = 16;  // at most, each with its own sums over atoms

using Buffer = AlignedBuffer<double>;

void fill_zero(Buffer& buffer, std::size_t size) {
  std::fill_n(buffer.resize(size), size, 0.0);
}

/// c[rows][padded columns] = a[rows][inner] b, b in panels, and more as in Product.
void multiply(int rows, const double* a, int lda, int inner, const double* b, int columns, const double* bias,
              bool add, double* c) {
  const Range all{0, inner};
  Product<double> p{};
  p.rows = rows;
  p.a = a;
  p.lda = lda;
  p.runs = &all;
  p.num_runs = 1;
  p.b = b;
  p.inner = inner;
  p.num_panels = padded(columns) / kPad;
  p.bias = bias;
  p.add = add;
  p.c = c;
  p.ldc = padded(columns);
  kernels<double>().multiply(p);
}

void multiply_each(std::size_t count, const double* a, const double* b, double* c) {
  for (std::size_t k = 0; k < count; ++k) c[k] = a[k] * b[k];
}

/// Rows [rows][stride] to rows `first` and following of panels of `all` rows.
void to_panels(int rows, const double* values, std::size_t stride, int columns, int first, int all,
               double* panels) {
  for (int row = 0; row < rows; ++row)
    for (int begin = 0; begin < columns; begin += kPad) {
      double* const to = panels + (static_cast<std::size_t>(begin / kPad) * all + first + row) * kPad;
      const int count = std::min(kPad, columns - begin);
      std::copy_n(values + row * stride + begin, count, to);
      std::fill(to + count, to + kPad, 0.0);
    }
}

}  // namespace

std::size_t NetworkShape::num_weights() const {
  std::size_t count = 0;
  for (int l = 0; l < layers(); ++l) count += static_cast<std::size_t>(widths[l + 1]) * (widths[l] + 1);
  return count;
}

std::size_t NetworkShape::state_width() const {
  std::size_t width = 0;
  for (int l = 0; l < layers(); ++l) width += widths[l + 1];
  return width * members;
}

struct Passes::Packed {
  int inputs, outputs;
  const double* weight;
  Buffer forward, reverse, bias;
};

/// Of a layer at a block of atoms, [rows][padded outputs]: y', a', a'', dN/dy', δ, ż, ẏ' and δ̇.
struct LayerScratch {
  Buffer value, slope, curvature, outer, delta, rate, moving, change;
};

struct Passes::Scratch {
  std::vector<LayerScratch> layers;
  Buffer inputs, gradient;      // [rows][inputs], the latter padded
  Buffer first_panels, panels;  // inputs of the first layer and of another, for add_gradients()
  Buffer transposed;
  std::vector<Buffer> sums;  // [members * layers] [outputs + 1][padded inputs or outputs]: dW; db
};

Passes::Passes(const NetworkShape& shape, const double* weights, ThreadPool& threads)
    : shape_(shape), threads_(threads), layers_(shape.members) {
  for (auto& layers : layers_) {
    layers.resize(shape.layers());
    for (int l = 0; l < shape.layers(); ++l) {
      Packed& layer = layers[l];
      const int in = layer.inputs = shape.widths[l], out = layer.outputs = shape.widths[l + 1];
      layer.weight = weights;
      fill_zero(layer.bias, padded(out));
      std::copy_n(weights + out * in, out, layer.bias.data());
      weights += out * (in + 1);
    }
  }
}

/// Weights in panels of outputs, for values and tangents.
void Passes::pack_forward() {
  for (auto& layers : layers_)
    for (Packed& layer : layers) {
      fill_zero(layer.forward, static_cast<std::size_t>(layer.inputs) * padded(layer.outputs));
      for (int begin = 0; begin < layer.outputs; begin += kPad) {
        double* const panel = layer.forward.data() + static_cast<std::size_t>(begin) * layer.inputs;
        const double* const rows = layer.weight + static_cast<std::size_t>(begin) * layer.inputs;
        const int count = std::min(kPad, layer.outputs - begin);
        for (int i = 0; i < layer.inputs; ++i)
          for (int o = 0; o < count; ++o) panel[i * kPad + o] = rows[o * layer.inputs + i];
      }
    }
}

/// Weights in panels of inputs, for gradients; those of the first layer where they are needed.
void Passes::pack_reverse(bool first) {
  for (auto& layers : layers_)
    for (Packed& layer : layers)
      if (first || &layer != &layers[0])
        to_panels(layer.outputs, layer.weight, layer.inputs, layer.inputs, 0, layer.outputs,
                  layer.reverse.resize(static_cast<std::size_t>(layer.outputs) * padded(layer.inputs)));
}

Passes::~Passes() = default;

/// Calls body(scratch, first, rows) for blocks of atoms. A task does several of them, one after the other;
/// which ones depends on the number of atoms alone.
template <class Body>
void Passes::for_blocks(std::size_t num_atoms, const Body& body) {
  const std::size_t blocks = (num_atoms + kBlock - 1) / kBlock, tasks = std::min(blocks, kTasks);
  tasks_.resize(tasks);
  threads_.split(tasks, [&](int, std::size_t begin, std::size_t end) {
    for (std::size_t task = begin; task < end; ++task) {
      tasks_[task].layers.resize(shape_.layers());
      for (std::size_t k = blocks * task / tasks; k < blocks * (task + 1) / tasks; ++k)
        body(tasks_[task], k * kBlock, static_cast<int>(std::min(kBlock, num_atoms - k * kBlock)));
    }
  });
}

namespace {

/// Rows of the inputs.
const double* gather(const Inputs& inputs, int width, std::size_t first, int rows, Buffer& buffer) {
  double* to = buffer.resize(static_cast<std::size_t>(rows) * width);
  for (int row = 0; row < rows; ++row, to += width) {
    const double* const from = inputs.table + inputs.atoms[first + row] * inputs.stride;
    for (int k = 0; k < width; ++k) to[k] = from[k] - inputs.shift[k];
  }
  return buffer.data();
}

/// Rows of the inputs as rows `before` and following of panels of `all` rows.
void gather_panels(const Inputs& inputs, int width, std::size_t first, int rows, int before, int all,
                   double* panels) {
  for (int row = 0; row < rows; ++row) {
    const double* const from = inputs.table + inputs.atoms[first + row] * inputs.stride;
    for (int begin = 0; begin < width; begin += kPad) {
      double* const to = panels + (static_cast<std::size_t>(begin / kPad) * all + before + row) * kPad;
      const int count = std::min(kPad, width - begin);
      for (int k = 0; k < count; ++k) to[k] = from[begin + k] - inputs.shift[begin + k];
      std::fill(to + count, to + kPad, 0.0);
    }
  }
}

}  // namespace

void Passes::values(const Inputs& inputs, double* state, double* outputs) {
  const std::size_t state_width = shape_.state_width();
  const int columns = shape_.outputs();
  pack_forward();
  for_blocks(inputs.atoms.size(), [&](Scratch& scratch, std::size_t first, int rows) {
    const double* const x = gather(inputs, shape_.inputs(), first, rows, scratch.inputs);
    double* kept = state + first * state_width;
    for (int m = 0; m < shape_.members; ++m) {
      const double* a = x;
      int lda = shape_.inputs();
      for (int l = 0; l < shape_.layers(); ++l) {
        const Packed& layer = layers_[m][l];
        const int wide = padded(layer.outputs);
        double* const z = scratch.layers[l].value.resize(static_cast<std::size_t>(rows) * wide);
        double* const slope = scratch.layers[l].slope.resize(static_cast<std::size_t>(rows) * wide);
        multiply(rows, a, lda, layer.inputs, layer.forward.data(), layer.outputs, layer.bias.data(), false,
                 z);
        for (int row = 0; row < rows; ++row)
          std::copy_n(z + row * wide, layer.outputs, kept + row * state_width);
        kernels<double>().activate(shape_.activations[l], rows * wide, z, slope);
        kept += layer.outputs;
        a = z;
        lda = wide;
      }
      for (int row = 0; row < rows; ++row)
        std::copy_n(a + row * lda, columns,
                    outputs + (inputs.atoms[first + row] * shape_.members + m) * columns);
    }
  });
}

/// y', a' and a'' of all layers of a member from the state.
void Passes::activate(Scratch& scratch, int member, const double* state, std::size_t first, int rows) const {
  const std::size_t state_width = shape_.state_width();
  const double* kept = state + first * state_width + member * (state_width / shape_.members);
  for (int l = 0; l < shape_.layers(); ++l) {
    LayerScratch& s = scratch.layers[l];
    const int out = shape_.widths[l + 1], wide = padded(out);
    const std::size_t size = static_cast<std::size_t>(rows) * wide;
    double* const z = s.value.resize(size);
    std::fill_n(z, size, 0.0);
    for (int row = 0; row < rows; ++row) std::copy_n(kept + row * state_width, out, z + row * wide);
    kernels<double>().activate_twice(shape_.activations[l], static_cast<int>(size), z, s.slope.resize(size),
                                     s.curvature.resize(size));
    kept += out;
  }
}

/// dN/dy' and δ of all layers.
void Passes::backward(Scratch& scratch, int member, Span<const std::int64_t> atoms, std::size_t first,
                      int rows, const double* cotangents) const {
  const int columns = shape_.outputs(), last = shape_.layers() - 1;
  fill_zero(scratch.layers[last].outer, static_cast<std::size_t>(rows) * padded(columns));
  for (int row = 0; row < rows; ++row)
    std::copy_n(cotangents + (atoms[first + row] * shape_.members + member) * columns, columns,
                scratch.layers[last].outer.data() + row * padded(columns));
  for (int l = last; l >= 0; --l) {
    LayerScratch& s = scratch.layers[l];
    const Packed& layer = layers_[member][l];
    const std::size_t size = s.outer.size();
    multiply_each(size, s.slope.data(), s.outer.data(), s.delta.resize(size));
    if (l == 0) return;
    multiply(rows, s.delta.data(), padded(layer.outputs), layer.outputs, layer.reverse.data(), layer.inputs,
             nullptr, false,
             scratch.layers[l - 1].outer.resize(static_cast<std::size_t>(rows) * padded(layer.inputs)));
  }
}

/// Wᵀ δ of the first layer to the rows of a table, the first member's; the others' are added.
void Passes::to_inputs(Scratch& scratch, int member, Span<const std::int64_t> atoms, std::size_t first,
                       int rows, const Buffer& delta, double* table, std::size_t stride) const {
  const Packed& layer = layers_[member][0];
  const int wide = padded(layer.inputs);
  double* const c = scratch.gradient.resize(static_cast<std::size_t>(rows) * wide);
  multiply(rows, delta.data(), padded(layer.outputs), layer.outputs, layer.reverse.data(), layer.inputs,
           nullptr, false, c);
  for (int row = 0; row < rows; ++row) {
    double* const to = table + atoms[first + row] * stride;
    if (member == 0) std::fill_n(to, stride, 0.0);
    for (int k = 0; k < layer.inputs; ++k) to[k] += c[row * wide + k];
  }
}

void Passes::gradient(Span<const std::int64_t> atoms, const double* state, const double* cotangents,
                      double* c, std::size_t stride) {
  pack_reverse(true);
  for_blocks(atoms.size(), [&](Scratch& scratch, std::size_t first, int rows) {
    for (int m = 0; m < shape_.members; ++m) {
      activate(scratch, m, state, first, rows);
      backward(scratch, m, atoms, first, rows, cotangents);
      to_inputs(scratch, m, atoms, first, rows, scratch.layers[0].delta, c, stride);
    }
  });
}

/// ż and ẏ' of all layers along the directions in scratch.inputs.
void Passes::tangent(Scratch& scratch, int member, int rows) const {
  const double* a = scratch.inputs.data();
  int lda = shape_.inputs();
  for (int l = 0; l < shape_.layers(); ++l) {
    LayerScratch& s = scratch.layers[l];
    const Packed& layer = layers_[member][l];
    const std::size_t size = s.slope.size();
    multiply(rows, a, lda, layer.inputs, layer.forward.data(), layer.outputs, nullptr, false,
             s.rate.resize(size));
    multiply_each(size, s.slope.data(), s.rate.data(), s.moving.resize(size));
    a = s.moving.data();
    lda = padded(layer.outputs);
  }
}

/// δ̇ of all layers.
void Passes::adjoint_of_tangent(Scratch& scratch, int member, int rows) const {
  const int last = shape_.layers() - 1;
  for (int l = last; l >= 0; --l) {
    LayerScratch& s = scratch.layers[l];
    const std::size_t size = s.slope.size();
    double* const change = s.change.resize(size);
    if (l == last) {
      std::fill_n(change, size, 0.0);
    } else {
      const Packed& above = layers_[member][l + 1];
      multiply(rows, scratch.layers[l + 1].change.data(), padded(above.outputs), above.outputs,
               above.reverse.data(), above.inputs, nullptr, false, change);
      multiply_each(size, change, s.slope.data(), change);
    }
    for (std::size_t k = 0; k < size; ++k) change[k] += s.curvature[k] * s.rate[k] * s.outer[k];
  }
}

/// Adds dW = δ̇ᵀ y, db = Σ δ̇, and with_tangent δᵀ ẏ, to the task's sums.
void Passes::add_gradients(Scratch& scratch, int member, int rows, bool with_tangent) const {
  scratch.sums.resize(static_cast<std::size_t>(shape_.members) * shape_.layers());
  const int all = with_tangent ? 2 * rows : rows;
  for (int l = 0; l < shape_.layers(); ++l) {
    const LayerScratch& s = scratch.layers[l];
    const int in = shape_.widths[l], out = shape_.widths[l + 1], wide = padded(out);
    double* panels = scratch.first_panels.data();
    if (l > 0) {
      const LayerScratch& below = scratch.layers[l - 1];
      panels = scratch.panels.resize(static_cast<std::size_t>(all) * padded(in));
      to_panels(rows, below.value.data(), padded(in), in, 0, all, panels);
      if (with_tangent) to_panels(rows, below.moving.data(), padded(in), in, rows, all, panels);
    }
    double* const left = scratch.transposed.resize(static_cast<std::size_t>(all) * out);
    Buffer& sums = scratch.sums[static_cast<std::size_t>(member) * shape_.layers() + l];
    const std::size_t size = static_cast<std::size_t>(out) * padded(in);
    if (sums.size() == 0) fill_zero(sums, size + out);
    for (int o = 0; o < out; ++o) {
      double* const to = left + static_cast<std::size_t>(o) * all;
      for (int row = 0; row < rows; ++row) to[row] = s.change.data()[row * wide + o];
      for (int row = 0; row < rows; ++row) sums[size + o] += to[row];
      for (int row = rows; row < all; ++row) to[row] = s.delta.data()[(row - rows) * wide + o];
    }
    multiply(out, left, all, all, panels, in, nullptr, true, sums.data());
  }
}

/// Writes the sums of all tasks, in their order.
void Passes::sum_tasks(double* of_weights) const {
  std::fill_n(of_weights, shape_.members * shape_.num_weights(), 0.0);
  for (const Scratch& task : tasks_) {
    double* to = of_weights;
    for (std::size_t k = 0; k < task.sums.size(); ++k) {
      const int in = shape_.widths[k % shape_.layers()], out = shape_.widths[k % shape_.layers() + 1];
      const double* from = task.sums[k].data();
      for (int o = 0; o < out; ++o, from += padded(in))
        for (int i = 0; i < in; ++i) *to++ += from[i];
      for (int o = 0; o < out; ++o) *to++ += from[o];
    }
  }
}

void Passes::weights(const Inputs& inputs, const double* state, const double* cotangents,
                     double* of_weights) {
  pack_reverse(false);
  for_blocks(inputs.atoms.size(), [&](Scratch& scratch, std::size_t first, int rows) {
    const int in = shape_.inputs();
    gather_panels(inputs, in, first, rows, 0, rows, scratch.first_panels.resize(rows * padded(in)));
    for (int m = 0; m < shape_.members; ++m) {
      activate(scratch, m, state, first, rows);
      backward(scratch, m, inputs.atoms, first, rows, cotangents);
      for (LayerScratch& s : scratch.layers) std::swap(s.delta, s.change);
      add_gradients(scratch, m, rows, false);
    }
  });
  sum_tasks(of_weights);
}

void Passes::second(const Inputs& inputs, const double* state, const double* cotangents,
                    const double* directions, double* of_weights, double* of_cotangents, double* of_table) {
  const int in = shape_.inputs(), columns = shape_.outputs(), last = shape_.layers() - 1;
  pack_forward();
  pack_reverse(of_table != nullptr);
  const std::vector<double> no_shift(in, 0.0);
  const Inputs along{inputs.atoms, directions, inputs.stride, no_shift.data()};
  for_blocks(inputs.atoms.size(), [&](Scratch& scratch, std::size_t first, int rows) {
    double* const panels = scratch.first_panels.resize(2 * rows * padded(in));
    gather_panels(inputs, in, first, rows, 0, 2 * rows, panels);
    gather_panels(along, in, first, rows, rows, 2 * rows, panels);
    gather(along, in, first, rows, scratch.inputs);
    for (int m = 0; m < shape_.members; ++m) {
      activate(scratch, m, state, first, rows);
      backward(scratch, m, inputs.atoms, first, rows, cotangents);
      tangent(scratch, m, rows);
      adjoint_of_tangent(scratch, m, rows);
      add_gradients(scratch, m, rows, true);
      if (of_table)
        to_inputs(scratch, m, inputs.atoms, first, rows, scratch.layers[0].change, of_table, inputs.stride);
      for (int row = 0; of_cotangents && row < rows; ++row)
        std::copy_n(scratch.layers[last].moving.data() + row * padded(columns), columns,
                    of_cotangents + (inputs.atoms[first + row] * shape_.members + m) * columns);
    }
  });
  sum_tasks(of_weights);
}

}  // namespace networks
}  // namespace nearsight
