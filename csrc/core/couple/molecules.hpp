#pragma once
#include <vector>

#include "core/couple/couple.hpp"

namespace nearsight {

/// The molecules of a system, each with a charge of its own; where the host names none, one of all atoms with
/// the total charge. Atoms of any rank may belong to any of them, and some may have no atoms.
class Molecules {
 public:
  Molecules() = default;
  explicit Molecules(const Coupled& system);

  std::size_t size() const { return charges_.size(); }
  /// The molecule of an atom of this rank.
  int operator[](std::size_t atom) const { return numbers_[atom]; }
  /// e
  double charge(std::size_t molecule) const { return charges_[molecule]; }
  /// Whether the host has named them.
  bool are_named() const { return named_; }

 private:
  bool named_ = false;
  std::vector<int> numbers_;     // [atoms]
  std::vector<double> charges_;  // [molecules] e
};

}  // namespace nearsight
