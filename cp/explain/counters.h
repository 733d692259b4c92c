// Workers' counters added up, for people: totals and drops by reason.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "cp/model/live.h"

namespace lb::cp::explain {

struct PacketTotals {
  std::uint64_t rx_packets = 0;
  std::uint64_t tx_packets = 0;
  std::uint64_t forwarded_packets = 0;
  std::uint64_t punted_packets = 0;
  std::uint64_t dropped_packets = 0;  // all reasons
};

struct DropTotal {
  std::string_view reason;  // as in verdicts
  std::string_view help;
  std::uint64_t packets = 0;
};

PacketTotals totals(const LiveWorker& worker);
// Every reason there is, over all workers, in the order of dp/abi/counters.h.
std::vector<DropTotal> drops(std::span<const LiveWorker> workers);

}  // namespace lb::cp::explain
