#pragma once
#include <functional>

namespace nearsight {

/// `width` numbers for each atom of the domain, float or double.
struct AtomRows {
  void* data = nullptr;  // [atoms][width]
  int width = 0;
  bool is_double = false;
};

/// Features between the layers of a model with domain decomposition, lent by the host. Collective: every rank
/// enters it as often as the others, also without atoms. Empty where one process sees the whole neighborhood
/// of its atoms.
struct Exchange {
  std::function<void(const AtomRows&)> forward;  // the rows of ghosts become those of their owners
  std::function<void(const AtomRows&)> reverse;  // the rows of ghosts are added to those of their owners
  explicit operator bool() const { return forward && reverse; }
};

}  // namespace nearsight
