#pragma once
// Sorting and sums over all elements, of CUDA's own library.
#include <cstdint>

#include "cuda/runtime.hpp"

namespace nearsight {
namespace cuda {

/// Scratch memory of these; one stream at a time uses it.
class Primitives {
 public:
  /// Sorts keys upward by their lowest `bits`; `keys` and `scratch` change places as the library likes, the
  /// result is in `keys`.
  void sort(const Stream& stream, Buffer<std::uint64_t>& keys, int bits);

  /// offsets[0] = 0, offsets[n + 1] = offsets[n] + counts[n].
  void offsets(const Stream& stream, const Buffer<std::int32_t>& counts, Buffer<std::int64_t>& offsets);

 private:
  Buffer<std::uint64_t> sorted_;
  Buffer<unsigned char> scratch_;
};

}  // namespace cuda
}  // namespace nearsight
