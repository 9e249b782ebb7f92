#pragma once
#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace nearsight {

/// A fixed team of threads. Not OpenMP: hosts bring their own runtimes, and two of them with spinning threads
/// on the same cores are several times slower than one thread. The team sleeps between calls, after a moment
/// in which it looks out for the next one: waking costs as much as a small molecule's step, which has several
/// calls.
class ThreadPool {
 public:
  explicit ThreadPool(int num_threads = 1);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(thread) once in each thread, the caller's included; rethrows the first exception.
  void run(const std::function<void(int thread)>& body);

  /// Splits [0, count) into `size()` contiguous parts, always the same ones: body(thread, first, last).
  void split(std::size_t count,
             const std::function<void(int thread, std::size_t first, std::size_t last)>& body);

 private:
  void loop(int thread);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  const std::function<void(int)>* body_ = nullptr;
  std::atomic<unsigned long> generation_{0};
  std::atomic<int> running_{0};
  std::atomic<bool> stop_{false};
  std::exception_ptr failure_;
};

}  // namespace nearsight
