// Forwarding mode fullnat: both addresses and ports change, so that targets answer lb whatever their routes say, and need
// not have the client's family.
//
//   client:40000 → VIP:80  ──▶ lb ──▶  SNAT:1024 → target:8080      forward_fullnat()
//   client:40000 ◀ VIP:80  ◀── lb ◀──  SNAT:1024 ◀ target:8080      take_snat_packet(), on whatever worker it lands
//
// The flow table has the flow's target, as in every mode; the translation (dp/lb/translations.h) has its tuples, its way
// back, and how far both ends have come. A packet that finds no entry in the flow table but a translation goes to that one's
// target. Who the client is, targets may be told by the PROXY protocol or a TCP option (dp/net/client_address.h).
//
// Out of line; the other modes pay nothing for it. Compiled once for every CPU.
#pragma once

#include <cstdint>
#include <optional>

#include "dp/abi/snapshot.h"
#include "dp/lb/flow_table.h"
#include "dp/lb/work.h"

namespace lb {

// Packet i goes to a fullnat target: it is rewritten, with a new translation if it has none. False: it cannot go on; the
// verdict is set.
bool forward_fullnat(Work& work, std::uint32_t i, const abi::Target& target);

// Packet i is for no VIP. True: it was for a SNAT address, and its verdict is set. An ICMP error, if `packet` is one.
bool take_snat_packet(Work& work, std::uint32_t i);
bool take_snat_error(Work& work, std::uint32_t i);

// What the translation of packet i's flow, this worker's or another's, knows of it: target, state and idle time.
std::optional<FlowView> translated_flow(Work& work, std::uint32_t i);

// The same of a translation, if its target is still the one it was made for. `tick`: of now, as Translation::tick.
std::optional<FlowView> view_of(const Snapshot& snapshot, const abi::Translation& flow, std::uint32_t tick);

// Resets the target of packet i's flow, in the name of its translation. Returns whether a packet was sent.
bool reset_fullnat_target(Work& work, std::uint32_t i, const abi::Target& target);

// What other workers tell, and ageing of the next `slots` translations, going round.
void tend_translations(Work& work, std::uint32_t slots);

}  // namespace lb
