#include "core/models/design/kernels.hpp"

#include "core/models/shared/simd.hpp"

namespace nearsight {
namespace design {
namespace {

using simd::width;

constexpr int kBlock = 256;  // columns whose own forces and virial stay in the cache

/// Rows begin anywhere in memory, not only where vectors are aligned.
template <class T>
inline simd::Vec<T> load_anywhere(const T* p) {
  simd::Vec<T> v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
template <class T>
inline void add_anywhere(T* p, simd::Vec<T> v) {
  v += load_anywhere(p);
  __builtin_memcpy(p, &v, sizeof(v));
}

/// Columns [first, last) of one edge.
template <class T>
inline void add_edge(const Contribution<T>& c, int edge, int first, int last) {
  const T* const r = c.vectors + 3 * edge;
  const T* const g = c.jacobian + 3L * edge * c.columns;
  T* const own = c.forces + 3L * c.atom * c.stride;
  T* const other = c.forces + 3L * c.neighbor[edge] * c.stride;
  int k = first;
  for (; k + width<T> <= last; k += width<T>) {
    simd::Vec<T> d[3];
    for (int a = 0; a < 3; ++a) {
      d[a] = load_anywhere(g + a * c.columns + k);
      add_anywhere<T>(own + a * c.stride + k, d[a]);
      add_anywhere<T>(other + a * c.stride + k, -d[a]);
      add_anywhere<T>(c.virial + a * c.stride + k, -r[a] * d[a]);
    }
    add_anywhere<T>(c.virial + 3 * c.stride + k, T(-0.5) * (r[0] * d[1] + r[1] * d[0]));
    add_anywhere<T>(c.virial + 4 * c.stride + k, T(-0.5) * (r[0] * d[2] + r[2] * d[0]));
    add_anywhere<T>(c.virial + 5 * c.stride + k, T(-0.5) * (r[1] * d[2] + r[2] * d[1]));
  }
  for (; k < last; ++k) {
    const T d[3] = {g[k], g[c.columns + k], g[2 * c.columns + k]};
    for (int a = 0; a < 3; ++a) {
      own[a * c.stride + k] += d[a];
      other[a * c.stride + k] -= d[a];
      c.virial[a * c.stride + k] -= r[a] * d[a];
    }
    c.virial[3 * c.stride + k] -= T(0.5) * (r[0] * d[1] + r[1] * d[0]);
    c.virial[4 * c.stride + k] -= T(0.5) * (r[0] * d[2] + r[2] * d[0]);
    c.virial[5 * c.stride + k] -= T(0.5) * (r[1] * d[2] + r[2] * d[1]);
  }
}

template <class T>
void add(const Contribution<T>& c) {
  for (int first = 0; first < c.columns; first += kBlock) {
    const int last = first + kBlock < c.columns ? first + kBlock : c.columns;
    for (int edge = 0; edge < c.num_edges; ++edge) add_edge(c, edge, first, last);
  }
}

template <class T>
constexpr Kernels<T> table() {
  return {add<T>};
}

}  // namespace

NEARSIGHT_DEFINE_KERNELS(double)

}  // namespace design
}  // namespace nearsight
