#pragma once
// Ranks that are threads of this process, to test what runs in parallel hosts without one.
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <vector>

#include "core/engine/communicator.hpp"

namespace nearsight {

class ThreadRanks {
 public:
  explicit ThreadRanks(int size) : size_(size), posts_(size) {}

  /// body(communicator) once for each rank, all at the same time. Rethrows what the first rank that failed
  /// has thrown; throws Error (internal) if ranks enter different exchanges.
  void run(const std::function<void(const Communicator&)>& body);

 private:
  /// What a rank has brought to an exchange.
  struct Post {
    Span<double> values;  // of a sum
    const char* parts = nullptr;
    Span<const std::int64_t> sent, received;
  };

  void sum(int rank, Span<double> values);
  void exchange(int rank, const Post& post, char* received);
  void post(int rank, const Post& post);
  /// Returns when all ranks have come.
  void meet();
  void leave(std::exception_ptr failure);

  int size_;
  std::vector<Post> posts_;
  std::mutex mutex_;
  std::condition_variable all_here_;
  int here_ = 0;
  unsigned long meetings_ = 0;
  bool left_ = false;  // a rank has finished: nobody may wait for it
  std::exception_ptr failure_;
};

}  // namespace nearsight
