#include "bindings/thread_ranks.hpp"

#include <algorithm>
#include <cstring>
#include <thread>

#include "core/engine/error.hpp"

namespace nearsight {
namespace {

/// Thrown in ranks that wait for one that has left.
struct Alone {};

std::size_t bytes_before(Span<const std::int64_t> lengths, int rank) {
  std::size_t sum = 0;
  for (int r = 0; r < rank; ++r) sum += lengths[r];
  return sum;
}

[[noreturn]] void different_exchanges() {
  throw Error(
      ErrorKind::internal,
      "ranks have entered different exchanges, but each must enter the same ones: please report this");
}

}  // namespace

void ThreadRanks::run(const std::function<void(const Communicator&)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size_; ++rank)
    threads.emplace_back([&, rank] {
      Communicator communicator;
      communicator.rank = rank;
      communicator.size = size_;
      communicator.all_sum = [this, rank](Span<double> values) { sum(rank, values); };
      communicator.all_to_all = [this, rank](const char* parts, Span<const std::int64_t> sent, char* to,
                                             Span<const std::int64_t> received) {
        exchange(rank, {{}, parts, sent, received}, to);
      };
      try {
        body(communicator);
        leave(nullptr);
      } catch (const Alone&) {
      } catch (...) {
        leave(std::current_exception());
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (failure_) std::rethrow_exception(failure_);
  if (here_ > 0) different_exchanges();
}

void ThreadRanks::sum(int rank, Span<double> values) {
  post(rank, {values, nullptr, {}, {}});
  std::vector<double> total(values.size(), 0.0);
  for (const Post& other : posts_) {
    if (other.values.size() != values.size()) different_exchanges();
    for (std::size_t k = 0; k < total.size(); ++k) total[k] += other.values[k];
  }
  meet();
  std::copy(total.begin(), total.end(), values.begin());
}

void ThreadRanks::exchange(int rank, const Post& own, char* received) {
  post(rank, own);
  for (int r = 0; r < size_; ++r) {
    const Post& other = posts_[r];
    if (other.sent.size() != own.received.size() || other.sent[rank] != own.received[r])
      different_exchanges();
    if (other.sent[rank])
      std::memcpy(received, other.parts + bytes_before(other.sent, rank), other.sent[rank]);
    received += other.sent[rank];
  }
  meet();
}

void ThreadRanks::post(int rank, const Post& own) {
  posts_[rank] = own;
  meet();
}

void ThreadRanks::meet() {
  std::unique_lock<std::mutex> lock(mutex_);
  const unsigned long meeting = meetings_;
  if (++here_ == size_) {
    here_ = 0;
    ++meetings_;
    all_here_.notify_all();
    return;
  }
  all_here_.wait(lock, [&] { return left_ || meetings_ != meeting; });
  if (meetings_ == meeting) throw Alone();
}

void ThreadRanks::leave(std::exception_ptr failure) {
  std::lock_guard<std::mutex> lock(mutex_);
  left_ = true;
  if (failure && !failure_) failure_ = failure;
  all_here_.notify_all();
}

}  // namespace nearsight
