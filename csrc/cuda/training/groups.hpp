#pragma once
#include <cstdint>

#include "cuda/training/work.hpp"

namespace nearsight {
namespace cuda {
namespace training {

/// Elements by groups, those of a group upward.
struct Groups {
  const std::int64_t* offsets;  // [groups + 1]
  const std::int32_t* members;
};

/// Groups of elements whose numbers of groups are `keys`; for groups of some hundreds.
template <class Key>
Groups group(Work& work, const Key* keys, std::int64_t count, std::int64_t num_groups);

/// offsets[0] = 0, offsets[n + 1] = offsets[n] + counts[n].
void add_up(const Stream& stream, const std::int32_t* counts, std::int64_t num_groups, std::int64_t* offsets);

}  // namespace training
}  // namespace cuda
}  // namespace nearsight
