// The torchscript backend: any scripted module that keeps docs/model_contract.md. TorchScript is deprecated
// upstream, so all that knows of it in C++ is in this file.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <string>
#include <vector>

#include "core/engine/error.hpp"
#include "core/engine/potential.hpp"
#include "core/io/model_file.hpp"

namespace nearsight {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorKind::unsupported, what);
}

/// The sentence in an error of libtorch: without the C++ backtrace, and of TorchScript's own trace the last
/// line.
std::string sentence(const std::exception& e) {
  const auto* const error = dynamic_cast<const c10::Error*>(&e);
  std::string text = error ? error->what_without_backtrace() : e.what();
  text.erase(text.find_last_not_of(" \n") + 1);
  if (text.find("TorchScript interpreter") != std::string::npos) text.erase(0, text.rfind('\n') + 1);
  return text;
}

/// Parameters and floating-point buffers to one dtype; integers and masks stay (Module::to would convert them
/// too).
void convert(torch::jit::Module& module, at::ScalarType dtype) {
  const auto change = [dtype](at::Tensor tensor) {
    if (tensor.is_floating_point()) tensor.set_data(tensor.to(dtype));
  };
  for (const auto& parameter : module.parameters()) change(parameter);
  for (const auto& buffer : module.buffers()) change(buffer);
}

class TorchScriptWorker final : public Worker {
 public:
  TorchScriptWorker(torch::jit::Module module, at::ScalarType dtype, std::vector<ModelFile::Readout> readouts)
      : module_(std::move(module)), dtype_(dtype), readouts_(std::move(readouts)) {}

  void forward(const Graph& graph, Span<double> readouts) override {
    outputs_.clear();  // frees the graph of the last call, which reverse() keeps for further cotangents
    const auto tensors = make_tensors(graph);
    try {
      const auto result = module_.forward(
          {tensors.species, tensors.edges, vectors_, static_cast<std::int64_t>(graph.num_rows)});
      collect(result, graph.num_rows, readouts);
    } catch (const Error&) {
      throw;
    } catch (const std::exception& e) {
      fail("the TorchScript module failed: " + sentence(e));
    }
  }

  void reverse(const Graph& graph, Span<const double> cotangents, Span<double> edge_gradients) override {
    std::fill(edge_gradients.begin(), edge_gradients.end(), 0.0);
    if (graph.num_edges() == 0) return;
    const auto rows = static_cast<std::int64_t>(graph.num_rows);
    const auto c =
        at::from_blob(const_cast<double*>(cotangents.data()), {rows, num_columns()}, at::kDouble).to(dtype_);
    std::vector<at::Tensor> outputs, seeds;
    std::int64_t column = 0;
    for (std::size_t k = 0; k < readouts_.size(); column += readouts_[k++].columns) {
      if (!outputs_[k].requires_grad()) continue;  // a readout that ignores the geometry
      outputs.push_back(outputs_[k]);
      seeds.push_back(c.narrow(1, column, readouts_[k].columns).contiguous());
    }
    if (outputs.empty()) return;
    try {
      const auto gradient = torch::autograd::grad(outputs, {vectors_}, seeds, /*retain_graph=*/true,
                                                  /*create_graph=*/false, /*allow_unused=*/true)[0];
      if (gradient.defined()) {
        const auto g = gradient.to(at::kDouble).contiguous();
        std::copy_n(g.data_ptr<double>(), edge_gradients.size(), edge_gradients.begin());
      }
    } catch (const std::exception& e) {
      fail("the TorchScript module cannot be differentiated: " + sentence(e));
    }
  }

 private:
  struct Inputs {
    at::Tensor species, edges;
  };

  std::int64_t num_columns() const {
    std::int64_t columns = 0;
    for (const auto& r : readouts_) columns += r.columns;
    return columns;
  }

