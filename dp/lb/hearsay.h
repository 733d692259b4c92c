// What workers tell each other about flows: a reply that lands on another worker than its flow's says that the flow lives,
// or that its target has reset it. One bounded ring per pair of workers; news that finds it full is lost, and told again by
// the next such packet.
//
//   worker that saw the reply ── push ──▶ [ 256 × 24 bytes ] ── drain, each millisecond ──▶ owner: touch, or shorten
//
// A flow that lives is told of at most once in kTellAfterNs, so that bulk replies cost the ring nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "dp/abi/types.h"
#include "dp/lb/flow_hash.h"

namespace lb {

inline constexpr std::uint64_t kTellAfterNs = 2'000'000'000;  // well below the shortest idle timeout

struct News {
  Hash128 hash;             // of the flow, under the node secret
  std::uint64_t reset = 0;  // 1: its target sent a reset; 0: it lives
};

// Writer: one worker, push(). Reader: one other, drain().
template <typename Item>
class Ring {
 public:
  bool push(const Item& news) {
    const std::uint32_t head = head_.load(std::memory_order_relaxed);
    if (head - tail_.load(std::memory_order_acquire) == kSize) return false;
    slots_[head % kSize] = news;
    head_.store(head + 1, std::memory_order_release);
    return true;
  }

  template <typename Take>
  void drain(const Take& take) {
    std::uint32_t tail = tail_.load(std::memory_order_relaxed);
    const std::uint32_t head = head_.load(std::memory_order_acquire);
    for (; tail != head; ++tail) take(slots_[tail % kSize]);
    tail_.store(tail, std::memory_order_release);
  }

 private:
  static constexpr std::uint32_t kSize = 256;
  alignas(abi::kCacheLineBytes) std::atomic<std::uint32_t> head_{0};  // writer's
  alignas(abi::kCacheLineBytes) std::atomic<std::uint32_t> tail_{0};  // reader's
  std::array<Item, kSize> slots_{};
};
using NewsRing = Ring<News>;

}  // namespace lb
