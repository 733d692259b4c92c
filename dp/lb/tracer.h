// Writes packets down for `lbctl trace` and `lbctl capture` (dp/abi/trace.h): before the packet path what came, after it
// what was decided and what leaves. Off, it costs a worker one comparison a burst; on, copies of the packets that match.
// Nothing here allocates, locks or calls the system.
//
//   main thread: TraceOrders::set ──▶ worker: is_on() ─▶ before(burst) ─▶ Pipeline::process ─▶ after(burst) ─▶ TraceRing
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "dp/abi/trace.h"
#include "dp/lb/pipeline.h"

namespace lb {

// The order in force, for all workers. Writer: lb-dp's main thread.
class TraceOrders {
 public:
  void set(const abi::TraceOrder& order);  // packets_per_second 0: off

  // Changes with every set(); odd where there is something to trace.
  [[nodiscard]] std::uint64_t version() const { return version_.load(std::memory_order_relaxed); }
  // The order, if it is of this version still.
  bool read(std::uint64_t version, abi::TraceOrder& order) const;

 private:
  static constexpr std::size_t kWords = sizeof(abi::TraceOrder) / 8;
  std::atomic<std::uint64_t> version_{0};
  std::array<std::atomic<std::uint64_t>, kWords> words_{};
};

// Of one worker, its thread.
class Tracer {
 public:
  Tracer(const TraceOrders& orders, abi::TraceRing& ring);

  [[nodiscard]] bool is_on() const { return (orders_.version() & 1) != 0; }

  // Where is_on(): both around one Pipeline::process() of this burst.
  void before(const Burst& burst, std::uint64_t now_ns);
  void after(const Burst& burst, abi::Generation generation);

 private:
  struct Chosen {
    std::uint32_t packet = 0;  // of the burst
    std::uint32_t length = 0;  // of the frame
    std::uint32_t bytes = 0;   // kept
    std::array<std::uint8_t, abi::kTraceSnapBytes> frame;
  };
  bool take_order();
  [[nodiscard]] bool matches(const std::uint8_t* frame, std::uint32_t length) const;
  [[nodiscard]] bool matches_outcome(const Burst& burst, std::uint32_t packet) const;
  std::uint64_t allowed();
  void write(const Burst& burst, const Chosen& chosen, abi::Generation generation);

  const TraceOrders& orders_;
  abi::TraceRing& ring_;
  abi::TraceOrder order_;
  std::uint64_t version_ = 0;
  std::uint64_t now_ns_ = 0;
  std::uint64_t next_ns_ = 0;  // of the rate limit: records may be written from then on, a tenth of a second's worth ahead
  std::uint32_t count_ = 0;    // of chosen_, in this burst
  std::array<Chosen, kBurst> chosen_;
};

}  // namespace lb
