// What the packet path would do with the next packet of a flow, without a packet and without touching a table. Runs the very
// functions the workers run (dp/lb/decide.h).
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "dp/abi/counters.h"
#include "dp/lb/flow_table.h"
#include "dp/lb/pipeline.h"
#include "dp/lb/quic_route.h"
#include "dp/lb/snapshot.h"
#include "dp/net/flow_key.h"

namespace lb {

// Indices into the snapshot's tables; abi::kNoIndex where a stage was not reached.
struct FlowDecision {
  Verdict verdict = Verdict::drop;                 // answer: lb would reply with a reset
  abi::DropReason reason = abi::DropReason::none;  // of drop and answer
  FlowResult flow = FlowResult::none;              // fresh: it would get an entry where there is room
  std::uint32_t listener = abi::kNoIndex;
  std::uint32_t group = abi::kNoIndex;       // of `target`, else the one a new flow would get
  std::uint32_t target = abi::kNoIndex;      // where the packet would go
  std::uint32_t slot_group = abi::kNoIndex;  // what a new flow with this key would get now, whatever the entry says
  std::uint32_t slot = abi::kNoIndex;
  std::uint32_t slot_target = abi::kNoIndex;
  bool security_asked = false;                     // the listener's security group, if it has one
  std::uint32_t security_rule = abi::kNoIndex;     // of snapshot.security().rules, the one that allowed or denied
  std::optional<abi::IpAddress> outer_source;      // tx in a tunnel mode, if a secret was given: source of the outer header
  std::optional<std::uint16_t> outer_source_port;  // … and of its UDP header
  std::optional<std::uint32_t> cookie;             // geneve
  std::optional<CidRoute> cid;                     // of a listener that has_quic: what the connection ID says
};

// `entry`: what peek() found, std::nullopt: no entry. `secret`: the node's, for outer_source. tcp_flags: of the next packet,
// for TCP; by default ACK where there is an entry, else SYN. cid: the next packet's QUIC connection
// ID, or what follows the first byte of a short header; empty: none. ICMP stands for an echo request. The packet is taken to
// be well-formed, TTL and size in order.
FlowDecision explain_flow(const Snapshot& snapshot, const net::FlowKey& key, const std::optional<FlowView>& entry,
                          const NodeSecret* secret = nullptr, std::optional<std::uint8_t> tcp_flags = std::nullopt,
                          std::span<const std::uint8_t> cid = {});

}  // namespace lb
