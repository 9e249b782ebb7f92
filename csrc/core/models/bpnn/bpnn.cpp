// Behler-Parrinello networks: symmetry functions, then one dense network per species.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/engine/error.hpp"
#include "core/engine/model.hpp"
#include "core/models/bpnn/acsf.hpp"

namespace nearsight {
namespace bpnn {
namespace {

constexpr std::size_t kTile = 64;  // centers at once: descriptors and activations stay in the cache

int padded(int n) {
  return (n + kPad - 1) / kPad * kPad;
}

/// y = x Wᵀ + b, with the weights in both orders, rows padded: the products of forward and of reverse run
/// along rows.
struct Layer {
  int inputs, outputs;
  AlignedBuffer<double> forward, bias,
      reverse;  // [inputs][padded outputs], [padded outputs], [outputs][padded inputs]
};

struct Network {
  std::vector<Layer> layers;
  std::vector<double> shift, scale;  // of the descriptor
};

/// Networks are in double also in mixed precision: they cost a tenth of the descriptor, and they amplify its
/// round-off.
struct Networks {
  std::vector<Network> of_species;
  std::vector<double> output_scale;
  Activation activation;
  int max_width = 0;  // padded width of the widest layer, the descriptor included
};

struct Header {
  std::vector<SymmetryFunction> functions;
  CutoffFunction cutoff_function;
  Activation activation;
  std::vector<int> hidden;
};

Header read_header(const ModelFile& file) {
  using nlohmann::json;
  try {
    const json hyper = json::parse(file.hyperparameters);
    Header header;
    header.cutoff_function = cutoff_function_of(hyper.at("cutoff_function"));
    const std::string activation = hyper.at("activation");
    if (activation != "tanh" && activation != "silu")
      throw Error(ErrorKind::file, "activation '" + activation + "' is not known, expected tanh or silu");
    header.activation = activation == "tanh" ? Activation::tanh : Activation::silu;
    header.hidden = hyper.at("hidden").get<std::vector<int>>();
    const auto species_number = [&](const std::string& symbol) {
      for (std::size_t k = 0; k < file.species.size(); ++k)
        if (file.species[k] == symbol) return static_cast<int>(k);
      throw Error(ErrorKind::file, "'" + file.path + "': a symmetry function names the species '" + symbol +
                                       "', which is not in the model's list: export the model again");
    };
    for (std::size_t center = 0; center < file.species.size(); ++center)
      for (const auto& f : hyper.at("symmetry_functions").at(file.species[center])) {
        const std::string kind = f.at("kind");
        const bool radial = kind == "radial";
        if (!radial && kind != "angular_narrow" && kind != "angular_wide")
          throw Error(ErrorKind::file, "symmetry function kind '" + kind +
                                           "' is not known, expected radial, angular_narrow or angular_wide");
        const auto& neighbors = f.at("neighbors");
        header.functions.push_back({radial                     ? SymmetryFunction::radial
                                    : kind == "angular_narrow" ? SymmetryFunction::angular_narrow
                                                               : SymmetryFunction::angular_wide,
                                    static_cast<int>(center), species_number(neighbors.at(0)),
                                    radial ? -1 : species_number(neighbors.at(1)), f.at("eta"),
                                    f.at("r_shift"), radial ? 0.0 : f.at("lambda").get<double>(),
                                    radial ? 0.0 : f.at("zeta").get<double>(), f.at("cutoff")});
      }
    return header;
  } catch (const json::exception& e) {
    throw Error(ErrorKind::file,
                "'" + file.path + "' has damaged hyperparameters (" + e.what() + "): export it again");
  }
}

Networks make_networks(const ModelFile& file, const Header& header) {
  Networks p;
  const int num_species = static_cast<int>(file.species.size());
  p.activation = header.activation;
  const std::size_t columns = file.num_columns();
  p.output_scale = file.weight("output_scale", {columns}).values;
  for (int species = 0; species < num_species; ++species) {
    const std::string& symbol = file.species[species];
    Network network;
    std::size_t inputs = std::count_if(header.functions.begin(), header.functions.end(),
                                       [&](const auto& f) { return f.center == species; });
    const auto& shift = file.weight(symbol + ".shift", {inputs}).values;
    const auto& scale = file.weight(symbol + ".scale", {inputs}).values;
    network.shift = shift;
    network.scale = scale;
    p.max_width = std::max(p.max_width, padded(static_cast<int>(inputs)));
    for (std::size_t l = 0; l <= header.hidden.size(); ++l) {
      const std::size_t outputs = l < header.hidden.size() ? header.hidden[l] : columns;
      const std::string name = symbol + "." + std::to_string(l);
      const auto& weight = file.weight(name + ".weight", {outputs, inputs}).values;
      const auto& bias = file.weight(name + ".bias", {outputs}).values;
      Layer layer;
      layer.inputs = static_cast<int>(inputs);
      layer.outputs = static_cast<int>(outputs);
      const std::size_t wide_in = padded(layer.inputs), wide_out = padded(layer.outputs);
      std::fill_n(layer.forward.resize(inputs * wide_out), inputs * wide_out, 0.0);
      std::fill_n(layer.reverse.resize(outputs * wide_in), outputs * wide_in, 0.0);
      std::fill_n(layer.bias.resize(wide_out), wide_out, 0.0);
      for (std::size_t o = 0; o < outputs; ++o) {
        layer.bias[o] = bias[o];
        for (std::size_t i = 0; i < inputs; ++i)
          layer.forward[i * wide_out + o] = layer.reverse[o * wide_in + i] = weight[o * inputs + i];
      }
      network.layers.push_back(std::move(layer));
      p.max_width = std::max(p.max_width, static_cast<int>(wide_out));
      inputs = outputs;
    }
    p.of_species.push_back(std::move(network));
  }
  return p;
}

template <class T>
class BpnnWorker final : public Worker {
 public:
  BpnnWorker(const Networks& networks, const Acsf<T>& acsf) : p_(networks), workspace_(acsf) {}

