// The flow table of one worker. Layout of the memory: dp/abi/region.h. (To be completed by its implementation.)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "dp/abi/region.h"
#include "dp/net/flow_key.h"

namespace lb {

// TCP as far as one direction shows it (DESIGN rule 7); UDP has one state.
enum class FlowState : std::uint8_t { empty = 0, fresh = 1, assumed = 2, closing = 3, reset = 4, short_lived = 5, udp = 6 };

// What a read-only look at a table tells.
struct FlowView {
  std::uint32_t target = 0;
  FlowState state = FlowState::empty;
  std::uint64_t idle_ns = 0;  // in steps of 250 ms
};

using NodeSecret = std::array<std::uint8_t, 16>;

class FlowTable {
 public:
  // `lines`: this worker's, a power of two, zeroed or re-attached. `target_flows`: entries by target id, this worker's block
  // of the stats region; counted afresh from the lines here. Both outlive the table and are written by this worker alone.
  FlowTable(std::span<abi::FlowLine> lines, std::span<std::uint32_t> target_flows, const NodeSecret& secret);

  // Looks a flow up in the table of any worker, from any thread or process, without disturbing its writer.
  // now_ns: CLOCK_MONOTONIC, as the worker's.
  static std::optional<FlowView> peek(std::span<const abi::FlowLine> lines, const NodeSecret& secret, const net::FlowKey& key,
                                      std::uint64_t now_ns);
};

}  // namespace lb
