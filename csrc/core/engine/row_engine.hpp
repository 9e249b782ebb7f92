#pragma once
#include "core/engine/span.hpp"

namespace nearsight {

/// What sums over edges give, as in Results; the arrays of atoms are added to. Null: not wanted.
struct EdgeSums {
  Span<double> forces;              // [3 * atoms]
  Span<double> virials;             // [6 * atoms]
  Span<double> centroid_virials;    // [9 * atoms]
  Span<double> virial;              // [6], never null
  double* device_forces = nullptr;  // [3 * atoms] of the device's memory, in place of forces
};

/// A reverse pass: sums of dE/dr_ij over edges at these cotangents.
struct Pull {
  Span<const double> cotangents;
  EdgeSums sums;
};

/// Forward and reverse of all rows of readouts, on the CPU or on a device; a structure has been loaded
/// before. One thread calls it at a time.
class RowEngine {
 public:
  virtual ~RowEngine() = default;

  /// readouts[rows, columns].
  virtual void forward(Span<double> readouts) = 0;

  /// After forward(), which it may follow several times; cotangents[rows, columns].
  virtual void reverse(Span<const Pull> pulls) = 0;

  /// Both, for cotangents[columns] that are known before and the same for all rows: in less memory.
  virtual void evaluate(Span<const Pull> pulls, Span<double> readouts) = 0;

  virtual long num_list_builds() const = 0;
};

}  // namespace nearsight
