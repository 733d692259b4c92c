// Where would this flow go, and why? Runs the workers' own code on the snapshot in force and looks into the workers' live
// flow tables without disturbing them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dp/lb/flow_table.h"
#include "dp/lb/snapshot.h"
#include "dp/net/flow_key.h"

namespace lb::cp::explain {

// What `why` looks at. Everything stays valid while the Context lives.
struct Context {
  std::shared_ptr<const lb::Snapshot> snapshot;                 // nullptr: nothing accepted yet
  std::vector<std::span<const abi::FlowLine>> worker_tables;    // empty while lb-dp is away
  NodeSecret secret{};
  std::shared_ptr<const void> owner;                            // keeps the tables mapped
};

struct Answer {
  std::string verdict;                       // tx | punt | drop
  std::string reason;                        // of a drop, else empty
  std::optional<std::uint32_t> listener;     // indices into the snapshot
  std::optional<std::uint32_t> group;
  std::optional<std::uint32_t> target;       // id the next packet goes to
  std::string flow;                          // hit | new | none
  std::optional<std::uint32_t> worker;       // that holds the flow
  std::optional<FlowView> entry;
  std::optional<std::uint32_t> slot;
  std::optional<std::uint32_t> slot_target;  // what the slot says now
  bool pinned_elsewhere = false;
  std::string explanation;
  std::vector<std::string> steps;
};

// now_ns: CLOCK_MONOTONIC.
Answer why(const Context& context, const net::FlowKey& key, std::uint64_t now_ns);

}  // namespace lb::cp::explain
