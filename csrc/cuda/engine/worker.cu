// Lists, forward, reverse and sums over edges of one model on a GPU.
#include <algorithm>
#include <cstring>

#include "core/engine/error.hpp"
#include "cuda/engine/edges.hpp"
#include "cuda/engine/exchange.hpp"
#include "cuda/engine/potential.hpp"
#include "cuda/engine/worker.hpp"

namespace nearsight {
namespace cuda {
namespace {

/// to[places[atom of row]][columns] = from[row][columns].
__global__ void to_host_rows(int first_row, int num_rows, int columns, const std::int32_t* atoms,
                             const std::int32_t* places, const double* from, double* to) {
  const std::size_t n = thread_number();
  if (n >= static_cast<std::size_t>(num_rows) * columns) return;
  const std::size_t row = n / columns, column = n % columns;
  to[static_cast<std::size_t>(places[atoms[first_row + row]]) * columns + column] = from[n];
}

__global__ void from_host_rows(int first_row, int num_rows, int columns, const std::int32_t* atoms,
                               const std::int32_t* places, const double* from, double* to) {
  const std::size_t n = thread_number();
  if (n >= static_cast<std::size_t>(num_rows) * columns) return;
  const std::size_t row = n / columns, column = n % columns;
  to[n] = from[static_cast<std::size_t>(places[atoms[first_row + row]]) * columns + column];
}

/// The same row for all.
__global__ void repeat_row(int num_rows, int columns, const double* row, double* to) {
  const std::size_t n = thread_number();
  if (n < static_cast<std::size_t>(num_rows) * columns) to[n] = row[n % columns];
}

__global__ void add_numbers(std::size_t count, const double* from, double* to) {
  const std::size_t n = thread_number();
  if (n < count) to[n] += from[n];
}

template <class T>
class CudaWorker final : public DeviceWorker {
 public:
  CudaWorker(const ModelFile& file, const DeviceOptions& options)
      : device_(use_device(options.index)),
        num_species_(static_cast<int>(file.species.size())),
        columns_(file.num_columns()),
        potential_(make(file)),
        list_(file.cutoff, options.skin, num_species_, potential_->wants_sources()) {
    if (options.exchange && potential_->exchanges()) exchange_.emplace(stream_, *options.exchange);
  }

  void load(Span<const double> positions, Span<const int> species, const Cell& cell, Span<const int> owned,
            Span<const int> ghosts, const Extrapolations& found) override {
    use_device(device_);
    found_ = found;
    positions_.upload(stream_, positions);
    find_list(positions_.span(), species, cell, owned, ghosts);
  }

  void load(const Batch& batch, Span<const int> owned, const Extrapolations& found) override {
    use_device(device_);
    found_ = found;
    positions_.upload(stream_, batch.positions);
    read_classes(batch.species, owned, {});
    list_.update(stream_, positions_.span(), batch.first_atoms, batch.cells, classes_);
    start(batch.species.size());
  }

  void load(const DeviceArrays& arrays, Span<const int> species, const Cell& cell, Span<const int> owned,
            const Extrapolations& found) override {
    use_device(device_);
    found_ = found;
    stream_.wait_for(arrays.stream);
    find_list({arrays.positions, 3 * species.size()}, species, cell, owned, {});
  }

  void read_positions(const DeviceArrays& arrays, Span<double> positions) override {
    use_device(device_);
    stream_.wait_for(arrays.stream);
    if (!positions.empty())
      copy_to_host(stream_, positions.data(), arrays.positions, positions.size() * sizeof(double));
    stream_.synchronize();
  }

  void add_forces(Span<const double> forces, const DeviceArrays& arrays) override {
    use_device(device_);
    host_forces_.upload(stream_, forces);
    launch(stream_, one_each(forces.size()), add_numbers, forces.size(), host_forces_.data(), arrays.forces);
    stream_.synchronize();
  }

  void forward(Span<double> readouts) override {
    use_device(device_);
    host_rows_.resize(readouts.size());
    for_tiles([&](int first, int last) {
      find_tile(first, last);
      run_forward();
    });
    fetch_readouts();
    stream_.synchronize();
    give_readouts(readouts);
  }

