// How workers move from one generation to the next, without locks.
//
//   main:     current ← new        …waits…              all acknowledged == new → the old one is freed
//   worker w:          ↘ between two bursts: acknowledged[w] ← current, forwards by it from now on
//
// At most two generations are alive. Nothing is freed early, and nobody waits for anybody: the main thread asks again.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "dp/abi/types.h"

namespace lb::worker {

template <typename T>
class GenerationSwitch {
 public:
  explicit GenerationSwitch(std::uint32_t workers) : acknowledged_(workers) {}

  // Main thread. Precondition: no move is under way.
  void begin(std::unique_ptr<const T> next) {
    previous_ = std::move(in_force_);
    in_force_ = std::move(next);
    moving_ = true;
    current_.store(in_force_.get(), std::memory_order_release);
  }

  // Main thread. True when no move is under way (any more): every worker forwards by in_force().
  bool settled() {
    if (!moving_) return true;
    for (const Slot& slot : acknowledged_) {
      if (slot.value.load(std::memory_order_acquire) != in_force_.get()) return false;
    }
    previous_.reset();
    moving_ = false;
    return true;
  }

  // Main thread. The first worker that has not moved yet; the number of workers if all have.
  [[nodiscard]] std::uint32_t laggard() const {
    std::uint32_t w = 0;
    while (w < acknowledged_.size() && acknowledged_[w].value.load(std::memory_order_acquire) == in_force_.get()) ++w;
    return w;
  }

  [[nodiscard]] const T* in_force() const { return in_force_.get(); }

  // Worker, between two bursts: what to forward by until the next call; nullptr before the first generation.
  const T* pick_up(std::uint32_t worker) {
    const T* const now = current_.load(std::memory_order_acquire);
    std::atomic<const T*>& mine = acknowledged_[worker].value;
    if (mine.load(std::memory_order_relaxed) != now) mine.store(now, std::memory_order_release);
    return now;
  }

 private:
  // Writer: its worker. Reader: the main thread.
  struct alignas(abi::kCacheLineBytes) Slot {
    std::atomic<const T*> value{nullptr};
  };

  alignas(abi::kCacheLineBytes) std::atomic<const T*> current_{nullptr};  // writer: main; readers: workers
  alignas(abi::kCacheLineBytes) std::vector<Slot> acknowledged_;
  std::unique_ptr<const T> in_force_;
  std::unique_ptr<const T> previous_;
  bool moving_ = false;
};

}  // namespace lb::worker
