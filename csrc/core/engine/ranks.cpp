#include "core/engine/ranks.hpp"

#include <algorithm>
#include <string>

#include "core/engine/error.hpp"

namespace nearsight {

Ranks::Ranks(Communicator communicator) : communicator_(std::move(communicator)) {
  const int size = communicator_.size;
  if (size < 1 || communicator_.rank < 0 || communicator_.rank >= size)
    throw Error(ErrorKind::argument, "rank " + std::to_string(communicator_.rank) + " of " +
                                         std::to_string(size) +
                                         " ranks was given, but ranks are counted from 0: correct the host's "
                                         "communicator");
  if (size > 1 && !(communicator_.all_sum && communicator_.all_to_all))
    throw Error(ErrorKind::argument,
                "the host has " + std::to_string(size) +
                    " ranks, but did not lend both all_sum and all_to_all: lend them, or start one rank");
}

void Ranks::sum(Span<double> values) {
  if (alone()) return;
  const double start = seconds_now();
  communicator_.all_sum(values);
  seconds_ += seconds_now() - start;
}

std::vector<double> Ranks::gather(Span<const double> own) {
  std::vector<double> all(size() * own.size(), 0.0);
  std::copy(own.begin(), own.end(), all.begin() + rank() * own.size());
  sum(all);  // only one rank has something else than 0, so that it is exact
  return all;
}

std::vector<std::int64_t> Ranks::in_bytes(const std::vector<std::size_t>& counts, std::size_t each) {
  std::vector<std::int64_t> bytes;
  for (const std::size_t count : counts) bytes.push_back(static_cast<std::int64_t>(count * each));
  return bytes;
}

void Ranks::exchange_bytes(const char* parts, const std::vector<std::int64_t>& sent, char* received,
                           const std::vector<std::int64_t>& counts) {
  const double start = seconds_now();
  communicator_.all_to_all(parts, sent, received, counts);
  seconds_ += seconds_now() - start;
}

}  // namespace nearsight
