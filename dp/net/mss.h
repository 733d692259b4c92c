// The TCP maximum segment size that a SYN announces (RFC 9293 §3.7.1), lowered so that segments fit a tunnel.
#pragma once

#include <cstdint>

#include "dp/net/parse.h"

namespace lb::net {

// The largest segment of a packet's family that fits `mtu_bytes`: without IP and TCP headers. At least 1.
std::uint16_t mss_for(std::uint32_t mtu_bytes, bool is_v6);

// Lowers the MSS option of a TCP packet with SYN to `most`, and updates its checksum (RFC 1624); one that is lower stays,
// and so does a SYN without the option. True: it was lowered. Malformed options end the search: nothing is written.
bool clamp_mss(std::uint8_t* frame, const ParsedPacket& packet, std::uint16_t most);

}  // namespace lb::net
