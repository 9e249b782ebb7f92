#pragma once
// The hot loops over the mesh, compiled once per instruction set (see core/models/shared/isa.hpp).
#include <cstddef>

#include "core/models/shared/isa.hpp"

namespace nearsight {

constexpr int kMaxOrder = 8;  // of B-splines

namespace mesh {

constexpr int kLine = kMaxOrder;  // points of a line that a charge is spread to, the last ones with weight 0
constexpr int kBatch = 8;         // charges whose splines are evaluated together

/// Charges in the order of their first planes; arrays go on for kBatch more.
template <class T>
struct Placed {
  const double* place[3];  // from the first point that a charge reaches, in units of the mesh
  const int* first[3];     // that point
  const T* charge;
};

/// A brick of the mesh. Lines are so long that kLine points may be read from any first point.
template <class T>
struct Brick {
  T* values;
  int planes, lines;  // beyond the last one the first one follows
  std::size_t row;
};

/// Of columns that stand in lanes: k = h0 times a vector plus one of the column, k² = a h0² + b h0 + c.
template <class T>
struct Waves {
  T a;
  const T *b, *c;      // [lanes]
  T quarter;           // 1 / 4α²
  int length, lanes;   // of columns; columns at a time
  const T* influence;  // [length][columns] from the first of these columns on
  std::size_t columns;
};

template <class T>
using GatherFunction = void (*)(int order, const Placed<T>& placed, std::size_t first, std::size_t last,
                                const Brick<T>& brick, T (*results)[4]);

template <class T>
struct Kernels {
  /// Adds the charges [first, last), which begin at plane `from` (it may be negative, or beyond the end), to
  /// planes [begin, end) of the brick.
  void (*spread)(int order, const Placed<T>& placed, std::size_t first, std::size_t last, int from, int begin,
                 int end, const Brick<T>& brick);

  /// Writes results[charge - first] = potential, and its derivatives in units of the mesh.
  GatherFunction<T> gather;
  /// The potential alone.
  GatherFunction<T> gather_potentials;

  /// One pass of Stockham's transform of radix R; arrays are vectors of a cache line of transforms. roots[j]
  /// = cos and sin of 2π j / R.
  void (*pass)(int radix, int rest, int stride, const T* twiddles, const T* roots, const T* from_real,
               const T* from_imaginary, T* to_real, T* to_imaginary);

  /// S(k) is multiplied by the influence g, [length][lanes]; sums[4][lanes] = Σ e, Σ e f, Σ e f h0, Σ e f h0²
  /// with e = g |S|², f = 2 (1 / k² + 1 / 4α²).
  void (*multiply)(const Waves<T>& waves, T* real, T* imaginary, T* sums);
};
template <class T>
const Kernels<T>& kernels();
template <>
const Kernels<float>& kernels<float>();
template <>
const Kernels<double>& kernels<double>();

}  // namespace mesh
}  // namespace nearsight
