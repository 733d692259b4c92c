// Forwarding mode geneve, gateway listeners: all IP traffic of a VIP, or all that comes in by a port, goes through an
// appliance and on to where it was going. Both directions of a flow are one flow here, so that one appliance sees both.
//
//   A ─ packet to B ─▶ lb ══ Geneve, flow cookie ══▶ appliance     find_gateway(), then like any packet of a flow
//   B ◀─ packet to B ─ lb ◀═ the same options back ══ appliance    take_returned(), on whatever worker it lands
//   B ─ packet to A ─▶ lb ══ the same cookie ══▶ the same appliance …
//
// A flow's entry stands under either_way() of its key; an ICMP error goes by the packet it quotes, other protocols without
// ports by their addresses, later fragments as fragments.h says. The cookie is a hash of the flow under the fleet seed, so
// that any worker can check it by the packet inside; the entry must name the appliance the packet comes from. What comes
// back leaves by the snapshot's routes: the kernel's, mirrored. The TTL is lowered once, on the way in; ECN by RFC 6040.
//
// Out of line; other listeners pay nothing for it. Compiled once for every CPU.
#pragma once

#include <cstdint>
#include <optional>

#include "dp/abi/snapshot.h"
#include "dp/lb/flow_hash.h"
#include "dp/lb/work.h"
#include "dp/net/parse.h"

namespace lb {

// What appliances are told of a flow, by its hash under the fleet seed: the same on every node. Low bits of Hash128::low,
// which say nothing of the slot.
LB_INLINE std::uint32_t flow_cookie(const Hash128& slot_hash) {
  return static_cast<std::uint32_t>(slot_hash.low);
}

// The hash that forward() is to be given for packet i to a geneve target: as it is on the wire, with the cookie as its low
// half.
Hash128 named_hash(Work& work, std::uint32_t i);

// Packet i begins a run of neighbours that no listener of a protocol and port takes; `found` says why: kNoListener, kNotVip.
// Returns the gateway listener of its VIP, or of its port, with the packet ready for the stages that follow, or `found`.
std::uint32_t find_gateway(Work& work, std::uint32_t i, std::uint32_t found);

// Packet i is no whole TCP or UDP packet. nullopt: no gateway listener takes it. Else as take_fragment(): true, it is to be
// served like a whole packet; false, it has a verdict or will be given one.
std::optional<bool> take_for_gateway(Work& work, std::uint32_t i, net::ParseStatus status);

// Whether a packet for no VIP comes from an appliance: UDP 6081 to a tunnel source.
bool is_returned(const Snapshot& snapshot, const net::ParsedPacket& packet);

// Packet i does. Sets the verdict.
void take_returned(Work& work, std::uint32_t i);

// The gateway listener a target group serves; kNoIndex: none.
std::uint32_t gateway_listener_of(const Snapshot& snapshot, std::uint32_t group);

// The gateway listener that all traffic to this address goes to, of those of VIPs; kNoIndex: none.
std::uint32_t gateway_listener_to(const Snapshot& snapshot, const abi::IpAddress& destination);

// For questions about a flow, of which nobody knows by which port it comes: that of its VIP, else the first of a port,
// unless the packet would be the kernel's all the same.
std::uint32_t gateway_listener_for(const Snapshot& snapshot, const net::FlowKey& key);

// The way to an address by the longest prefix; nullptr: the kernel has no route.
const abi::RouteNextHop* find_route(const Snapshot& snapshot, const abi::IpAddress& address);

}  // namespace lb
