#pragma once
#include <memory>
#include <string>

#include "cuda/engine/potential.hpp"

namespace nearsight {
namespace cuda {

/// Message passing. Null, with the reason, for a model that core's engine has no code for either. Throws
/// Error (file). The file must outlive the potential.
template <class T>
std::unique_ptr<Potential<T>> make_mace(const ModelFile& file, const Stream& stream, std::string& reason);

}  // namespace cuda
}  // namespace nearsight
