// Sends a packet that does not fit towards its target as fragments of the outer packet, where its target group wants that
// (kTunnelFragment). Rare path, out of line, no allocation.
//
//   outer IPv4    DF is clear, whatever the inner packet has; the target's kernel puts the outer packet together (RFC 791)
//   outer IPv6    each fragment carries a fragment header (RFC 8200 §4.5)
#pragma once

#include <cstdint>

#include "dp/lb/work.h"

namespace lb {

// Sends all fragments but the last, each counted as extra_fragments; the last becomes packet i of the burst. False: dropped
// by name instead (no_headroom, tx_full, …); what had been sent by then is lost with it.
bool send_fragmented(Work& work, std::uint32_t i, const abi::Target& target);

}  // namespace lb
