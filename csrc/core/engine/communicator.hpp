#pragma once
#include <cstdint>
#include <functional>

#include "core/engine/span.hpp"

namespace nearsight {

/// Ranks that work on one system, lent by the host; none are needed for one process. Collective: every rank
/// enters every function as often as the others, also without atoms. Where a rank fails the host ends the
/// others, as they would wait for it.
struct Communicator {
  int rank = 0, size = 1;

  /// Sum over ranks in place, with the same bits in all of them.
  std::function<void(Span<double>)> all_sum = [](Span<double>) {};

  /// Sends send_bytes[r] bytes to rank r and receives receive_bytes[r] from it, from and to itself as well;
  /// the parts stand one after another in the order of ranks. MPI_Alltoallv of bytes; both ends know the
  /// lengths, and most of them are 0, so that messages between pairs of ranks are as good.
  std::function<void(const char* send, Span<const std::int64_t> send_bytes, char* receive,
                     Span<const std::int64_t> receive_bytes)>
      all_to_all;
};

}  // namespace nearsight
