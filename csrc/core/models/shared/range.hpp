#pragma once

namespace nearsight {

/// The numbers first, first + 1, … last - 1.
struct Range {
  int first, last;
};

}  // namespace nearsight
