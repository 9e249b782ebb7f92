#pragma once
#include "core/mesh/kernels.hpp"

namespace nearsight {

/// What is left of 1 / r within the cutoff: erfc(α r) / r, shifted to zero there. erf(α r) / r is smooth in
/// r², so that Chebyshev's series of it takes a dozen terms in single precision, two dozen in double.
template <class T>
pairs::Series<T> screening_series(double alpha, double cutoff);

extern template pairs::Series<float> screening_series(double, double);
extern template pairs::Series<double> screening_series(double, double);

}  // namespace nearsight