  void forward(const Graph& graph, Span<double> readouts) override {
    const auto& k = kernels<double>();
    sort_rows(graph);
    const int width = p_.max_width;
    const std::size_t rows = graph.num_rows, columns = p_.output_scale.size();
    const std::size_t depth = p_.of_species[0].layers.size();
    values_.resize(rows * width * (depth + 1));
    derivatives_.resize(rows * width * (depth + 1));

    for (std::size_t s = 0, first = 0; s < p_.of_species.size(); first += counts_[s++]) {
      const Network& network = p_.of_species[s];
      const int count = counts_[s];
      double* x = level(values_, 0, rows, first);
      for (int m = 0; m < count; ++m) {
        workspace_.load(graph, order_[first + m]);
        workspace_.features(x + m * width);
        for (std::size_t n = 0; n < network.shift.size(); ++n)
          x[m * width + n] = (x[m * width + n] - network.shift[n]) * network.scale[n];
      }
      for (std::size_t l = 0; l < depth; ++l) {
        const Layer& layer = network.layers[l];
        double* const y = level(values_, l + 1, rows, first);
        k.multiply(count, layer.inputs, padded(layer.outputs), x, width, layer.forward.data(),
                   layer.bias.data(), y, width);
        if (l + 1 < depth)
          for (int m = 0; m < count; ++m)
            k.activate(p_.activation, padded(layer.outputs), y + m * width,
                       level(derivatives_, l + 1, rows, first + m));
        x = y;
      }
      for (int m = 0; m < count; ++m)
        for (std::size_t c = 0; c < columns; ++c)
          readouts[order_[first + m] * columns + c] = p_.output_scale[c] * x[m * width + c];
    }
  }

  void reverse(const Graph& graph, Span<const double> cotangents, Span<double> edge_gradients) override {
    const auto& k = kernels<double>();
    const int width = p_.max_width;
    const std::size_t rows = graph.num_rows, columns = p_.output_scale.size();
    const std::size_t depth = p_.of_species[0].layers.size();
    cotangents_.resize(width);
    // The activations are no longer needed: their arrays take the adjoints.
    for (std::size_t s = 0, first = 0; s < p_.of_species.size(); first += counts_[s++]) {
      const Network& network = p_.of_species[s];
      const int count = counts_[s];
      double* dy = level(values_, depth, rows, first);
      for (int m = 0; m < count; ++m)
        for (std::size_t c = 0; c < columns; ++c)
          dy[m * width + c] = p_.output_scale[c] * cotangents[order_[first + m] * columns + c];
      for (std::size_t l = depth; l-- > 0;) {
        const Layer& layer = network.layers[l];
        double* const dx = level(values_, l, rows, first);
        k.multiply(count, layer.outputs, padded(layer.inputs), dy, width, layer.reverse.data(), nullptr, dx,
                   width);
        if (l > 0)
          for (int m = 0; m < count; ++m) {
            const double* const d = level(derivatives_, l, rows, first + m);
            for (int n = 0; n < layer.inputs; ++n) dx[m * width + n] *= d[n];
          }
        dy = dx;
      }
      for (int m = 0; m < count; ++m) {
        for (std::size_t n = 0; n < network.scale.size(); ++n)
          cotangents_[n] = static_cast<T>(dy[m * width + n] * network.scale[n]);
        const std::size_t c = order_[first + m];
        workspace_.load(graph, c);
        workspace_.reverse(cotangents_.data(), edge_gradients.data() + 3 * graph.offsets[c]);
      }
    }
  }

 private:
  /// Rows by species, so that a network sees its atoms in one block.
  void sort_rows(const Graph& graph) {
    counts_.assign(p_.of_species.size(), 0);
    order_.clear();
    for (std::size_t s = 0; s < p_.of_species.size(); ++s)
      for (std::size_t c = 0; c < graph.num_rows; ++c)
        if (graph.species[graph.centers[c]] == static_cast<int>(s)) {
          order_.push_back(c);
          ++counts_[s];
        }
  }

  double* level(AlignedBuffer<double>& buffer, std::size_t l, std::size_t rows, std::size_t row) {
    return buffer.data() + (l * rows + row) * p_.max_width;
  }

  const Networks& p_;
  AcsfWorkspace<T> workspace_;
  std::vector<T> cotangents_;  // of the features of one center
  std::vector<int> counts_;
  std::vector<std::size_t> order_;
  AlignedBuffer<double> values_, derivatives_;  // [layers + 1][rows][max_width]
};

class BpnnPotential final : public Potential {
 public:
  BpnnPotential(const ModelFile& file, const Header& header)
      : networks_(make_networks(file, header)),
        mixed_(header.functions, static_cast<int>(file.species.size()), header.cutoff_function),
        double_(header.functions, static_cast<int>(file.species.size()), header.cutoff_function) {}

  std::unique_ptr<Worker> make_worker(bool double_precision) const override {
    if (double_precision) return std::make_unique<BpnnWorker<double>>(networks_, double_);
    return std::make_unique<BpnnWorker<float>>(networks_, mixed_);
  }
  std::size_t tile() const override { return kTile; }

 private:
  Networks networks_;
  Acsf<float> mixed_;
  Acsf<double> double_;
};

}  // namespace
}  // namespace bpnn

std::unique_ptr<Potential> make_native_potential(const ModelFile& file) {
  if (file.architecture == "bpnn")
    return std::make_unique<bpnn::BpnnPotential>(file, bpnn::read_header(file));
  return nullptr;
}

}  // namespace nearsight
