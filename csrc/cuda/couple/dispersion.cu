#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "core/engine/error.hpp"
#include "core/mesh/region.hpp"
#include "cuda/couple/dispersion.hpp"
#include "cuda/couple/dispersion_kernels.hpp"
#include "cuda/mesh/mirror.hpp"

namespace nearsight {
namespace cuda {
namespace {

constexpr double kMargin = 1e-3;  // Å, for the round-off of floats

/// The tables of a record on the device.
template <class T>
class Tables {
 public:
  Tables(const DispersionRecord& record, const Stream& stream) {
    const std::size_t species = record.num_species();
    std::vector<T> radii(record.radii.begin(), record.radii.end()), damping;
    std::vector<double> numbers(species * kReferences, 0.0),
        c6(species * species * kReferences * kReferences, 0.0);
    std::vector<int> counts;
    for (std::size_t own = 0; own < species; ++own) {
      const std::vector<double>& references = record.coordination[own];
      counts.push_back(static_cast<int>(references.size()));
      std::copy(references.begin(), references.end(), numbers.begin() + own * kReferences);
      for (std::size_t other = 0; other < species; ++other) {
        const double ratio = 3.0 * record.r4r2[own] * record.r4r2[other];
        const double length = record.a1 * std::sqrt(ratio) + record.a2, square = length * length;
        damping.insert(damping.end(), {T(square * square * square), T(square * square * square * square),
                                       T(record.s8 * ratio)});
        const std::size_t columns = record.coordination[other].size();
        double* const to = c6.data() + (own * species + other) * kReferences * kReferences;
        for (std::size_t m = 0; m < references.size(); ++m)
          for (std::size_t n = 0; n < columns; ++n)
            to[m * kReferences + n] = record.c6[own][other][m * columns + n];
      }
    }
    radii_.upload(stream, radii);
    damping_.upload(stream, damping);
    numbers_.upload(stream, numbers);
    c6_.upload(stream, c6);
    counts_.upload(stream, counts);
  }

  Elements<T> get() const {
    return {radii_.data(), damping_.data(), numbers_.data(), counts_.data(), c6_.data()};
  }

 private:
  Buffer<T> radii_, damping_;
  Buffer<double> numbers_, c6_;
  Buffer<int> counts_;
};

template <class T>
class CudaD3 final : public Dispersion {
 public:
  CudaD3(const DispersionRecord& record, const Communicator& ranks, int device_index)
      : device_(use_device(device_index)),
        record_(record),
        tables_(record, stream_),
        ranks_(ranks),
        skin_(std::max(record.cutoff, record.coordination_cutoff), d3::kSkin) {}

  void evaluate(Span<const double> positions, Span<const int> species, const Cell& cell, ThreadPool&,
                Dispersed& result) override {
    use_device(device_);
    update(positions, species, cell);
    sum(species.size(), result.virials ? 10 : 4);
    give(species.size(), result);
  }

 private:
  /// Puts atoms where they are, with new lists where the old ones do not hold.
  void update(Span<const double> positions, Span<const int> species, const Cell& cell) {
    const bool same = own_species_.size() == species.size() &&
                      std::equal(species.begin(), species.end(), own_species_.begin());
    double stale = same && skin_.holds(positions, cell) ? 0.0 : 1.0;
    ranks_.sum({&stale, 1});
    if (stale == 0) {
      load_positions(positions);
      return blocks_.place(stream_, positions_.data(), room_->box(cell));
    }
    skin_.stop();  // a list that cannot be made leaves none behind
    const double reach = skin_.reach() + kMargin;
    room_ = d3::Surrounding(positions, cell, reach, ranks_);
    const Box box = room_->box(cell);
    surroundings_.choose_near(reach, positions, box, find_regions(positions, box, ranks_), ranks_);
    load_positions(positions);
    own_species_.assign(species.begin(), species.end());
    const std::vector<double> kinds(species.begin(), species.end());
    const std::vector<double> all_kinds = surroundings_.collect(kinds, 1, ranks_);
    const std::vector<int> all_species(all_kinds.begin(), all_kinds.end());
    species_.upload(stream_, all_species);
    const int num_species = static_cast<int>(record_.num_species());
    blocks_.sort(stream_, positions_.data(), species_.data(), num_species, all_species.size(), species.size(),
                 box, reach);
    blocks_.place(stream_, positions_.data(), box);
    blocks_.find(stream_, box, record_.cutoff + d3::kSkin + kMargin, far_);
    blocks_.find(stream_, box, record_.coordination_cutoff + d3::kSkin + kMargin, near_);
    skin_.start(positions, cell);
  }

