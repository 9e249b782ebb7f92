#include "core/engine/ranks.hpp"

#include <algorithm>

namespace nearsight {

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
