// Packets that are for a VIP but do not carry their flow's key where it is looked for, and flows that are known to another
// worker. Rare path, compiled once for every CPU.
//
//   ICMP error    the flow it quotes: this worker's table → the other workers' → Maglev; on to that target, as it came
//   ICMP echo     answered by lb, or dropped, as the VIP says
//   other ICMP    the kernel's
//
// Other workers' tables are read while their owners write, by the lines' sequence counters (dp/lb/flow_table.h), and never
// written. How often is bounded for each burst: floods of errors or of stray ACKs cost what they cost without peers.
#pragma once

#include <cstdint>
#include <optional>

#include "dp/lb/flow_table.h"
#include "dp/lb/work.h"

namespace lb {

inline constexpr std::uint32_t kPeerLooksPerBurst = 16;

// After stage decide: what is in work.rare gets a verdict, or goes to stage rewrite with its target.
void serve_rare(Work& work);

// Packet i is of this listener, and counts for it.
void count_listed(Work& work, std::uint32_t i, std::uint32_t listener);

// Packet i is ICMP to a VIP, whole. Sets the verdict, or hands the packet to stage rewrite with its target.
void serve_icmp(Work& work, std::uint32_t i);

// Packet i goes to stage rewrite with this target, whose id is in the snapshot; or nowhere, while its next hop is unknown.
void send_on(Work& work, std::uint32_t i, std::uint32_t id);

// The flow with this hash (under the node secret) in another worker's table: the entry seen last, if several have one.
// std::nullopt: none has, or this burst has looked often enough.
std::optional<FlowView> find_elsewhere(Work& work, const Hash128& hash);

// The same in this worker's own table first.
std::optional<FlowView> find_flow(Work& work, const Hash128& hash);

// Whether another worker has an entry of this flow that its group's idle timeout has not ended.
bool is_alive_elsewhere(Work& work, const Hash128& hash);

}  // namespace lb