  /// With those of other ranks.
  void load_positions(Span<const double> positions) {
    if (ranks_.alone())
      positions_.update(stream_, positions);
    else
      positions_.update(stream_, surroundings_.collect(positions, 3, ranks_));
  }

  /// Puts behind the numbers of own atoms those of other ranks'. Waits for the device if there are other
  /// ranks.
  void share(Buffer<double>& numbers) {
    if (ranks_.alone()) return;
    const std::size_t own = numbers.size();
    numbers.download(stream_, {shared_.resize(own), own});
    stream_.synchronize();
    const std::vector<double> all = surroundings_.collect({shared_.data(), own}, 1, ranks_);
    std::copy(all.begin(), all.end(), shared_.resize(all.size()));
    numbers.upload(stream_, {shared_.data(), all.size()});
  }

  template <class Pass>
  void run(const BlockList& list, const Pass& pass) {
    const BlockAtoms atoms = blocks_.atoms();
    launch(stream_, {dim3(static_cast<unsigned>(atoms.num_blocks())), dim3(kWarp * kD3Warps)},
           sum_images<T, Pass>, atoms, list.rows.data(), list.neighbors.data(), pass);
  }

  void sum(std::size_t n, int columns) {
    const int num_species = static_cast<int>(record_.num_species());
    const Elements<T> elements = tables_.get();
    const d3::Window<T> window = d3::make_window<T>(record_.cutoff, record_.smoothing);
    const d3::Window<T> near = d3::make_window<T>(record_.coordination_cutoff, record_.smoothing);
    const BlockAtoms atoms = blocks_.atoms();
    columns_ = columns;
    run(near_, CountPass<T>{near, elements.radii, atoms.order, coordination_.resize(n)});
    share(coordination_);
    launch(stream_, one_each(atoms.count), weigh<T>, atoms, elements, coordination_.data(),
           weights_.resize(static_cast<std::size_t>(atoms.count) * kReferences),
           references_.resize(n * num_species * 2 * kReferences));
    run(far_, AttractPass<T>{window, T(record_.s6), num_species, elements.damping, references_.data(),
                             weights_.data(), atoms.order, energies_.resize(n),
                             gradients_.resize(n * kGradients), slopes_.resize(n)});
    share(slopes_);
    values_.resize(kHead + n * columns);
    rows_.resize(7 * atoms.num_blocks());
    run(near_, MovePass<T>{near, elements.radii, slopes_.data(), energies_.data(), gradients_.data(),
                           atoms.order, columns, values_.data() + kHead, rows_.data()});
    sum_rows(stream_, atoms.num_blocks(), 7, rows_.data(), values_.data());
  }

  void give(std::size_t n, Dispersed& result) {
    values_.download(stream_, {host_.resize(values_.size()), values_.size()});
    stream_.synchronize();
    const double* const found = host_.data();
    result.energy += found[0];
    for (int a = 0; a < 6; ++a) result.virial[a] += found[1 + a];
    for (std::size_t i = 0; i < n; ++i) {
      const double* const value = found + kHead + i * columns_;
      if (result.energies) result.energies[i] += value[0];
      for (int a = 0; a < 3 && result.forces; ++a) result.forces[3 * i + a] += value[1 + a];
      for (int a = 0; a < 6 && result.virials; ++a) result.virials[6 * i + a] += value[4 + a];
    }
  }

  static constexpr std::size_t kHead = 8;  // energy and virial, then those of atoms from 64 bytes on

  int device_;
  Stream stream_;
  const DispersionRecord record_;
  Tables<T> tables_;
  Ranks ranks_;
  Skin skin_;
  std::optional<d3::Surrounding> room_;
  Surroundings surroundings_;
  std::vector<int> own_species_;
  Mirror<double> positions_;  // of all atoms
  Buffer<int> species_;       // likewise
  AtomBlocks blocks_;
  BlockList near_, far_;  // within the cutoffs of coordination and energy
  int columns_ = 0;
  Buffer<T> weights_, references_;
  Buffer<double> coordination_, energies_, slopes_, gradients_, values_, rows_;
  Pinned<double> shared_, host_;
};

}  // namespace

std::unique_ptr<Dispersion> make_dispersion(const DispersionRecord& record, bool double_precision,
                                            const Communicator& ranks, int device_index) {
  if (record.references() > static_cast<std::size_t>(kReferences))
    throw Error(ErrorKind::unsupported, "an element of the model's dispersion has " +
                                            std::to_string(record.references()) +
                                            " reference systems, but at most " + std::to_string(kReferences) +
                                            " run on a GPU: use device cpu");
  if (double_precision) return std::make_unique<CudaD3<double>>(record, ranks, device_index);
  return std::make_unique<CudaD3<float>>(record, ranks, device_index);
}

}  // namespace cuda
}  // namespace nearsight
