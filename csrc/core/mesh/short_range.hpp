#pragma once
#include "core/mesh/blocks.hpp"

namespace nearsight {

/// What add_short_range computes, in numbers T with sums in double, for many evaluations: a list with
/// cutoff + skin is kept while it holds all pairs. Charges stand in Blocks.
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
  static constexpr int kBlock = Blocks<T>::kSize;

  struct Scratch;  // of a thread

  void place(const Charges& all, const Box& box, ThreadPool& threads);
  void load_block(std::size_t block, Scratch& scratch) const;
  int load_others(std::size_t first, std::size_t last, Scratch& scratch) const;
  void sum_block(std::size_t block, Scratch& scratch, Coulomb& result);
  void find_coefficients(std::size_t block, Scratch& scratch);
  void sum_potentials(std::size_t block, Scratch& scratch, Coulomb& result) const;
  void check_distances(std::size_t block, int lane) const;

  pairs::Series<T> series_;
  Skin skin_;
  ChargeSurroundings surroundings_;
  Blocks<T> blocks_;
  NearImages near_;
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
