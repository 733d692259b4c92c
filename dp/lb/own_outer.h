// Loops: an outer packet of lb's own that comes back to it, because a target's address leads here. Cold path.
#pragma once

#include <cstdint>

#include "dp/lb/snapshot.h"
#include "dp/lb/work.h"
#include "dp/net/parse.h"

namespace lb {

// Whether an address is one that lb's outer packets come from: of tunnel_source.
bool is_tunnel_source(const Snapshot& snapshot, const abi::IpAddress& address);

// Whether a packet is one of lb's own outer ones: from such an address, IPv4 or IPv6 in IP, GRE, or UDP 6080 or 6081.
bool is_own_outer(const Snapshot& snapshot, const net::ParsedPacket& packet);

// Packet i is for a VIP, and no listener takes it: dropped as that, or as a loop.
void drop_unlistened(Work& work, std::uint32_t i);

}  // namespace lb
