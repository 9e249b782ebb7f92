// Behler-Parrinello networks: a descriptor, then one dense network per species. Linear models are networks
// without a hidden layer.
#include "core/models/bpnn/bpnn.hpp"

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/engine/error.hpp"
#include "core/models/bpnn/ranges.hpp"
#include "core/models/descriptor.hpp"
#include "core/models/networks/networks.hpp"
#include "core/models/reading.hpp"

namespace nearsight {
namespace {

using networks::Networks;
using networks::NetworksWorkspace;

/// Networks amplify the round-off of their inputs, and small ones cost a tenth of the descriptor: those stay
/// in double also in mixed precision.
constexpr int kSmallNetwork = 64;  // width of the widest hidden layer

/// What siblings have in common: a descriptor takes much room between forward and reverse, and is half done
/// with it before it sums features.
struct SharedDescriptor {
  std::unique_ptr<DescriptorWorkspace> workspace;
  std::size_t num_workers = 0;
  std::size_t last = 0;        // the worker whose centers it remembers
  std::vector<double> unused;  // features
};

template <class T>
class BpnnWorker final : public Worker {
 public:
  BpnnWorker(std::shared_ptr<SharedDescriptor> descriptor, const Networks<T>& networks,
             const FeatureRanges& ranges, int num_species)
      : descriptor_(std::move(descriptor)),
        number_(descriptor_->num_workers++),
        networks_(networks),
        workspace_(networks),
        ranges_(ranges),
        outputs_(static_cast<std::size_t>(networks.members()) * networks.columns()) {
    for (int s = 0; s < num_species; ++s) {
      num_features_.push_back(networks.num_features(s));
      stride_ = std::max(stride_, static_cast<std::size_t>(num_features_[s]));
    }
    counts_.resize(num_species);
  }

  std::unique_ptr<Worker> sibling() const override {
    return std::make_unique<BpnnWorker>(descriptor_, networks_, ranges_, static_cast<int>(counts_.size()));
  }

  void forward(const Graph& graph, Span<double> readouts) override {
    sort_rows(graph);
    features_.resize(order_.size() * stride_);
    block_.resize(order_.size() * outputs_);
    DescriptorWorkspace& descriptor = *descriptor_->workspace;
    descriptor.select(number_);
    descriptor.forward(graph, order_, features_.data(), stride_);
    descriptor_->last = number_;
    for_blocks([&](int species, std::size_t first, int count) {
      workspace_.forward(species, count, features_.data() + first * stride_, stride_, descriptor.active(),
                         block_.data() + first * outputs_);
    });
    for (std::size_t k = 0; k < order_.size(); ++k)
      std::copy_n(block_.data() + k * outputs_, outputs_, readouts.data() + order_[k] * outputs_);
  }

  void find_extrapolations(const Extrapolations& found) const override {
    std::size_t row = 0;
    for (std::size_t s = 0; s < counts_.size(); ++s)
      for (const std::size_t end = row + counts_[s]; row < end; ++row) {
        if (ranges_.first[s] < 0) continue;
        const double* const x = features_.data() + row * stride_;
        for (int n = 0, f = ranges_.first[s]; n < num_features_[s]; ++n, ++f) {
          if (x[n] >= ranges_.lowest[f] && x[n] <= ranges_.highest[f]) continue;
          ++found.counts[f];
          found.lowest[f] = std::min(found.lowest[f], x[n]);
          found.highest[f] = std::max(found.highest[f], x[n]);
        }
      }
  }

  void reverse(const Graph& graph, Span<const double> cotangents, Span<double> edge_gradients) override {
    for (std::size_t k = 0; k < order_.size(); ++k)
      std::copy_n(cotangents.data() + order_[k] * outputs_, outputs_, block_.data() + k * outputs_);
    for_blocks([&](int species, std::size_t first, int count) {
      workspace_.reverse(species, count, block_.data() + first * outputs_, features_.data() + first * stride_,
                         stride_);
    });
    DescriptorWorkspace& descriptor = *descriptor_->workspace;
    if (std::exchange(descriptor_->last, number_) != number_) {
      descriptor_->unused.resize(features_.size());
      descriptor.select(number_);
      descriptor.restore(graph, order_, descriptor_->unused.data(), stride_);
    }
    descriptor.reverse(graph, order_, features_.data(), stride_, edge_gradients);
  }

