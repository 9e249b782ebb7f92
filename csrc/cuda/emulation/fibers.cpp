#include <ucontext.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/engine/error.hpp"
#include "cuda/emulation/words.hpp"

namespace nearsight {
namespace cuda {
namespace emulation {

Indices indices;

namespace {

constexpr unsigned kMostThreads = 1024;
constexpr std::size_t kMostShared = 227 * 1024;  // of a Hopper block; 99 KiB on consumer cards
constexpr std::size_t kStack = 256 * 1024;

enum class State { ready, waits_for_warp, waits_for_block, done };

struct Fiber {
  ucontext_t beginning;
  jmp_buf place;
  std::unique_ptr<char[]> stack;
  bool started = false;
  State state = State::done;
  dim3 thread;
};

/// The threads of one block at a time.
class Block {
 public:
  static Block& get() {
    static Block block;
    return block;
  }

  void run(dim3 grid, dim3 size, std::size_t shared_bytes, const std::function<void()>& body) {
    const std::size_t threads = static_cast<std::size_t>(size.x) * size.y * size.z;
    if (threads == 0 || threads > kMostThreads || shared_bytes > kMostShared)
      throw Error(ErrorKind::internal, "a kernel of " + std::to_string(threads) + " threads and " +
                                           std::to_string(shared_bytes) +
                                           " bytes of shared memory cannot be started");
    const std::lock_guard<std::mutex> lock(mutex_);
    const char* const order = std::getenv("NEARSIGHT_EMULATION_ORDER");
    reversed_ = order && std::string(order) == "reverse";
    body_ = &body;
    count_ = threads;
    while (fibers_.size() < threads) fibers_.push_back(std::make_unique<Fiber>());
    indices.block_size = size;
    indices.grid_size = grid;
    for (unsigned z = 0; z < grid.z; ++z)
      for (unsigned y = 0; y < grid.y; ++y)
        for (unsigned x = 0; x < grid.x; ++x) {
          indices.block = dim3(x, y, z);
          shared_.assign(shared_bytes + 16, 0xff);  // what nobody wrote is no number
          run_block(size);
        }
  }

  void* shared() {
    return reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(shared_.data()) + 15) &
                                   ~std::uintptr_t(15));
  }
  unsigned char* slot(unsigned lane) { return slots_[current_ / 32][lane]; }

  void wait(State state) {
    Fiber& fiber = *fibers_[current_];
    fiber.state = state;
    if (_setjmp(fiber.place) == 0) _longjmp(scheduler_, 1);
  }

 private:
  void run_block(dim3 size) {
    std::size_t n = 0;
    for (unsigned z = 0; z < size.z; ++z)
      for (unsigned y = 0; y < size.y; ++y)
        for (unsigned x = 0; x < size.x; ++x, ++n) {
          fibers_[n]->state = State::ready;
          fibers_[n]->thread = dim3(x, y, z);
        }
    std::memset(slots_, 0, sizeof(slots_));
    for (;;) {
      for (std::size_t k = 0; k < count_; ++k) {
        const std::size_t next = reversed_ ? count_ - 1 - k : k;
        if (fibers_[next]->state == State::ready) resume(next);
      }
      std::size_t done = 0, at_block = 0;
      for (std::size_t k = 0; k < count_; ++k) {
        done += fibers_[k]->state == State::done;
        at_block += fibers_[k]->state == State::waits_for_block;
      }
      if (done == count_) return;
      bool moved = at_block > 0 && done + at_block == count_;
      if (moved) wake(0, count_, State::waits_for_block);
      for (std::size_t first = 0; first < count_ && !moved; first += 32) {
        const std::size_t last = std::min(first + 32, count_);
        std::size_t waiting = 0, gone = 0;
        for (std::size_t k = first; k < last; ++k) {
          waiting += fibers_[k]->state == State::waits_for_warp;
          gone += fibers_[k]->state == State::done;
        }
        if (waiting == 0 || waiting + gone != last - first) continue;
        wake(first, last, State::waits_for_warp);
        awake_ = true;
      }
      moved = moved || awake_;
      awake_ = false;
      if (!moved) {
        std::fprintf(stderr,
                     "threads of a block wait for each other for ever: some are at another barrier\n");
        std::abort();
      }
    }
  }

  void wake(std::size_t first, std::size_t last, State from) {
    for (std::size_t k = first; k < last; ++k)
      if (fibers_[k]->state == from) fibers_[k]->state = State::ready;
  }

  void resume(std::size_t number) {
    Fiber& fiber = *fibers_[number];
    current_ = number;
    indices.thread = fiber.thread;
    if (_setjmp(scheduler_) != 0) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    fiber.stack.reset(new char[kStack]);
    getcontext(&fiber.beginning);
    fiber.beginning.uc_stack.ss_sp = fiber.stack.get();
    fiber.beginning.uc_stack.ss_size = kStack;
    fiber.beginning.uc_link = nullptr;
    makecontext(&fiber.beginning, &Block::live, 0);
    setcontext(&fiber.beginning);
  }

  /// A fiber runs one thread after the other; it never ends.
  static void live() {
    for (;;) {
      Block& block = get();
      (*block.body_)();
      block.wait(State::done);
    }
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  const std::function<void()>* body_ = nullptr;
  std::size_t count_ = 0, current_ = 0;
  bool reversed_ = false, awake_ = false;
  jmp_buf scheduler_;
  std::vector<unsigned char> shared_;
  unsigned char slots_[kMostThreads / 32][32][16];
};

}  // namespace

void run(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body) {
  Block::get().run(grid, block, shared_bytes, body);
}
void* dynamic_shared() {
  return Block::get().shared();
}
void wait_for_block() {
  Block::get().wait(State::waits_for_block);
}
void wait_for_warp() {
  Block::get().wait(State::waits_for_warp);
}
unsigned char* lane_slot(unsigned lane) {
  return Block::get().slot(lane);
}

}  // namespace emulation
}  // namespace cuda
}  // namespace nearsight
