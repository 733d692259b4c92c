// Counting a live flow table by target and state, without disturbing its owner. Reads a line as the owner writes it: an
// entry that appears or goes meanwhile is counted or not, and a torn one looks like one of its two halves; a census of
// millions does not notice. Entries hold no addresses (flow_table.h), so none can be told.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>

#include "dp/abi/region.h"
#include "dp/lb/flow_table.h"

namespace lb {

// By the time since the last packet: up to 1 s, 10 s, 60 s, longer.
inline constexpr std::array<std::uint64_t, 3> kCensusIdleNs{1'000'000'000, 10'000'000'000, 60'000'000'000};

struct FlowCount {
  std::uint64_t flows = 0;
  std::array<std::uint64_t, kCensusIdleNs.size() + 1> idle{};
};

struct FlowCensus {
  std::uint64_t lines = 0;                                          // there are
  std::uint64_t lines_read = 0;                                     // evenly spread over them
  std::map<std::pair<std::uint32_t, FlowState>, FlowCount> counts;  // by target id; of the lines that were read
};

// Adds one worker's table. Reads every `stride`-th line (≥ 1) of it. now_ns: CLOCK_MONOTONIC, as the workers'.
void take_census(FlowCensus& census, std::span<const abi::FlowLine> lines, std::uint64_t stride, std::uint64_t now_ns);

}  // namespace lb
