#include "core/couple/dispersion.hpp"

#include <algorithm>
#include <cmath>

#include "core/couple/dispersion_room.hpp"
#include "core/mesh/blocks.hpp"

namespace nearsight {
namespace d3 {
NEARSIGHT_CHOOSE_KERNELS(float)
NEARSIGHT_CHOOSE_KERNELS(double)
}  // namespace d3

namespace {

/// Weights of the reference systems of an atom and their derivatives by its coordination number.
struct References {
  std::vector<double> weights, changes;

  References(const std::vector<double>& coordination, double number) {
    double nearest = 1e300;
    for (const double reference : coordination)
      nearest = std::min(nearest, (number - reference) * (number - reference));
    double sum = 0, mean = 0;  // of the weights; of their logarithmic derivatives
    for (const double reference : coordination) {
      const double distance = number - reference;
      weights.push_back(std::exp(-d3::kSharpness * (distance * distance - nearest)));
      changes.push_back(-2.0 * d3::kSharpness * distance);
      sum += weights.back();
      mean += weights.back() * changes.back();
    }
    for (std::size_t n = 0; n < weights.size(); ++n) {
      weights[n] /= sum;
      changes[n] = weights[n] * (changes[n] - mean / sum);
    }
  }
};

template <class T>
class D3 final : public Dispersion {
 public:
  D3(const DispersionRecord& record, const Communicator& ranks)
      : record_(record),
        references_(record.references()),
        rows_(3 + 2 * references_),
        window_(d3::make_window<T>(record.cutoff, record.smoothing)),
        coordination_window_(d3::make_window<T>(record.coordination_cutoff, record.smoothing)),
        radii_(record.radii.begin(), record.radii.end()),
        ranks_(ranks),
        skin_(reach(), d3::kSkin) {}

  void evaluate(Span<const double> positions, Span<const int> species, const Cell& cell, ThreadPool& threads,
                Dispersed& result) override {
    update(positions, species, cell, threads);
    count(threads, species.size());
    attract(threads);
    move(threads);
    give(result);
  }

 private:
  static constexpr int kSize = Blocks<T>::kSize;
  using Sums = T (*)[kSize];
  using Totals = double[d3::kNumSums][kSize];

  /// Of a thread.
  struct Scratch {
    typename Blocks<T>::Corner corner;
    AlignedBuffer<T> numbers;
    pairs::Places<T> places;  // of others; only x, y, z
    int atoms[pairs::kChunk];
    T *radii, *slopes, *tables;
    d3::Lanes<T> lanes;
    d3::Others<T> others;

    Scratch(std::size_t tables_size) {
      T* next = numbers.resize(3 * pairs::kChunk + 2 * kSize + tables_size);
      for (T** array : {&places.x, &places.y, &places.z}) {
        *array = next;
        next += pairs::kChunk;
      }
      radii = next;
      slopes = radii + kSize;
      tables = slopes + kSize;
      const auto& own = corner.places;
      lanes = {own.x, own.y, own.z, radii, slopes, tables};
      others = {places.x, places.y, places.z, atoms};
    }
  };

  double reach() const { return std::max(record_.cutoff, record_.coordination_cutoff); }

  d3::Atoms<T> atoms() const {
    return {species_.data(), radii_.data(), weights_.data(), all_slopes_.data(),
            static_cast<int>(references_)};
  }

  /// Puts images where they are, with new lists where the old ones do not hold.
  void update(Span<const double> positions, Span<const int> species, const Cell& cell, ThreadPool& threads) {
    const bool same = own_species_.size() == species.size() &&
                      std::equal(species.begin(), species.end(), own_species_.begin());
    double stale = same && skin_.holds(positions, cell) ? 0.0 : 1.0;
    ranks_.sum({&stale, 1});
    if (stale == 0) {
      blocks_.place(surroundings_.collect(positions, 3, ranks_), room_->box(cell), threads);
      return;
    }
    skin_.stop();  // a list that cannot be made leaves none behind
    const double farthest = skin_.reach();
    room_ = d3::Surrounding(positions, cell, farthest + Blocks<T>::kMargin, ranks_);
    const Box box = room_->box(cell);
    const std::vector<Region> regions = find_regions(positions, box, ranks_);
    surroundings_.choose_near(farthest + Blocks<T>::kMargin, positions, box, regions, ranks_);
    const std::vector<double> all = surroundings_.collect(positions, 3, ranks_);
    own_species_.assign(species.begin(), species.end());
    const std::vector<double> kinds(species.begin(), species.end());
    const std::vector<double> all_kinds = surroundings_.collect(kinds, 1, ranks_);
    species_.assign(all_kinds.begin(), all_kinds.end());
    blocks_.build(all, species.size(), box, regions[ranks_.rank()], farthest);
    blocks_.place(all, box, threads);
    far_ = blocks_.find_near(record_.cutoff + d3::kSkin, box, threads);
    near_ = blocks_.find_near(record_.coordination_cutoff + d3::kSkin, box, threads);
    skin_.start(positions, cell);
  }

