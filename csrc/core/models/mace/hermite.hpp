#pragma once
// Interpolation of radial functions; internal linkage as in shared/simd.hpp.

namespace nearsight {
namespace mace {
namespace {

/// Weights of value, slope and curvature at the one end of an interval, and at the other: w[6] for the value
/// of the polynomial of degree five between them, the next six for its slope per Å. V is double or a vector:
/// t is the place in the interval, 0 … 1, and h = dt/dr.
template <class V>
inline void hermite_weights(V t, V h, V* w) {
  const V t2 = t * t, t3 = t2 * t, t4 = t3 * t, t5 = t4 * t;
  w[0] = 1.0 - 10.0 * t3 + 15.0 * t4 - 6.0 * t5;
  w[1] = t - 6.0 * t3 + 8.0 * t4 - 3.0 * t5;
  w[2] = 0.5 * (t2 - 3.0 * t3 + 3.0 * t4 - t5);
  w[3] = 10.0 * t3 - 15.0 * t4 + 6.0 * t5;
  w[4] = 7.0 * t4 - 4.0 * t3 - 3.0 * t5;
  w[5] = 0.5 * (t3 - 2.0 * t4 + t5);
  w[6] = 30.0 * h * (2.0 * t3 - t2 - t4);
  w[7] = h * (1.0 - 18.0 * t2 + 32.0 * t3 - 15.0 * t4);
  w[8] = h * (t - 4.5 * t2 + 6.0 * t3 - 2.5 * t4);
  w[9] = 30.0 * h * (t2 - 2.0 * t3 + t4);
  w[10] = h * (28.0 * t3 - 12.0 * t2 - 15.0 * t4);
  w[11] = h * (1.5 * t2 - 4.0 * t3 + 2.5 * t4);
}

}  // namespace
}  // namespace mace
}  // namespace nearsight