  void reverse(Span<const Pull> pulls) override {
    use_device(device_);
    open(pulls);
    for_tiles([&](int first, int last) {
      if (first != graph_.edges.first_row || last - first != graph_.edges.num_rows) {
        find_tile(first, last);
        forward_tile();
      }
      find_extrapolations();
      for (std::size_t p = 0; p < pulls.size(); ++p) {
        double* const rows = cotangents_.resize(static_cast<std::size_t>(graph_.num_rows) * columns_);
        move_rows(from_host_rows, host_cotangents_[p].data(), rows);
        run_reverse(sums_[p]);
      }
    });
    fetch(pulls);
    stream_.synchronize();
    give(pulls);
  }

  void evaluate(Span<const Pull> pulls, Span<double> readouts) override {
    use_device(device_);
    open(pulls);
    host_rows_.resize(readouts.size());
    for_tiles([&](int first, int last) {
      find_tile(first, last);
      run_forward();
      find_extrapolations();
      const std::size_t count = static_cast<std::size_t>(graph_.num_rows) * columns_;
      for (std::size_t p = 0; p < pulls.size(); ++p) {
        launch(stream_, one_each(count), repeat_row, graph_.num_rows, columns_, host_cotangents_[p].data(),
               cotangents_.resize(count));
        run_reverse(sums_[p]);
      }
    });
    fetch_readouts();
    fetch(pulls);
    stream_.synchronize();
    give_readouts(readouts);
    give(pulls);
  }

  long num_list_builds() const override { return list_.num_builds(); }

 private:
  std::unique_ptr<Potential<T>> make(const ModelFile& file) {
    std::string reason;
    auto potential = make_potential<T>(file, stream_, reason);
    if (!potential)
      throw Error(ErrorKind::unsupported, "'" + file.path + "' has no code for device cuda (" + reason +
                                              "): use device cpu, or TorchForce on a GPU");
    return potential;
  }

  /// Of positions in the device's memory.
  void find_list(Span<const double> positions, Span<const int> species, const Cell& cell,
                 Span<const int> owned, Span<const int> ghosts) {
    const bool changed = read_classes(species, owned, ghosts);
    list_.update(stream_, positions, cell, classes_, changed);
    start(species.size());
  }

  /// After an update of the list.
  void start(std::size_t num_host) {
    edges_.clear(stream_);
    sources_.clear(stream_);
    if (exchange_) exchange_->follow(list_.order(), num_host);
  }

  /// Returns whether anything has changed since the last time.
  bool read_classes(Span<const int> species, Span<const int> owned, Span<const int> ghosts) {
    const auto same = [](const std::vector<int>& before, Span<const int> now) {
      return std::equal(now.begin(), now.end(), before.begin(), before.end());
    };
    if (list_.num_builds() > 0 && same(species_, species) && same(owned_, owned) && same(ghosts_, ghosts))
      return false;
    species_.assign(species.begin(), species.end());
    owned_.assign(owned.begin(), owned.end());
    ghosts_.assign(ghosts.begin(), ghosts.end());
    classes_.assign(species.size(), -1);
    std::vector<std::int32_t> places(species.size(), -1);
    for (std::size_t i = 0; i < species.size(); ++i)
      if (species[i] >= 0) classes_[i] = species[i] + 2 * num_species_;
    for (std::size_t row = 0; row < owned.size(); ++row) {
      classes_[owned[row]] = species[owned[row]];
      places[owned[row]] = static_cast<std::int32_t>(row);
    }
    for (const int i : ghosts) classes_[i] = species[i] + num_species_;
    graph_.species.clear();
    for (int z = 0; z < num_species_; ++z)
      if (std::find(species.begin(), species.end(), z) != species.end()) graph_.species.push_back(z);
    places_.upload(stream_, places);
    return true;
  }

  /// Calls body(first row, last row). Ghost centers are seen together with all owned ones.
  template <class Body>
  void for_tiles(const Body& body) {
    const AtomOrder& order = list_.order();
    const std::size_t tile = potential_->tile();
    if (tile == 0 || order.num_centers > order.num_rows) return body(0, order.num_centers);
    const int step = static_cast<int>(std::min<std::size_t>(tile, std::max(1, order.num_rows)));
    for (int first = 0; first < order.num_rows || first == 0; first += step)
      body(first, std::min(first + step, order.num_rows));
  }

