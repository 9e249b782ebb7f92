#include "core/models/networks/networks.hpp"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"

namespace nearsight {
namespace networks {

NEARSIGHT_CHOOSE_KERNELS(float, kernels_float)
NEARSIGHT_CHOOSE_KERNELS(double, kernels_double)

namespace {

Activation activation_of(const std::string& name) {
  const char* const names[] = {"linear", "tanh",     "silu", "logistic",     "reversed_logistic", "softplus",
                               "relu",   "gaussian", "cos",  "exp_negative", "square"};
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
    for (std::size_t l = 0; l < widths.size(); ++l) {
      network.layers.push_back(make_layer(symbol + "." + std::to_string(l), inputs, widths[l], l == 0,
                                          activation_of(activations[l]), tensors));
      inputs = widths[l];
    }
    of_species_.push_back(std::move(network));
  }
}

template <class T>
Layer<T> Networks<T>::make_layer(const std::string& name, int inputs, int outputs, bool first,
                                 Activation activation, const Tensors& tensors) const {
  const std::size_t members = members_, in = inputs, out = outputs;
  const auto& weight = tensors.at(name + ".weight", {members, out, in}).values;
  const auto& bias = tensors.at(name + ".bias", {members, out}).values;
  const std::size_t wide_in = padded(inputs), wide_out = padded(outputs);
  Layer<T> layer;
  layer.inputs = inputs;
  layer.outputs = outputs;
  layer.activation = activation;
  fill_zero(layer.forward, members * in * wide_out);
  fill_zero(layer.reverse, members * wide_out * wide_in);
  fill_zero(layer.bias, members * wide_out);
  for (std::size_t m = 0; m < members; ++m)
    for (std::size_t o = 0; o < out; ++o) {
      layer.bias[m * wide_out + o] = static_cast<T>(bias[m * out + o]);
      for (std::size_t i = 0; i < in; ++i) {
        const T w = static_cast<T>(weight[(m * out + o) * in + i]);
        layer.forward[first ? (i * members + m) * wide_out + o : (m * in + i) * wide_out + o] = w;
        layer.reverse[(m * wide_out + o) * wide_in + i] = w;
      }
    }
  return layer;
}

template <class T>
NetworksWorkspace<T>::NetworksWorkspace(const Networks<T>& networks) : networks_(networks) {
  for (const auto& network : networks.of_species_) {
    std::vector<Level> levels(network.layers.size() + 1);
    levels[0].width = padded(static_cast<int>(network.shift.size()));
    for (std::size_t l = 0; l < network.layers.size(); ++l)
      levels[l + 1].width = networks.members_ * padded(network.layers[l].outputs);
    levels_.push_back(std::move(levels));
  }
}

template <class T>
void NetworksWorkspace<T>::forward(int species, int count, const double* features, std::size_t stride,
                                   double* outputs) {
  const auto& k = kernels<T>();
  const auto& network = networks_.of_species_[species];
  auto& levels = levels_[species];
  const int members = networks_.members_, columns = networks_.columns_;
  for (auto& level : levels) {
    level.values.resize(static_cast<std::size_t>(count) * level.width);
    level.derivatives.resize(static_cast<std::size_t>(count) * level.width);
  }
  for (int row = 0; row < count; ++row) {
    T* const x = levels[0].values.data() + row * levels[0].width;
    for (std::size_t n = 0; n < network.shift.size(); ++n)
      x[n] = static_cast<T>((features[row * stride + n] - network.shift[n]) * network.scale[n]);
  }
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    const Layer<T>& layer = network.layers[l];
    Level &from = levels[l], &to = levels[l + 1];
    const int wide_in = padded(layer.inputs), wide_out = padded(layer.outputs);
    if (l == 0)
      k.multiply(count, layer.inputs, to.width, from.values.data(), from.width, layer.forward.data(),
                 to.width, layer.bias.data(), to.values.data(), to.width);
    else
      for (int m = 0; m < members; ++m)
        k.multiply(count, layer.inputs, wide_out, from.values.data() + m * wide_in, from.width,
                   layer.forward.data() + m * layer.inputs * wide_out, wide_out,
                   layer.bias.data() + m * wide_out, to.values.data() + m * wide_out, to.width);
    k.activate(layer.activation, count * to.width, to.values.data(), to.derivatives.data());
  }
  const Level& last = levels.back();
  for (int row = 0; row < count; ++row)
    for (int m = 0; m < members; ++m)
      for (int c = 0; c < columns; ++c)
        outputs[(row * members + m) * columns + c] =
            networks_.output_scale_[c] *
            static_cast<double>(last.values.data()[row * last.width + m * padded(columns) + c]);
}

template <class T>
void NetworksWorkspace<T>::reverse(int species, int count, const double* output_cotangents,
                                   double* cotangents, std::size_t stride) {
  const auto& k = kernels<T>();
  const auto& network = networks_.of_species_[species];
  auto& levels = levels_[species];
  const int members = networks_.members_, columns = networks_.columns_;
  // A member of a committee may be asked for alone: from the first to the last one with cotangents.
  const int width = members * columns;
  int first = members, end = 0;
  for (int n = 0; n < count * width; ++n) {
    if (output_cotangents[n] == 0.0) continue;
    const int m = n % width / columns;
    first = std::min(first, m);
    end = std::max(end, m + 1);
  }
  first = std::min(first, end);
  // The activations are no longer needed: their arrays take the adjoints.
  Level& last = levels.back();
  std::fill_n(last.values.data(), static_cast<std::size_t>(count) * last.width, T(0));
  for (int row = 0; row < count; ++row)
    for (int m = first; m < end; ++m)
      for (int c = 0; c < columns; ++c)
        last.values[row * last.width + m * padded(columns) + c] =
            static_cast<T>(networks_.output_scale_[c] * output_cotangents[(row * members + m) * columns + c]);
  for (std::size_t l = network.layers.size(); l-- > 0;) {
    const Layer<T>& layer = network.layers[l];
    Level &from = levels[l + 1], &to = levels[l];
    const int wide_in = padded(layer.inputs), wide_out = padded(layer.outputs);
    for (int row = 0; row < count; ++row)
      for (int n = row * from.width + first * wide_out; n < row * from.width + end * wide_out; ++n)
        from.values[n] *= from.derivatives[n];
    if (l == 0)  // the product sums over members; of a single one the padding need not be read
      k.multiply(count, end - first == 1 ? layer.outputs : (end - first) * wide_out, wide_in,
                 from.values.data() + first * wide_out, from.width,
                 layer.reverse.data() + first * wide_out * wide_in, wide_in, nullptr, to.values.data(),
                 to.width);
    else
      for (int m = first; m < end; ++m)
        k.multiply(count, layer.outputs, wide_in, from.values.data() + m * wide_out, from.width,
                   layer.reverse.data() + m * wide_out * wide_in, wide_in, nullptr,
                   to.values.data() + m * wide_in, to.width);
  }
  for (int row = 0; row < count; ++row)
    for (std::size_t n = 0; n < network.scale.size(); ++n)
      cotangents[row * stride + n] =
          static_cast<double>(levels[0].values[row * levels[0].width + n]) * network.scale[n];
}

template class Networks<float>;
template class Networks<double>;
template class NetworksWorkspace<float>;
template class NetworksWorkspace<double>;

}  // namespace networks
}  // namespace nearsight