  /// Coordination numbers of own atoms, and from them the weights of all.
  void count(ThreadPool& threads, std::size_t own) {
    coordination_.assign(own, 0.0);
    sum(
        near_, threads, [](Scratch&, std::size_t, int) {},
        [&](const Scratch& scratch, int count, Sums sums) {
          d3::kernels<T>().count(coordination_window_, scratch.lanes, count, scratch.others, atoms(), sums);
        },
        [&](std::size_t i, const Totals& totals, int l) { coordination_[i] = totals[d3::value][l]; });
    const std::vector<double> all = surroundings_.collect(coordination_, 1, ranks_);
    weights_.assign(all.size() * references_, T(0));
    changes_.assign(all.size() * references_, T(0));
    for (std::size_t i = 0; i < all.size(); ++i) {
      const References found(record_.coordination[species_[i]], all[i]);
      std::copy(found.weights.begin(), found.weights.end(), weights_.begin() + i * references_);
      std::copy(found.changes.begin(), found.changes.end(), changes_.begin() + i * references_);
    }
  }

  /// Energies and their derivatives by positions and coordination numbers.
  void attract(ThreadPool& threads) {
    const std::size_t own = coordination_.size();
    energies_.assign(own, 0.0);
    slopes_.assign(own, 0.0);
    gradients_.assign(9 * own, 0.0);
    sum(
        far_, threads,
        [&](Scratch& scratch, std::size_t atom, int l) { load_table(atom, scratch.tables + l); },
        [&](const Scratch& scratch, int count, Sums sums) {
          d3::kernels<T>().attract(window_, T(record_.s6), scratch.lanes, count, scratch.others, atoms(),
                                   sums);
        },
        [&](std::size_t i, const Totals& totals, int l) {
          energies_[i] = 0.5 * totals[d3::value][l];
          slopes_[i] = totals[d3::slope][l];
          add_gradients(i, totals, l);
        });
  }

  /// What the coordination numbers add to the derivatives by positions.
  void move(ThreadPool& threads) {
    const std::vector<double> all = surroundings_.collect(slopes_, 1, ranks_);
    all_slopes_.assign(all.begin(), all.end());
    sum(
        near_, threads,
        [&](Scratch& scratch, std::size_t atom, int l) { scratch.slopes[l] = all_slopes_[atom]; },
        [&](const Scratch& scratch, int count, Sums sums) {
          d3::kernels<T>().move(coordination_window_, scratch.lanes, count, scratch.others, atoms(), sums);
        },
        [&](std::size_t i, const Totals& totals, int l) { add_gradients(i, totals, l); });
  }

