// Where would this flow go, and why? Runs the workers' own code on the snapshot in force and looks into the workers' live
// flow tables without disturbing them.
//
//   key ─▶ listener ─▶ flow tables of all workers ─▶ explain_flow() ─▶ verdict, target ─▶ next hop, outer header
//                                                          └▶ slot and slot's target: where a new flow would go
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dp/abi/counters.h"
#include "dp/abi/rates.h"
#include "dp/lb/flow_table.h"
#include "dp/lb/snapshot.h"
#include "dp/net/flow_key.h"

namespace lb::cp::explain {

// What `why` looks at. Everything stays valid while the Context lives.
struct Context {
  std::shared_ptr<const lb::Snapshot> snapshot;                 // nullptr: nothing accepted yet
  std::vector<std::span<const abi::FlowLine>> worker_tables;    // empty while lb-dp is away
  std::vector<std::span<const abi::Translation>> translations;  // fullnat, by worker; empty as worker_tables
  std::vector<abi::RateView> rates;                             // meters, by worker; empty as worker_tables
  NodeSecret secret{};
  std::shared_ptr<const void> owner;  // keeps the tables mapped, and …
  std::shared_ptr<const void> stats;  // … the meters
};

// A target that has slots of the group a new flow would come to.
struct Candidate {
  std::uint32_t target = 0;  // id
  double share = 0;          // of the group's slots, 0-1
};

struct WhyOptions {
  std::optional<std::uint8_t> tcp_flags;  // of the packet; else an ACK where a worker holds the flow, a SYN where none does
  bool candidates = true;                 // reads the group's whole table
  std::span<const std::uint8_t> connection_id{};  // QUIC: the packet's, or all that follows a short header's first byte
};

struct Answer {
  std::string verdict;                    // tx | punt | drop
  std::string reason;                     // of a drop, else empty
  std::optional<std::uint32_t> listener;  // indices into the snapshot
  std::optional<std::uint32_t> group;
  std::optional<std::uint32_t> target;  // id the next packet goes to
  std::string flow;                     // hit | new | none
  std::optional<std::uint32_t> worker;  // that holds the flow; the one that saw it last if there are several
  std::optional<FlowView> entry;
  std::optional<std::uint32_t> slot;           // where a new flow with this key would stand
  std::optional<std::uint32_t> slot_target;    // what the slot says now
  bool pinned_elsewhere = false;               // the flow is on another target than slot_target
  std::string pinned_because;                  // drain | health | weight | group weights | new table
  std::string next_hop;                        // "02:00:00:00:00:70 via lb1", "unresolved"; empty without a target
  std::optional<abi::IpAddress> outer_source;  // tunnel modes
  std::string outer_header;                    // … in words
  std::string connection_id;                   // what it says, in words; empty: not a listener of a group with quic
  std::string guard;                           // "pass", "allow: …", "deny: …" or the drop's name; empty: not asked
  std::vector<Candidate> candidates;           // the largest share first
  std::string explanation;                     // sentences
  std::vector<std::string> steps;              // "stage: what was found", in the order of the packet's way
};

// The next packet of the flow: an ACK (or datagram) where a worker holds it, else a SYN. now_ns: CLOCK_MONOTONIC. Thread:
// any.
Answer why(const Context& context, const net::FlowKey& key, std::uint64_t now_ns, const WhyOptions& options = {});

// Who has how much of a group's table, the largest share first. `group`: index into the snapshot.
std::vector<Candidate> candidates_of(const lb::Snapshot& snapshot, std::uint32_t group);

std::string_view help(abi::DropReason reason);  // one line

// "10.77.2.2:80": where the packets of that flow go. A target without a port of its own gets them on the listener's.
std::string target_text(const abi::Target& target, const net::FlowKey& key);

}  // namespace lb::cp::explain
