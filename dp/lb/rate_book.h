// A worker's meters (dp/abi/rates.h): how much of its limits each source and each listener has used. Bounded: 32,768 sources
// in sets of eight; the source that was seen longest ago gives way, strangers before known ones, and begins anew when it
// comes again. So a source that is over its limit R keeps its meter as long as fewer than about 32,768 × R other sources
// come a second; sets are chosen under the node secret.
//
// Several workers may see one source. Each admits by its own buckets and charges them with what the others have admitted: it
// looks at their meters after it has admitted a share of what a bucket holds, 1/(4 × workers), and after 64 ms at the
// latest. So together they admit at most a quarter of a bucket more than one worker would.
//
// A listener that gets more than it takes keeps half of each bucket for known sources (that came back after ten seconds,
// while it had enough for all), each up to its fair share: a limit that an attacker with many sources fills is not full for
// them.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "dp/abi/rates.h"
#include "dp/lb/flow_hash.h"

namespace lb {

// One worker's. Sizes: abi::kRateLines, abi::kRateMeters, listener capacity.
struct RateTable {
  std::span<abi::RateLine> lines;
  std::span<abi::RateMeter> meters;
  std::span<abi::RateMeter> listeners;  // by Listener::counter_index
};

enum class RateAnswer : std::uint8_t { pass, source_over, listener_over };

using RateUnits = std::array<std::uint32_t, abi::kRateKinds>;  // by RateKind: what is asked for

// A source of a listener, and the hash of that under the node secret.
struct RateSource {
  std::uint32_t listener = 0;  // abi::rate_listener()
  abi::IpAddress prefix;       // masked
  std::uint8_t prefix_length = 0;
  Hash128 hash;
};

// The worker's thread. now_ns never goes back.
class RateBook {
 public:
  static constexpr std::uint32_t kNone = 0xffffffff;

  // `all`: of every worker, in memory that was zero once; `worker`: which of them is this one's. Both outlive this.
  RateBook(std::span<const RateTable> all, std::uint32_t worker);

  // The source's meter, made if there is none. Its number, below abi::kRateMeters.
  std::uint32_t meter_of(const RateSource& source, std::uint64_t now_ns);

  // Uses the units, or none of them. `flow`: a flow that begins, which counts against the concurrent ones.
  RateAnswer take(const abi::RateLimits& limits, const RateSource& source, std::uint32_t meter, const RateUnits& units,
                  bool flow, std::uint64_t now_ns);

  // A flow of the source has an entry, or has lost it. listener: abi::rate_listener(). `birth`: birth_of(meter) when it got
  // the entry.
  void add_flow(std::uint32_t listener, std::uint32_t meter);
  void remove_flow(std::uint32_t listener, std::uint32_t meter, std::uint8_t birth);
  [[nodiscard]] std::uint8_t birth_of(std::uint32_t meter) const { return mine_.meters[meter].birth; }

 private:
  [[nodiscard]] const abi::RateMeter* meter_elsewhere(const RateTable& other, const RateSource& source) const;
  [[nodiscard]] const abi::RateMeter* listener_elsewhere(const RateTable& other, std::uint32_t listener) const;
  abi::RateMeter& meter_of_listener(std::uint32_t listener);
  void look_around(abi::RateMeter& meter, const abi::RateSet& set, const RateSource* source, std::uint64_t now_ns);
  [[nodiscard]] bool is_look_due(const abi::RateMeter& meter, const abi::RateSet& set, std::uint32_t tick) const;
  [[nodiscard]] std::uint64_t flows_of(const abi::RateMeter& meter, const RateSource* source) const;
  void note_active(abi::RateMeter& listener, std::uint64_t now_ns);
  void become_known(const abi::RateMeter& listener, std::uint32_t meter, std::uint32_t tick);
  RateAnswer refuse(abi::RateMeter& source, abi::RateMeter* listener, std::uint32_t kind, std::uint32_t tick);

  std::span<const RateTable> all_;
  RateTable mine_;
  std::uint32_t worker_;
};

// ns that `units` take to be given again.
[[nodiscard]] inline std::uint64_t rate_cost_ns(std::uint64_t cost, std::uint64_t units) {
  return (cost * units) >> abi::kRateCostShift;
}

}  // namespace lb
