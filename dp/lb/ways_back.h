// The way back to the clients of nat flows: over which neighbour, VLAN and port a flow's packets came in, so that its
// replies leave there, whatever the kernel's routes say.
//
//   client address ─ hash ─▶ one of 64 sets ─▶ 127 ways (neighbour MAC, own MAC, VLAN, port), 16 bytes each
//                                                 ▲
//   flow table entry: 7 bits of meta ────────────┘ 0: none
//
// A router in front of lb is one way in each set; clients on lb's own link have one each, 8,128 at most per worker. A way is
// given to another neighbour only after nothing has come over it for longer than any flow lives, so that an entry's way,
// once written, is always right, also for workers that read it for a reply that landed on them. No room: the flow is refused
// by name (no_way_back). Writer: the worker that owns it. Readers: all workers. Memory: the flow region's, so that replies
// find their way over a restart of lb-dp as well.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "dp/abi/region.h"
#include "dp/abi/types.h"
#include "dp/base/compiler.h"

namespace lb {

struct WayBack {
  abi::MacAddress neighbour{};  // whom replies are sent to
  abi::MacAddress own{};        // from
  std::uint16_t vlan = 0;       // VID, 0: untagged
  std::uint8_t own_port = 0;    // lb-dp's own index (Burst::own_port)
  std::uint8_t used = 0;        // 1: this is a way
  friend bool operator==(const WayBack&, const WayBack&) = default;
};
static_assert(sizeof(WayBack) == 16);

class WaysBack {
 public:
  static constexpr std::uint32_t kSets = 64;
  static constexpr std::uint32_t kWays = 128;  // the first is never given: 0 means none
  static_assert(kSets * kWays == abi::kNatWays);

  // `memory`: zeroed, or of an earlier run, and outlives this; nullptr: its own.
  explicit WaysBack(abi::NatWays* memory = nullptr);

  // The number (1-127) of this way among those of the client's set; `present`: the number its flow has now, which is tried
  // first. 0: no room. tick: seconds of a clock that never goes back. Owner only.
  std::uint32_t learn(const abi::IpAddress& client, const WayBack& way, std::uint32_t present, std::uint32_t tick);

  // A way that learn() has given for this client. used == 0: there is none. Any worker.
  [[nodiscard]] WayBack at(const abi::IpAddress& client, std::uint32_t number) const;

 private:
  std::unique_ptr<abi::NatWays> own_;
  abi::NatWays* memory_;
};

// Before workers run on ways of an earlier run. A way over a port that has another MAC or number now is shut: nobody finds
// it, and its number is not given out while an entry may still name it. `ports`: MACs, by lb-dp's own index.
void shut_strange_ways(abi::NatWays& ways, std::span<const abi::MacAddress> ports);

// After a change in the number of workers: entries may stand in any table now and keep their numbers, so every worker knows
// the ways of all. A number that meant different ways is shut.
void merge_ways(std::span<const abi::NatWays* const> from, std::span<abi::NatWays* const> to);

}  // namespace lb