  /// For every block load(scratch, atom, lane), kernel(scratch, count, sums) over all near images in chunks,
  /// and take(atom, totals, lane).
  template <class Load, class Kernel, class Take>
  void sum(const NearImages& near, ThreadPool& threads, const Load& load, const Kernel& kernel,
           const Take& take) {
    threads.split(blocks_.size(), [&](int, std::size_t first_block, std::size_t last_block) {
      Scratch scratch(record_.num_species() * rows_ * kSize);
      for (std::size_t block = first_block; block < last_block; ++block) {
        blocks_.load(block, scratch.corner);
        for (int l = 0; l < kSize; ++l) {
          scratch.radii[l] = radii_[species_[atom_of(block, l)]];
          load(scratch, atom_of(block, l), l);
        }
        Totals totals = {};
        for (std::size_t first = near.starts[block]; first < near.starts[block + 1]; first += pairs::kChunk) {
          const std::size_t left = near.starts[block + 1] - first;
          const int count = static_cast<int>(std::min<std::size_t>(pairs::kChunk, left));
          const std::int32_t* const images = near.numbers.data() + first;
          blocks_.collect(count, images, scratch.corner, scratch.places);
          for (int k = 0; k < count; ++k) scratch.atoms[k] = blocks_.images()[images[k]].atom;
          alignas(64) T sums[d3::kNumSums][kSize];
          kernel(scratch, count, sums);
          for (int s = 0; s < d3::kNumSums; ++s)
            for (int l = 0; l < kSize; ++l) totals[s][l] += sums[s][l];
        }
        for (int l = 0; l < kSize && blocks_.is_taken(block, l); ++l) take(atom_of(block, l), totals, l);
      }
    });
  }

  std::size_t atom_of(std::size_t block, int lane) const {
    return blocks_.images()[blocks_.self(block, lane)].atom;
  }

  /// What Lanes::tables says, for one lane.
  void load_table(std::size_t atom, T* table) const {
    const std::size_t own = species_[atom], count = record_.coordination[own].size();
    for (std::size_t other = 0; other < record_.num_species(); ++other, table += rows_ * kSize) {
      const double ratio = 3.0 * record_.r4r2[own] * record_.r4r2[other];
      const double damping = record_.a1 * std::sqrt(ratio) + record_.a2, square = damping * damping;
      table[0] = T(square * square * square);
      table[kSize] = T(square * square * square * square);
      table[2 * kSize] = T(record_.s8 * ratio);
      const std::size_t columns = record_.coordination[other].size();
      for (std::size_t n = 0; n < references_; ++n) {
        double c6 = 0, change = 0;
        for (std::size_t m = 0; m < count && n < columns; ++m) {
          const double reference = record_.c6[own][other][m * columns + n];
          c6 += weights_[atom * references_ + m] * reference;
          change += changes_[atom * references_ + m] * reference;
        }
        table[(3 + n) * kSize] = T(c6);
        table[(3 + references_ + n) * kSize] = T(change);
      }
    }
  }

  void add_gradients(std::size_t i, const Totals& totals, int lane) {
    for (int k = 0; k < 9; ++k) gradients_[9 * i + k] += totals[d3::force_x + k][lane];
  }

  void give(Dispersed& result) const {
    for (std::size_t i = 0; i < energies_.size(); ++i) {
      const double* const g = gradients_.data() + 9 * i;
      result.energy += energies_[i];
      if (result.energies) result.energies[i] += energies_[i];
      for (int a = 0; a < 3 && result.forces; ++a) result.forces[3 * i + a] += 2.0 * g[a];
      for (int a = 0; a < 6; ++a) {
        result.virial[a] -= g[3 + a];
        if (result.virials) result.virials[6 * i + a] -= g[3 + a];
      }
    }
  }

  const DispersionRecord record_;
  const std::size_t references_, rows_;  // of the species with most; of a table
  const d3::Window<T> window_, coordination_window_;
  const std::vector<T> radii_;  // [species]
  Ranks ranks_;
  Skin skin_;
  std::optional<d3::Surrounding> room_;
  Surroundings surroundings_;
  Blocks<T> blocks_;
  NearImages near_, far_;             // within the cutoffs of coordination and energy
  std::vector<int> own_species_;      // [own]
  std::vector<int> species_;          // [all]
  std::vector<T> weights_, changes_;  // [all][references]
  std::vector<T> all_slopes_;         // [all] dE/dCN, eV
  std::vector<double> coordination_, slopes_, energies_, gradients_;  // [own], the last one [own][9]
};

}  // namespace

std::unique_ptr<Dispersion> make_dispersion(const DispersionRecord& record, bool double_precision,
                                            const Communicator& ranks, Device device, int device_index) {
  if (device == Device::cuda) return make_cuda_dispersion(record, double_precision, ranks, device_index);
  if (double_precision) return std::make_unique<D3<double>>(record, ranks);
  return std::make_unique<D3<float>>(record, ranks);
}

}  // namespace nearsight
