// Which tracked flows count against a limit of concurrent flows (dp/lb/rate_book.h): an entry of the flow table does not
// know its source. Bounded: where a flow finds no place, or that of a flow which is over or was never more than a SYN, it
// does not count. A flow counts until its client's FIN or RST, until it has been idle for its timeout, or until it loses its
// entry; that is noticed within a second.
#pragma once

#include <cstdint>
#include <span>

#include "dp/lb/rate_book.h"

namespace lb {

struct Work;

struct RateFlow {
  std::uint64_t fingerprint = 0;  // 0: free
  std::uint32_t line = 0;         // first line of the flow table
  std::uint32_t meter = 0;
  std::uint32_t listener = 0;  // abi::rate_listener()
  std::uint8_t birth = 0;      // of the meter
};

inline constexpr std::uint32_t kRateFlows = 1U << 16;  // of a worker

// The worker's thread. `places`: kRateFlows of them, zero at first.
class RateFlows {
 public:
  explicit RateFlows(std::span<RateFlow> places) : places_(places) {}

  // Packet `i` of the burst has been given an entry.
  void add(Work& work, std::uint32_t i, std::uint32_t listener, std::uint32_t meter);
  // Looks at the next `count` places, going round.
  void look(Work& work, std::uint32_t count);
  [[nodiscard]] std::uint32_t counted() const { return counted_; }

 private:
  void forget(Work& work, RateFlow& flow);

  std::span<RateFlow> places_;
  std::uint32_t next_ = 0;
  std::uint32_t counted_ = 0;
};

}  // namespace lb
