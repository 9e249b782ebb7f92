#pragma once
#include "cuda/training/training.hpp"

namespace nearsight {
namespace cuda {
namespace training {

template <class T>
void contract(DeviceScope&, const equivariant::Contraction<T>&, const equivariant::Counts&);
template <class T>
void contract_reverse(DeviceScope&, const equivariant::Contraction<T>&, const equivariant::Counts&);
template <class T>
void contract_tangent(DeviceScope&, const equivariant::Contraction<T>&, const equivariant::Counts&);

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
