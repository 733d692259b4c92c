// MSS clamp (attribute tcp.mss_clamp): a SYN that passes lb announces no larger segments than fit the way to the target, its
// outer header included. Of one-way modes that is the client's SYN alone; nat and geneve see both directions. Cold path.
#pragma once

#include <cstdint>

#include "dp/abi/snapshot.h"
#include "dp/lb/work.h"

namespace lb {

// Packet i, a TCP packet with SYN as it came, belongs to a flow of this target (kTargetClampsMss).
void clamp_mss_for(Work& work, std::uint32_t i, const abi::Target& target);

}  // namespace lb
