#include "core/models/networks/networks.hpp"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"

namespace nearsight {
namespace networks {

NEARSIGHT_CHOOSE_KERNELS(float)
NEARSIGHT_CHOOSE_KERNELS(double)

namespace {

Activation activation_of(const std::string& name) {
  const char* const names[] = {"linear",   "tanh", "silu",     "logistic", "reversed_logistic",
                               "softplus", "relu", "gaussian", "cos",      "exp_negative",
                               "square",   "celu", "gelu"};
  std::string known;
  for (int k = 0; k < static_cast<int>(std::size(names)); ++k) {
    if (name == names[k]) return static_cast<Activation>(k);
    known += (k ? ", " : "") + std::string(names[k]);
  }
  throw Error(ErrorKind::file, "activation '" + name + "' is not known, expected one of " + known);
}

template <class T>
void fill_zero(AlignedBuffer<T>& buffer, std::size_t size) {
  std::fill_n(buffer.resize(size), size, T(0));
}

}  // namespace

template <class T>
Networks<T>::Networks(const std::string& record, const std::vector<std::string>& species,
                      const std::vector<int>& num_features, int members, int columns, const Tensors& tensors)
    : members_(members), columns_(columns) {
  const auto networks = nlohmann::json::parse(record);
  output_scale_ = tensors.at("output_scale", {static_cast<std::size_t>(columns)}).values;
  for (std::size_t s = 0; s < species.size(); ++s) {
    const std::string& symbol = species[s];
    auto widths = networks.at(symbol).at("hidden").template get<std::vector<int>>();
    widths.push_back(columns);
    const auto activations = networks.at(symbol).at("activation").template get<std::vector<std::string>>();
    if (activations.size() != widths.size())
      throw Error(ErrorKind::file, tensors.origin + ": the network of " + symbol + " has " +
                                       std::to_string(widths.size()) + " layers but " +
                                       std::to_string(activations.size()) +
                                       " activations: export the model again");
    Network network;
    int inputs = num_features[s];
    network.shift = tensors.at(symbol + ".shift", {static_cast<std::size_t>(inputs)}).values;
    network.scale = tensors.at(symbol + ".scale", {static_cast<std::size_t>(inputs)}).values;
    network.is_shifted =
        std::any_of(network.shift.begin(), network.shift.end(), [](double x) { return x != 0.0; });
    for (std::size_t l = 0; l < widths.size(); ++l) {
      network.layers.push_back(make_layer(symbol + "." + std::to_string(l), inputs, widths[l],
                                          activation_of(activations[l]), tensors));
      inputs = widths[l];
    }
    of_species_.push_back(std::move(network));
  }
}

template <class T>
Layer<T> Networks<T>::make_layer(const std::string& name, int inputs, int outputs, Activation activation,
                                 const Tensors& tensors) const {
  const std::size_t members = members_, in = inputs, out = outputs;
  const auto& weight = tensors.at(name + ".weight", {members, out, in}).values;
  const auto& bias = tensors.at(name + ".bias", {members, out}).values;
  const std::size_t wide_in = padded(inputs), wide_out = padded(outputs);
  Layer<T> layer;
  layer.inputs = inputs;
  layer.outputs = outputs;
  layer.activation = activation;
  fill_zero(layer.forward, members * in * wide_out);
  fill_zero(layer.reverse, members * out * wide_in);
  fill_zero(layer.bias, members * wide_out);
  for (std::size_t m = 0; m < members; ++m)
    for (std::size_t o = 0; o < out; ++o) {
      layer.bias[m * wide_out + o] = static_cast<T>(bias[m * out + o]);
      for (std::size_t i = 0; i < in; ++i) {
        const T w = static_cast<T>(weight[(m * out + o) * in + i]);
        layer.forward[m * in * wide_out + (o / kPad * in + i) * kPad + o % kPad] = w;
        layer.reverse[m * out * wide_in + (i / kPad * out + o) * kPad + i % kPad] = w;
      }
    }
  return layer;
}

template <class T>
NetworksWorkspace<T>::NetworksWorkspace(const Networks<T>& networks) : networks_(networks) {
  for (const auto& network : networks.of_species_) {
    blocks_.emplace_back();
    blocks_.back().derivatives.resize(network.layers.size());
  }
}

template <class T>
void NetworksWorkspace<T>::choose_inputs(const Network& network, Span<const Range> active,
                                         Block& block) const {
  const int inputs = static_cast<int>(network.shift.size());
  block.runs.clear();
  block.panels.clear();
  for (const Range range : active) {
    const Range run{range.first, std::min(range.last, inputs)};
    if (run.first >= run.last) continue;
    block.runs.push_back(run);
    for (int panel = run.first / kPad; panel * kPad < run.last; ++panel)
      if (block.panels.empty() || block.panels.back() < panel) block.panels.push_back(panel);
  }
}

/// Shifts and scales the active features and puts them side by side.
template <class T>
void NetworksWorkspace<T>::load_inputs(const Network& network, const Block& block, int count,
                                       const double* features, std::size_t stride) {
  const std::size_t width = kPad * block.panels.size();
  inputs_.resize(count * width);
  for (int row = 0; row < count; ++row) {
    T* x = inputs_.data() + row * width;
    for (const Range run : block.runs)
      for (int n = run.first; n < run.last; ++n)
        *x++ = static_cast<T>((features[row * stride + n] - network.shift[n]) * network.scale[n]);
  }
}

/// The first layer's bias with the share of the inactive features, which are constant: (0 - shift) scale.
template <class T>
const T* NetworksWorkspace<T>::first_bias(const Network& network, const Block& block) {
  const Layer<T>& layer = network.layers[0];
  gaps_.clear();
  int begin = 0;
  for (const Range run : block.runs) {
    if (begin < run.first) gaps_.push_back({begin, run.first});
    begin = run.last;
  }
  if (begin < layer.inputs) gaps_.push_back({begin, layer.inputs});
  if (gaps_.empty() || !network.is_shifted) return layer.bias.data();
  T* x = constants_.resize(layer.inputs);
  for (const Range gap : gaps_)
    for (int n = gap.first; n < gap.last; ++n) *x++ = static_cast<T>(-network.shift[n] * network.scale[n]);
  const int wide = padded(layer.outputs);
  bias_.resize(networks_.members_ * wide);
  for (int m = 0; m < networks_.members_; ++m) {
    Product<T> product{};
    product.rows = 1;
    product.a = constants_.data();
    product.runs = gaps_.data();
    product.num_runs = static_cast<int>(gaps_.size());
    product.b = layer.forward.data() + static_cast<std::size_t>(m) * layer.inputs * wide;
    product.inner = layer.inputs;
    product.num_panels = wide / kPad;
    product.bias = layer.bias.data() + m * wide;
    product.c = bias_.data() + m * wide;
    kernels<T>().multiply(product);
  }
  return bias_.data();
}

template <class T>
void NetworksWorkspace<T>::forward(int species, int count, const double* features, std::size_t stride,
                                   Span<const Range> active, double* outputs) {
  const auto& network = networks_.of_species_[species];
  const int members = networks_.members_, columns = networks_.columns_;
  Block& block = blocks_[species];
  choose_inputs(network, active, block);
  load_inputs(network, block, count, features, stride);
  const T* const first = first_bias(network, block);
  for (int m = 0; m < members; ++m) {
    Product<T> product{};
    product.rows = count;
    product.a = inputs_.data();
    product.lda = static_cast<int>(kPad * block.panels.size());
    for (std::size_t l = 0; l < network.layers.size(); ++l) {
      const Layer<T>& layer = network.layers[l];
      const Range all{0, layer.inputs};
      const int wide = padded(layer.outputs);
      const std::size_t size = static_cast<std::size_t>(count) * wide;
      product.runs = l == 0 ? block.runs.data() : &all;
      product.num_runs = l == 0 ? static_cast<int>(block.runs.size()) : 1;
      product.b = layer.forward.data() + static_cast<std::size_t>(m) * layer.inputs * wide;
      product.inner = layer.inputs;
      product.num_panels = wide / kPad;
      product.bias = (l == 0 ? first : layer.bias.data()) + m * wide;
      product.c = values_[l % 2].resize(size);
      product.ldc = wide;
      kernels<T>().multiply(product);
      if (layer.activation != Activation::linear)
        kernels<T>().activate(layer.activation, static_cast<int>(size), product.c,
                              block.derivatives[l].resize(members * size) + m * size);
      product.a = product.c;
      product.lda = wide;
    }
    for (int row = 0; row < count; ++row)
      for (int c = 0; c < columns; ++c)
        outputs[(row * members + m) * columns + c] =
            networks_.output_scale_[c] * static_cast<double>(product.a[row * product.lda + c]);
  }
}

namespace {

/// A member of a committee may be asked for alone.
bool has_cotangents(const double* cotangents, int count, int members, int member, int columns) {
  for (int row = 0; row < count; ++row)
    for (int c = 0; c < columns; ++c)
      if (cotangents[(row * members + member) * columns + c] != 0.0) return true;
  return false;
}

}  // namespace

/// Adds the cotangents of the inputs of one member to inputs_.
template <class T>
void NetworksWorkspace<T>::reverse_member(const Network& network, const Block& block, int count, int member,
                                          const double* output_cotangents) {
  const int members = networks_.members_, columns = networks_.columns_, wide = padded(columns);
  const auto derivative = [&](std::size_t l) -> const T* {
    const Layer<T>& layer = network.layers[l];
    if (layer.activation == Activation::linear) return nullptr;
    return block.derivatives[l].data() + static_cast<std::size_t>(member) * count * padded(layer.outputs);
  };
  std::size_t l = network.layers.size() - 1;
  T* const start = values_[l % 2].resize(static_cast<std::size_t>(count) * wide);
  const T* const last = derivative(l);
  for (int row = 0; row < count; ++row)
    for (int c = 0; c < columns; ++c)
      start[row * wide + c] = static_cast<T>(networks_.output_scale_[c] *
                                             output_cotangents[(row * members + member) * columns + c]) *
                              (last ? last[row * wide + c] : T(1));
  Product<T> product{};
  product.rows = count;
  product.a = start;
  product.lda = wide;
  for (;; --l) {
    const Layer<T>& layer = network.layers[l];
    const Range all{0, layer.outputs};
    const int wide_in = padded(layer.inputs);
    product.runs = &all;
    product.num_runs = 1;
    product.b = layer.reverse.data() + static_cast<std::size_t>(member) * layer.outputs * wide_in;
    product.inner = layer.outputs;
    if (l == 0) {
      product.panels = block.panels.data();
      product.num_panels = static_cast<int>(block.panels.size());
      product.add = true;
      product.c = inputs_.data();
      product.ldc = static_cast<int>(kPad * block.panels.size());
      product.factor = nullptr;
      kernels<T>().multiply(product);
      return;
    }
    product.num_panels = wide_in / kPad;
    product.c = values_[(l - 1) % 2].resize(static_cast<std::size_t>(count) * wide_in);
    product.ldc = wide_in;
    product.factor = derivative(l - 1);
    kernels<T>().multiply(product);
    product.a = product.c;
    product.lda = wide_in;
  }
}

template <class T>
void NetworksWorkspace<T>::reverse(int species, int count, const double* output_cotangents,
                                   double* cotangents, std::size_t stride) {
  const auto& network = networks_.of_species_[species];
  const Block& block = blocks_[species];
  const int members = networks_.members_, columns = networks_.columns_;
  const std::size_t width = kPad * block.panels.size();
  std::fill_n(inputs_.resize(count * width), count * width, T(0));
  for (int m = 0; m < members; ++m)
    if (has_cotangents(output_cotangents, count, members, m, columns))
      reverse_member(network, block, count, m, output_cotangents);
  for (int row = 0; row < count; ++row)
    for (std::size_t p = 0; p < block.panels.size(); ++p) {
      const int begin = block.panels[p] * kPad;
      const int end = std::min(begin + kPad, static_cast<int>(network.scale.size()));
      for (int n = begin; n < end; ++n)
        cotangents[row * stride + n] =
            static_cast<double>(inputs_[row * width + p * kPad + n - begin]) * network.scale[n];
    }
}

template class Networks<float>;
template class Networks<double>;
template class NetworksWorkspace<float>;
template class NetworksWorkspace<double>;

}  // namespace networks
}  // namespace nearsight