 private:
  /// Rows by species, so that a network sees its atoms in one block.
  void sort_rows(const Graph& graph) {
    order_.clear();
    for (std::size_t s = 0; s < counts_.size(); ++s) {
      const std::size_t before = order_.size();
      for (std::size_t c = 0; c < graph.num_rows; ++c)
        if (graph.species[graph.centers[c]] == static_cast<int>(s)) order_.push_back(c);
      counts_[s] = static_cast<int>(order_.size() - before);
    }
  }

  /// Calls body(species, first row, rows) for each species that has rows.
  template <class Body>
  void for_blocks(const Body& body) {
    std::size_t first = 0;
    for (std::size_t s = 0; s < counts_.size(); first += counts_[s++])
      if (counts_[s]) body(static_cast<int>(s), first, counts_[s]);
  }

  std::shared_ptr<SharedDescriptor> descriptor_;
  std::size_t number_;  // among those that share it
  const Networks<T>& networks_;
  NetworksWorkspace<T> workspace_;
  const FeatureRanges& ranges_;
  std::vector<int> num_features_;  // [species]
  std::size_t outputs_;            // per atom: members x columns
  std::size_t stride_ = 0;         // features of the species that has most
  std::vector<int> counts_;
  std::vector<std::size_t> order_;
  std::vector<double> features_;  // [rows][stride], their cotangents in reverse
  std::vector<double> block_;     // [rows][outputs]
};

class BpnnPotential final : public Potential {
 public:
  /// The file must outlive the potential.
  explicit BpnnPotential(const ModelFile& file) : file_(file), record_(read_bpnn(file)) {
    descriptor_ = make_descriptor(record_.descriptor, file.species, file.weights);
    for (std::size_t s = 0; s < file.species.size(); ++s)
      num_features_.push_back(descriptor_->num_features(static_cast<int>(s)));
    ranges_ = read_ranges(file, num_features_);
    if (record_.has_small_networks) networks(double_);
  }

  std::unique_ptr<Worker> make_worker(const WorkerOptions& options) const override {
    if (options.double_precision || record_.has_small_networks)
      return worker(networks(double_), options.double_precision);
    return worker(networks(mixed_), options.double_precision);
  }
  const std::vector<Feature>& features() const override { return ranges_.features; }
  std::size_t tile() const override { return descriptor_->tile(); }

 private:
  /// Made when the first worker needs them: wide networks are large, and most runs use one precision.
  template <class T>
  struct Lazy {
    std::once_flag once;
    std::unique_ptr<const Networks<T>> networks;
  };
  template <class T>
  const Networks<T>& networks(Lazy<T>& lazy) const {
    std::call_once(lazy.once, [&] {
      lazy.networks = reading(file_, [&] {
        return std::make_unique<const Networks<T>>(record_.networks, file_.species, num_features_,
                                                   record_.members, record_.columns, file_.weights);
      });
    });
    return *lazy.networks;
  }
  template <class T>
  std::unique_ptr<Worker> worker(const Networks<T>& networks, bool double_precision) const {
    auto shared = std::make_shared<SharedDescriptor>();
    shared->workspace = descriptor_->make_workspace(double_precision);
    return std::make_unique<BpnnWorker<T>>(std::move(shared), networks, ranges_,
                                           static_cast<int>(num_features_.size()));
  }

  const ModelFile& file_;
  BpnnRecord record_;
  std::unique_ptr<Descriptor> descriptor_;
  FeatureRanges ranges_;
  std::vector<int> num_features_;
  mutable Lazy<double> double_;
  mutable Lazy<float> mixed_;  // of wide networks
};

}  // namespace

BpnnRecord read_bpnn(const ModelFile& file) {
  const auto hyper = nlohmann::json::parse(file.hyperparameters);
  const auto& descriptor = hyper.at("descriptor");
  const auto& networks = hyper.at("networks");
  BpnnRecord r{
      descriptor.dump(), descriptor.value("kind", ""), networks.dump(), hyper.at("members"), 0, true};
  r.columns = file.num_columns() / std::max(1, r.members);
  if (r.members < 1 || r.members * r.columns != file.num_columns())
    throw Error(ErrorKind::file, "'" + file.path + "' has " + std::to_string(r.members) + " members and " +
                                     std::to_string(file.num_columns()) +
                                     " readout columns, which does not fit: export the model again");
  for (const auto& [symbol, network] : networks.items())
    for (const int width : network.at("hidden"))
      r.has_small_networks = r.has_small_networks && width <= kSmallNetwork;
  return r;
}

std::unique_ptr<Potential> make_bpnn(const ModelFile& file) {
  return std::make_unique<BpnnPotential>(file);
}

}  // namespace nearsight
