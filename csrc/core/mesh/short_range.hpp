#pragma once
#include "core/mesh/kernels.hpp"
#include "core/mesh/region.hpp"
#include "core/models/shared/aligned.hpp"

namespace nearsight {

/// What add_short_range computes, in numbers T with sums in double, for many evaluations: a list with
/// cutoff + skin is kept while it holds all pairs. Own charges stand in blocks of neighbors in space, one in
/// each lane of a vector; a block meets the others near it one by one, so that vectors are full, and sums
/// stay in registers. A pair is seen from both of its ends: nothing is gathered or scattered, threads share
/// nothing, and results have the same bits for any number of them.
template <class T>
class ShortRange {
 public:
  /// skin 0: a new list each time. Throws what Skin throws.
  ShortRange(double alpha, double cutoff, double skin);

  /// Adds to the charges of this rank, e/Å; without `fields` potentials alone. Collective. Throws Error
  /// (numeric) for charges on top of each other, (argument) for a cutoff that reaches over absurdly many
  /// images.
  void add(const Charges& own, const Box& box, const std::vector<Region>& regions, bool fields,
           ThreadPool& threads, Ranks& ranks, Coulomb& result);

  long num_lists() const { return num_lists_; }

 private:
  static constexpr int kBlock = pairs::kBlock<T>;

  /// Of a charge: its position plus a lattice vector.
  struct Image {
    std::int32_t charge;
    Shift shift;
  };
  struct Grid;     // of bins, in which images are sorted
  struct Scratch;  // of a thread

  std::size_t num_blocks() const { return lanes_.size() / kBlock; }
  void build(const Charges& all, const Box& box, const Region& here, ThreadPool& threads);
  void find_images(const Charges& all, const Box& box, const Grid& grid);
  void find_others(const Grid& grid, const Box& box, ThreadPool& threads);
  void place(const Charges& all, const Box& box, ThreadPool& threads);
  void load_block(std::size_t block, Scratch& scratch) const;
  int load_others(std::size_t first, std::size_t last, Scratch& scratch) const;
  void sum_block(std::size_t block, Scratch& scratch, Coulomb& result);
  void find_coefficients(std::size_t block, Scratch& scratch);
  void sum_potentials(std::size_t block, Scratch& scratch, Coulomb& result) const;
  void check_distances(std::size_t block, int lane) const;

  pairs::Series<T> series_;
  Skin skin_;
  Surroundings surroundings_;
  std::vector<Image> images_;                   // sorted by bins
  std::vector<std::int32_t> bins_;              // [bins + 1] where images of a bin begin
  std::vector<std::int32_t> lanes_;             // [blocks][kBlock] images, the last ones repeated
  std::vector<std::size_t> starts_;             // [blocks + 1]
  std::vector<std::int32_t> others_;            // images near each block, itself included
  std::vector<double> x_, y_, z_;               // [images] Å
  std::vector<double> values_, widths2_;        // [images] e, Å²
  std::vector<std::array<double, 6>> virials_;  // [blocks]
  // Of pairs, [others][kBlock] 1/Å, for potentials alone; where they are known and no charge has moved since.
  AlignedBuffer<T> coefficients_;
  bool known_ = false;
  std::size_t own_ = 0;
  bool gaussian_ = false;
  long num_lists_ = 0;
};

extern template class ShortRange<float>;
extern template class ShortRange<double>;

}  // namespace nearsight
