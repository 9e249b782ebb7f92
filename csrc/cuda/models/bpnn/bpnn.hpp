#pragma once
#include <memory>
#include <string>

#include "cuda/engine/potential.hpp"

namespace nearsight {
namespace cuda {

/// Descriptor and networks (architectures bpnn and linear). Null for a descriptor without kernels, with the
/// reason. The file must outlive it.
template <class T>
std::unique_ptr<Potential<T>> make_bpnn(const ModelFile& file, const Stream& stream, std::string& reason);

}  // namespace cuda
}  // namespace nearsight
