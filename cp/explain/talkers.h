// Who sends most: adds up the packets that workers write down, by flow. The flow tables hold no addresses and no counts.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cp/explain/trace.h"
#include "cp/explain/why.h"
#include "dp/lb/flow_table.h"
#include "dp/net/flow_key.h"

namespace lb::cp::explain {

struct Talker {
  net::FlowKey key;  // in the client's direction
  std::string listener, target_group, target;
  FlowState state = FlowState::empty;  // of the newest entry of any worker; empty: none has one
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;  // of the frames as they came
};

// Thread: one.
class TalkerBook {
 public:
  // A packet that a listener took, on its way to a target; others and replies are left out. `snapshot` may be nullptr.
  void add(const lb::Snapshot* snapshot, const TracedPacket& packet);
  // Each flow with its state by the workers' tables; most bytes first. now_ns: CLOCK_MONOTONIC.
  [[nodiscard]] std::vector<Talker> flows(const Context& context, std::uint64_t now_ns) const;

 private:
  std::map<net::FlowKey, Talker> talkers_;
};

}  // namespace lb::cp::explain
