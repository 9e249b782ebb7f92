#include "core/engine/threads.hpp"

#include <chrono>

namespace nearsight {
namespace {

constexpr std::chrono::microseconds kMoment(50);

/// Looks for a moment whether it is time already, leaving the core to whoever else wants it.
template <class Condition>
void look_out(const Condition& condition) {
  const auto end = std::chrono::steady_clock::now() + kMoment;
  while (!condition() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  for (int t = 1; t < num_threads; ++t) workers_.emplace_back([this, t] { loop(t); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::run(const std::function<void(int)>& body) {
  if (workers_.empty()) return body(0);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    body_ = &body;
    running_ = static_cast<int>(workers_.size());
    failure_ = nullptr;
    ++generation_;
  }
  start_.notify_all();
  std::exception_ptr own;
  try {
    body(0);
  } catch (...) {
    own = std::current_exception();
  }
  const auto is_done = [this] { return running_ == 0; };
  look_out(is_done);
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, is_done);
  if (own) std::rethrow_exception(own);
  if (failure_) std::rethrow_exception(failure_);
}

void ThreadPool::split(std::size_t count, const std::function<void(int, std::size_t, std::size_t)>& body) {
  const std::size_t parts = size();
  run([&](int thread) { body(thread, count * thread / parts, count * (thread + 1) / parts); });
}

void ThreadPool::loop(int thread) {
  unsigned long seen = 0;
  const auto is_called = [&] { return stop_ || generation_ != seen; };
  while (true) {
    look_out(is_called);
    std::unique_lock<std::mutex> lock(mutex_);
    start_.wait(lock, is_called);
    if (stop_) return;
    seen = generation_;
    const auto* body = body_;
    lock.unlock();
    std::exception_ptr failure;
    try {
      (*body)(thread);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    if (failure && !failure_) failure_ = failure;
    if (--running_ == 0) done_.notify_one();
  }
}

}  // namespace nearsight
