#pragma once
#include "core/models/networks/kernels.hpp"
#include "core/models/shared/aligned.hpp"

namespace nearsight {
namespace mace {

/// A matrix in the order in which the products of networks/kernels.hpp read it.
template <class T>
struct Panels {
  AlignedBuffer<T> values;  // [columns / kPad][inner][kPad]
  int inner = 0, columns = 0;
};

/// Panels of value(row, column), zero in the padding.
template <class T, class Value>
Panels<T> make_panels(int inner, int columns, const Value& value) {
  Panels<T> p;
  p.inner = inner;
  p.columns = padded(columns);
  T* const out = p.values.resize(static_cast<std::size_t>(p.inner) * p.columns);
  for (int row = 0; row < inner; ++row)
    for (int column = 0; column < p.columns; ++column)
      out[(column / kPad * inner + row) * kPad + column % kPad] =
          column < columns ? static_cast<T>(value(row, column)) : T(0);
  return p;
}

/// c[rows] = a[rows] b, or c += a b.
template <class T>
void multiply(int rows, const T* a, int lda, const Panels<T>& b, T* c, int ldc, bool add) {
  const Range all{0, b.inner};
  networks::kernels<T>().multiply({rows, a, lda, &all, 1, b.values.data(), b.inner, nullptr, b.columns / kPad,
                                   nullptr, add, c, ldc, nullptr});
}

}  // namespace mace
}  // namespace nearsight