  /// The module wants its atoms without gaps, owned ones first: rows, then whatever else the edges name.
  Inputs make_tensors(const Graph& graph) {
    local_.assign(graph.species.size(), -1);
    species_.clear();
    const auto number = [&](int atom) {
      if (local_[atom] < 0) {
        local_[atom] = static_cast<std::int64_t>(species_.size());
        species_.push_back(graph.species[atom]);
      }
      return local_[atom];
    };
    for (const int center : graph.centers) number(center);
    const std::size_t num_edges = graph.num_edges();
    edges_.resize(2 * num_edges);
    for (std::size_t c = 0; c < graph.centers.size(); ++c)
      for (auto e = graph.offsets[c]; e < graph.offsets[c + 1]; ++e) {
        edges_[e] = local_[graph.centers[c]];
        edges_[num_edges + e] = number(graph.neighbors[e]);
      }
    const auto n = static_cast<std::int64_t>(num_edges);
    vectors_ = at::from_blob(const_cast<double*>(graph.vectors.data()), {n, 3}, at::kDouble)
                   .to(at::TensorOptions().dtype(dtype_), /*non_blocking=*/false, /*copy=*/true)
                   .requires_grad_(true);
    return {at::from_blob(species_.data(), {static_cast<std::int64_t>(species_.size())}, at::kLong),
            at::from_blob(edges_.data(), {2, n}, at::kLong)};
  }

  void collect(const c10::IValue& result, std::size_t rows, Span<double> readouts) {
    if (!result.isGenericDict())
      fail("the TorchScript module must return Dict[str, Tensor], as docs/model_contract.md says");
    const auto dict = result.toGenericDict();
    std::int64_t column = 0;
    const std::int64_t width = num_columns();
    for (const auto& r : readouts_) {
      if (!dict.contains(r.name)) fail("the TorchScript module did not return the readout '" + r.name + "'");
      auto tensor = dict.at(r.name).toTensor();
      if (tensor.numel() != static_cast<std::int64_t>(rows) * r.columns)
        fail("readout '" + r.name + "' of the TorchScript module has " + std::to_string(tensor.numel()) +
             " values, expected " + std::to_string(rows) + " x " + std::to_string(r.columns));
      tensor = tensor.reshape({static_cast<std::int64_t>(rows), r.columns});
      outputs_.push_back(tensor);
      const auto values = tensor.detach().to(at::kDouble).contiguous();
      const double* const v = values.data_ptr<double>();
      for (std::size_t row = 0; row < rows; ++row)
        for (int k = 0; k < r.columns; ++k) readouts[row * width + column + k] = v[row * r.columns + k];
      column += r.columns;
    }
  }

  torch::jit::Module module_;
  at::ScalarType dtype_;
  std::vector<ModelFile::Readout> readouts_;
  std::vector<std::int64_t> local_, species_, edges_;
  at::Tensor vectors_;
  std::vector<at::Tensor> outputs_;
};

class TorchScriptPotential final : public Potential {
 public:
  explicit TorchScriptPotential(const ModelFile& file)
      : module_(torch::jit::load(file.path, c10::kCPU)), readouts_(file.readouts) {
    module_.eval();
    for (auto parameter : module_.parameters()) parameter.requires_grad_(false);
  }

  std::unique_ptr<Worker> make_worker(const WorkerOptions& options) const override {
    const auto dtype = options.double_precision ? at::kDouble : at::kFloat;
    auto module = module_.deepcopy();
    convert(module, dtype);
    return std::make_unique<TorchScriptWorker>(std::move(module), dtype, readouts_);
  }

  std::size_t tile() const override { return 0; }

 private:
  torch::jit::Module module_;
  std::vector<ModelFile::Readout> readouts_;
};

}  // namespace
}  // namespace nearsight

extern "C" __attribute__((visibility("default"))) nearsight::Potential* nearsight_torchscript_load(
    const nearsight::ModelFile& file, std::string& error) {
  try {
    return new nearsight::TorchScriptPotential(file);
  } catch (const std::exception& e) {
    error = "libtorch cannot load the module: " + nearsight::sentence(e);
  }
  return nullptr;
}
