#pragma once
#include "cuda/engine/potential.hpp"

namespace nearsight {
namespace cuda {

/// No local energy: dispersion or fixed charges alone.
template <class T>
std::unique_ptr<Potential<T>> make_none();

}  // namespace cuda
}  // namespace nearsight
