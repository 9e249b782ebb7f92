#include <algorithm>

#include "core/models/bpnn/ranges.hpp"
#include "cuda/models/bpnn/bpnn.hpp"
#include "cuda/models/descriptor.hpp"
#include "cuda/models/networks/networks.hpp"

namespace nearsight {
namespace cuda {
namespace {

/// U is the type of the networks: double in mixed precision too where they are small. They cost little then,
/// also where double precision is slow, and amplify the round-off of their inputs.
template <class T, class U>
class Bpnn final : public Potential<T> {
 public:
  Bpnn(std::unique_ptr<Descriptor<T>> descriptor, const Stream& stream,
       const nearsight::networks::Networks<U>& networks, int num_species, const FeatureRanges& ranges)
      : descriptor_(std::move(descriptor)),
        networks_(stream, networks, num_species, descriptor_->zero_means_absent()),
        first_ranges_(ranges.first),
        lowest_(tables_.keep(stream, ranges.lowest)),
        highest_(tables_.keep(stream, ranges.highest)) {
    for (int species = 0; species < num_species; ++species)
      stride_ = std::max(stride_, descriptor_->num_features(species));
  }

  void forward(const Stream& stream, const Graph<T>& graph, double* readouts) override {
    features_.resize(static_cast<std::size_t>(graph.num_rows) * stride_);
    descriptor_->forward(stream, graph, features_.data(), stride_);
    networks_.forward(stream, graph, features_.data(), stride_, readouts);
  }

  void find_extrapolations(const Stream& stream, const Graph<T>& graph,
                           ExtrapolationSums& sums) const override {
    for (const auto& run : graph.runs) {
      const int first = first_ranges_[run.species];
      if (first < 0) continue;
      const std::size_t row = run.first - graph.edges.first_row;
      sums.add(stream, {features_.data() + row * stride_, run.last - run.first, stride_,
                        descriptor_->num_features(run.species), first, lowest_, highest_});
    }
  }

  void reverse(const Stream& stream, const Graph<T>& graph, const double* cotangents,
               Vec4<T>* gradients) override {
    networks_.reverse(stream, graph, cotangents, features_.data(), stride_);
    descriptor_->reverse(stream, graph, features_.data(), stride_, gradients);
  }

  /// Enough to fill any GPU, or what takes a 32nd of its memory.
  std::size_t tile() const override {
    constexpr std::size_t kMost = 65536, kFewest = kWarp, kNeighbors = 100;
    const std::size_t per_row =
        stride_ * sizeof(double) + networks_.bytes_per_row() + descriptor_->bytes_per_row(kNeighbors);
    return std::max(kFewest, std::min(kMost, device_memory().total / 32 / per_row / kWarp * kWarp));
  }

 private:
  std::unique_ptr<Descriptor<T>> descriptor_;
  networks::Networks<U> networks_;
  int stride_ = 1;           // features of the species that has most
  Buffer<double> features_;  // [rows][stride], their cotangents in reverse
  Tables tables_;
  const std::vector<int> first_ranges_;          // [species] as in FeatureRanges
  const double *const lowest_, *const highest_;  // likewise
};

template <class T, class U>
std::unique_ptr<Potential<T>> make(const ModelFile& file, const BpnnRecord& record, const Stream& stream,
                                   std::unique_ptr<Descriptor<T>> descriptor) {
  const int num_species = static_cast<int>(file.species.size());
  std::vector<int> num_features;
  for (int s = 0; s < num_species; ++s) num_features.push_back(descriptor->num_features(s));
  const nearsight::networks::Networks<U> networks(record.networks, file.species, num_features, record.members,
                                                  record.columns, file.weights);
  return std::make_unique<Bpnn<T, U>>(std::move(descriptor), stream, networks, num_species,
                                      read_ranges(file, num_features));
}

}  // namespace

template <class T>
std::unique_ptr<Potential<T>> make_bpnn(const ModelFile& file, const Stream& stream, std::string& reason) {
  const BpnnRecord record = read_bpnn(file);
  auto descriptor = make_descriptor<T>(file, record, stream, reason);
  if (!descriptor) return nullptr;
  if (record.has_small_networks) return make<T, double>(file, record, stream, std::move(descriptor));
  return make<T, T>(file, record, stream, std::move(descriptor));
}

template std::unique_ptr<Potential<float>> make_bpnn(const ModelFile&, const Stream&, std::string&);
template std::unique_ptr<Potential<double>> make_bpnn(const ModelFile&, const Stream&, std::string&);

}  // namespace cuda
}  // namespace nearsight
