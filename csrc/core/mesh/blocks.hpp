#pragma once
#include <memory>

#include "core/mesh/kernels.hpp"
#include "core/mesh/region.hpp"
#include "core/models/shared/aligned.hpp"

namespace nearsight {

/// Numbers of images near each block, one block after the other.
struct NearImages {
  std::vector<std::size_t> starts;    // [blocks + 1]
  std::vector<std::int32_t> numbers;  // images
};

/// Throws Error (argument) for a list that reaches so far, Å, that there are absurdly many images of atoms.
void check_num_images(double reach, double images);

/// Atoms of this rank in blocks of neighbors in space, one in each lane of a vector of numbers T; a block
/// meets the images of atoms near it one by one, so that vectors are full, and sums stay in registers. A pair
/// is seen from both of its ends: nothing is scattered, threads share nothing, and results have the same bits
/// for any number of them.
template <class T>
class Blocks {
 public:
  static constexpr int kSize = pairs::kBlock<T>;
  static constexpr double kMargin = 1e-4;  // Å, for the round-off of single precision

  /// Of an atom: its position plus a lattice vector.
  struct Image {
    std::int32_t atom;
    Shift shift;
  };

  /// Positions of a block, relative to its middle for single precision.
  class Corner {
   public:
    Corner();
    pairs::Places<T> places;  // only x, y, z
    double origin[3];

   private:
    AlignedBuffer<T> numbers_;
  };

  /// Finds the images of positions[3n], Å, within `reach` of the region of the first `own` of them, and
  /// blocks of these. Throws Error (argument) for a reach over absurdly many images.
  void build(Span<const double> positions, std::size_t own, const Box& box, const Region& here, double reach);

  /// Puts the images where they are now; returns whether one has moved.
  bool place(Span<const double> positions, const Box& box, ThreadPool& threads);

  /// Images within `reach`, at most that of `build`, of an atom of each block; the atoms themselves included.
  NearImages find_near(double reach, const Box& box, ThreadPool& threads) const;

  std::size_t size() const { return lanes_.size() / kSize; }
  const std::vector<Image>& images() const { return images_; }
  /// Whether a lane has an atom that no lane before it has.
  bool is_taken(std::size_t block, int lane) const { return block * kSize + lane < own_; }
  /// The image that is the atom of a lane.
  std::int32_t self(std::size_t block, int lane) const { return lanes_[block * kSize + lane]; }
  const std::int32_t* lanes(std::size_t block) const { return lanes_.data() + block * kSize; }

  Vec3 position(std::int32_t image) const { return {x_[image], y_[image], z_[image]}; }
  void load(std::size_t block, Corner& corner) const;
  /// Positions of some images relative to a corner.
  void collect(int count, const std::int32_t* images, const Corner& corner, const pairs::Places<T>& to) const;

 private:
  struct Grid;  // of bins, in which images are sorted

  void find_images(Span<const double> positions, const Box& box);

  std::unique_ptr<Grid> grid_;
  std::vector<Image> images_;        // sorted by bins
  std::vector<std::int32_t> bins_;   // [bins + 1] where images of a bin begin
  std::vector<std::int32_t> lanes_;  // [blocks][kSize] images, the last ones repeated
  std::vector<double> x_, y_, z_;    // [images] Å
  std::size_t own_ = 0;

 public:
  Blocks();
  ~Blocks();
};

extern template class Blocks<float>;
extern template class Blocks<double>;

}  // namespace nearsight
