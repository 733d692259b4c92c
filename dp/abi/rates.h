// Rates: how much a listener takes in all, and from each source (docs/guard.md).
//
//   Root::rate_limits ◀─ Listener::rate_limits            what is allowed: written by lb-cp, in the snapshot
//   stats region, for each worker: RateLine[kRateLines] │ RateMeter[kRateMeters] │ RateMeter[listener_capacity]
//                                                         what was used: written by that worker alone
//
// A meter is a source (a prefix) of one listener, or a listener as a whole. Its buckets are virtual clocks (the generic cell
// rate algorithm, ITU-T I.371): `full_at` is when the bucket will be full again, and a packet that would put that more than
// what the bucket holds into the future is over the limit.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "dp/abi/types.h"

namespace lb::abi {

enum class RateKind : std::uint8_t { new_flows, packets, bytes };
inline constexpr std::uint32_t kRateKinds = 3;

enum class RateAction : std::uint8_t { drop, reset, mark };  // reset: new flows; packets of others are dropped
inline constexpr std::uint8_t kRateActionCount = 3;

inline constexpr std::uint32_t kRateCostShift = 20;  // costs are in 2^-20 ns
inline constexpr std::uint64_t kMaxRateCost = 1'000'000'000ULL << kRateCostShift;
inline constexpr std::uint64_t kMaxRateHold = 20'000'000'000;

// What one meter may use.
struct RateSet {
  std::array<std::uint64_t, kRateKinds> cost{};  // by RateKind: 2^-20 ns a unit, at most kMaxRateCost; 0: no limit
  std::array<std::uint64_t, kRateKinds> hold{};  // ns: what a bucket holds, as the time it takes to fill
  std::uint32_t flows = 0;                       // concurrent; 0: no limit
  std::uint32_t reserved = 0;
};
static_assert(sizeof(RateSet) == 56);

struct RateLimits {
  RateSet listener;
  RateSet source;
  RateAction action = RateAction::drop;
  std::uint8_t dscp = 0;         // of `mark`, 0…63
  std::uint8_t prefix_v4 = 128;  // of the 16-byte form: a source that is an IPv4 /24 is 120
  std::uint8_t prefix_v6 = 64;
  std::uint16_t identity = 0;  // of the listener: another one that is given its counter index has another
  std::uint8_t reserved[10] = {};
};
static_assert(sizeof(RateLimits) == 128);

// A listener as meters name it: whoever gets its counter index next begins with meters of its own.
[[nodiscard]] constexpr std::uint32_t rate_listener(std::uint32_t counter_index, const RateLimits& limits) {
  return counter_index | std::uint32_t{limits.identity} << 16;
}
[[nodiscard]] constexpr std::uint32_t counter_index_of(std::uint32_t rate_listener) {
  return rate_listener & 0xffff;
}

// Whether anything is asked of packets that open no flow.
[[nodiscard]] constexpr bool limits_packets(const RateLimits& limits) {
  constexpr auto kPackets = static_cast<std::size_t>(RateKind::packets);
  constexpr auto kBytes = static_cast<std::size_t>(RateKind::bytes);
  return (limits.source.cost[kPackets] | limits.source.cost[kBytes] | limits.listener.cost[kPackets] |
          limits.listener.cost[kBytes]) != 0;
}

enum GuardFlags : std::uint32_t {  // Listener::guards: what the first packet of a flow is asked
  kGuardSecurity = 1 << 0,         // security_group is one
  kGuardRates = 1 << 1,            // rate_limits are some
};
inline constexpr std::uint32_t kMaxRateLimits = 1U << 16;

inline constexpr std::uint32_t kRateWays = 8;
inline constexpr std::uint32_t kRateLines = 4096;
inline constexpr std::uint32_t kRateMeters = kRateLines * kRateWays;  // of each worker
inline constexpr std::uint32_t kRateTickShift = 20;                   // a tick is 2^20 ns, about a millisecond

// Which meters stand in a set. Meter i of line l is number l × kRateWays + i.
struct alignas(kCacheLineBytes) RateLine {
  std::array<std::uint32_t, kRateWays> tag{};   // 31 bits of the meter's hash and kKnownSource; 0: free
  std::array<std::uint32_t, kRateWays> seen{};  // tick of its last packet
};
static_assert(sizeof(RateLine) == 64);

// In a tag: a source that came back before its listener got more than it takes. At most kMostKnown in a set.
inline constexpr std::uint32_t kKnownSource = 1U << 31;
inline constexpr std::uint32_t kMostKnown = 6;

// Writer: the worker whose table it is. Readers: the other workers and lb-cp, by relaxed loads between two looks at
// `sequence`.
struct alignas(2 * kCacheLineBytes) RateMeter {
  std::uint32_t sequence = 0;                       // odd while the meter is given to another source
  std::uint32_t listener = 0;                       // rate_listener()
  IpAddress source;                                 // bits behind prefix_length 0; of a listener's meter zero
  std::array<std::uint64_t, kRateKinds> full_at{};  // ns, CLOCK_MONOTONIC
  // Of a source: full_at of its fair share of the listener's limit. Of a listener: a second; how many known sources it has
  // seen in it (low half) and in the one before (high half); how many all workers have seen in the one before.
  std::array<std::uint64_t, kRateKinds> share{};
  std::array<std::uint32_t, kRateKinds> used{};         // units admitted by this worker, wrapping
  std::array<std::uint32_t, kRateKinds> used_then{};    // … when it looked at the other workers' meters last
  std::array<std::uint32_t, kRateKinds> others_then{};  // … and what those had admitted
  std::uint32_t flows = 0;                              // concurrent ones of this worker
  std::uint32_t refused = 0;                            // packets over a limit, marked ones included; wrapping
  std::uint32_t since = 0;         // tick: of a source's first packet; of a listener, when a packet was over its limit last
  std::uint32_t looked = 0;        // tick, at the other workers; 0: never
  std::uint8_t prefix_length = 0;  // of the 16-byte form
  std::uint8_t over = 0;           // bit RateKind, bit 3 flows: which limits packets were over
  std::uint8_t birth = 0;          // counts the sources that had this meter
  std::uint8_t reserved = 0;
};
static_assert(sizeof(RateMeter) == 128);

// One worker's part of the stats region, as its readers see it.
struct RateView {
  std::span<const RateLine> lines;       // kRateLines
  std::span<const RateMeter> meters;     // kRateMeters
  std::span<const RateMeter> listeners;  // by Listener::counter_index
};

inline constexpr std::size_t kRateMetersAt = sizeof(RateLine) * kRateLines;
inline constexpr std::size_t kRateListenersAt = kRateMetersAt + sizeof(RateMeter) * kRateMeters;

// Bytes of that part, whole pages.
[[nodiscard]] constexpr std::size_t rate_table_bytes(std::uint32_t listener_capacity) {
  constexpr std::size_t kPageBytes = 4096;
  const std::size_t bytes = kRateListenersAt + sizeof(RateMeter) * listener_capacity;
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

}  // namespace lb::abi
