#pragma once
#include <chrono>
#include <cstddef>
#include <utility>
#include <vector>

#include "core/engine/communicator.hpp"

namespace nearsight {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// A communicator with a clock; one process where nothing is given. All members are collective.
class Ranks {
 public:
  explicit Ranks(Communicator communicator = {}) : communicator_(std::move(communicator)) {}

  const Communicator& communicator() const { return communicator_; }
  int rank() const { return communicator_.rank; }
  int size() const { return communicator_.size; }
  bool alone() const { return communicator_.size == 1; }
  /// Spent in exchanges so far, with waiting for the other ranks.
  double seconds() const { return seconds_; }

  /// Sum over ranks in place.
  void sum(Span<double> values);

  /// The numbers of all ranks, as many from each: [size][own.size()].
  std::vector<double> gather(Span<const double> own);

  /// Sends sent[r] elements to rank r, those of rank 0 first, and receives counts[r] from it: both ends know
  /// the counts.
  template <class T>
  void exchange(const T* parts, const std::vector<std::size_t>& sent, T* received,
                const std::vector<std::size_t>& counts) {
    exchange_bytes(reinterpret_cast<const char*>(parts), in_bytes(sent, sizeof(T)),
                   reinterpret_cast<char*>(received), in_bytes(counts, sizeof(T)));
  }

 private:
  static std::vector<std::int64_t> in_bytes(const std::vector<std::size_t>& counts, std::size_t each);
  void exchange_bytes(const char* parts, const std::vector<std::int64_t>& sent, char* received,
                      const std::vector<std::int64_t>& counts);

  Communicator communicator_;
  double seconds_ = 0;
};

}  // namespace nearsight
