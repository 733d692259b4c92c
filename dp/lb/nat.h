// Forwarding mode nat: the listener's port becomes the target's, the client's address stays; replies come back through lb,
// because the targets' route to the clients is lb, and leave from the VIP.
//
//   client ─ VIP:80 ─▶ lb ─ target:8080 ─▶ target        forward_nat(): destination rewritten
//   client ◀─ VIP:80 ─ lb ◀─ target:8080 ─ target        take_return(): source rewritten, on whatever worker it lands
//
// A reply is told by its source, which the snapshot's return table has, and by the flow it answers: for each listener that
// its target serves, the entry of (client, VIP, listener's port) is looked for in this worker's table, then in the others',
// and the one that names the target wins. The entry also holds the way back (dp/lb/ways_back.h). No entry: not a reply of
// lb's flow (a probe's, or the target's own traffic), and so the kernel's.
//
// Out of line; the other modes pay nothing for it. Compiled once for every CPU.
#pragma once

#include <cstdint>

#include "dp/abi/snapshot.h"
#include "dp/lb/forward_ops.h"
#include "dp/lb/work.h"

namespace lb {

// The listeners a packet from this source may be a reply of: indices into listeners(). Empty: it is no nat target.
std::span<const std::uint32_t> return_listeners(const Snapshot& snapshot, const abi::IpAddress& source, std::uint16_t port,
                                                std::uint8_t protocol);

// The key of the flow whose replies have this key, if they are of this listener.
net::FlowKey forward_key(const Snapshot& snapshot, const abi::Listener& listener, const net::FlowKey& reply);

// Packet i goes to a nat target, or is an ICMP error about such a flow from its client's side. Notes the way it came. False:
// it cannot go on; the verdict is set.
bool note_way_back(Work& work, std::uint32_t i, const abi::Target& target);

// Packet i is for no VIP. Sends it on if it is a reply of a nat flow, or an ICMP error about one; else it is the kernel's.
void take_return(Work& work, std::uint32_t i);
void take_return_error(Work& work, std::uint32_t i);

// What other workers have seen of this worker's flows since the last call.
void take_news(Work& work);

}  // namespace lb
