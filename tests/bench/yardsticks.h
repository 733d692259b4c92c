// What the packet path is measured against, on the same buffers and in the same run.
#pragma once

#include <cstdint>
#include <span>

#include "dp/abi/region.h"
#include "dp/abi/snapshot.h"
#include "dp/lb/flow_hash.h"
#include "dp/lb/pipeline.h"

namespace lb::bench {

// A target as the limit needs it.
struct LimitTarget {
  std::uint32_t address;  // network order
  std::uint8_t macs[12];  // destination, source
};

struct Yardstick {
  const char* name;  // of the instruction set
  // Touches each header and swaps its MACs; returns the bytes counted.
  std::uint64_t (*floor)(Burst& burst);
  // The least a stateful IPIP balancer can do: reads addresses and ports, hashes them, reads one prefetched line of the flow
  // table, prepends the outer header. No listener, no state, no counters, no checks. Returns how many flows were found.
  std::uint64_t (*limit)(Burst& burst, std::span<const abi::FlowLine> lines, const HashKeys& keys,
                         const LimitTarget* targets);
};

extern const Yardstick kYardstickV2;
extern const Yardstick kYardstickV3;
extern const Yardstick kYardstickV4;

}  // namespace lb::bench