  void find_tile(int first, int last) {
    const AtomOrder& order = list_.order();
    graph_.edges = edges_.find(stream_, list_, first, last);
    graph_.num_atoms = order.num_atoms;
    graph_.num_centers = order.num_centers;
    graph_.num_rows = std::min(last, order.num_rows) - first;
    graph_.num_places = list_.host_offsets()[last] - list_.host_offsets()[first];
    graph_.runs.clear();
    for (int c = 0; c < 2 * num_species_; ++c) {
      const int from = std::max(order.species_first[c], first),
                to = std::min(order.species_first[c + 1], last);
      if (from < to) graph_.runs.push_back({c % num_species_, from, to});
    }
    if (potential_->wants_sources()) {
      graph_.sources = sources_.find(stream_, list_, order.num_centers, order.num_atoms);
      graph_.num_source_places =
          list_.host_offsets()[order.num_atoms] - list_.host_offsets()[order.num_centers];
    }
    graph_.exchange = exchange_ ? &*exchange_ : nullptr;
  }

  void forward_tile() {
    potential_->forward(stream_, graph_,
                        readouts_.resize(static_cast<std::size_t>(graph_.num_rows) * columns_));
  }

  void run_forward() {
    forward_tile();
    move_rows(to_host_rows, readouts_.data(), host_rows_.data());
  }

  void find_extrapolations() {
    if (found_.counts) potential_->find_extrapolations(stream_, graph_, extrapolations_);
  }

  void run_reverse(FixedSums& sums) {
    Vec4<T>* const gradients = edges_.gradients();
    potential_->reverse(stream_, graph_, cotangents_.data(), gradients);
    sums.add(stream_, graph_.edges, gradients);
  }

  void move_rows(void (*kernel)(int, int, int, const std::int32_t*, const std::int32_t*, const double*,
                                double*),
                 const double* from, double* to) {
    launch(stream_, one_each(static_cast<std::size_t>(graph_.num_rows) * columns_), kernel,
           graph_.edges.first_row, graph_.num_rows, columns_, list_.order().atoms.data(), places_.data(),
           from, to);
  }

  void fetch_readouts() {
    edges_.fetch(stream_);
    host_readouts_.resize(host_rows_.size());
    host_rows_.download(stream_, host_readouts_.span());
  }

  /// After fetch_readouts() and Stream::synchronize().
  void give_readouts(Span<double> readouts) const {
    edges_.check();
    std::copy_n(host_readouts_.data(), readouts.size(), readouts.data());
  }

  void open(Span<const Pull> pulls) {
    sums_.resize(std::max(sums_.size(), pulls.size()));
    host_cotangents_.resize(sums_.size());
    for (std::size_t p = 0; p < pulls.size(); ++p) {
      const EdgeSums& wanted = pulls[p].sums;
      sums_[p].clear(stream_, list_.order().num_atoms,
                     {!wanted.virials.empty(), !wanted.centroid_virials.empty()});
      host_cotangents_[p].upload(stream_, pulls[p].cotangents);
    }
    if (found_.counts) extrapolations_.clear(stream_, found_.counts.size());
  }

  /// Queued; the results are for give() after the stream is done.
  void fetch(Span<const Pull> pulls) {
    for (std::size_t p = 0; p < pulls.size(); ++p) sums_[p].fetch(stream_, list_.order(), pulls[p].sums);
    if (found_.counts) extrapolations_.fetch(stream_);
  }

  void give(Span<const Pull> pulls) {
    for (std::size_t p = 0; p < pulls.size(); ++p) sums_[p].add_to(pulls[p].sums);
    if (found_.counts) extrapolations_.add_to(found_);
  }

  const int device_, num_species_, columns_;
  Stream stream_;
  std::unique_ptr<Potential<T>> potential_;
  NeighborList list_;
  EdgeSet<T> edges_, sources_;
  std::vector<FixedSums> sums_;                  // of each pull
  std::vector<Buffer<double>> host_cotangents_;  // likewise, as they are given
  Extrapolations found_;                         // of the last load()
  ExtrapolationSums extrapolations_;
  Graph<T> graph_;
  std::optional<StagedExchange> exchange_;
  std::vector<int> species_, owned_, ghosts_;  // of the last load()
  AtomClasses classes_;                        // of the host's atoms
  Buffer<std::int32_t> places_;                // their rows of readouts, or -1
  Buffer<double> positions_, host_rows_, readouts_, cotangents_, host_forces_;
  Pinned<double> host_readouts_;
};

}  // namespace

std::unique_ptr<DeviceWorker> make_worker(const ModelFile& file, const DeviceOptions& options) {
  if (options.double_precision) return std::make_unique<CudaWorker<double>>(file, options);
  return std::make_unique<CudaWorker<float>>(file, options);
}

}  // namespace cuda
}  // namespace nearsight
