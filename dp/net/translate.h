// Address and port translation in place, checksums updated as RFC 1624 says: what was intact stays intact, what was wrong
// stays wrong, and nothing but the words that change is read. An IPv4 UDP checksum of 0 (none) stays 0; one that comes out
// as 0 is sent as 0xffff (RFC 768). Rare path or out of line: two dozen instructions a packet.
//
//   client:p → VIP:v  ──▶  client:p → target:t      translate(…, Side::destination, target, t)
//   target:t → client:p ─▶ VIP:v → client:p         translate(…, Side::source, VIP, v)
//
// An ICMP error about such a packet quotes it as its sender's neighbour saw it: translate_quote() rewrites the quote.
#pragma once

#include <cstdint>
#include <optional>

#include "dp/abi/types.h"
#include "dp/net/flow_key.h"
#include "dp/net/parse.h"

namespace lb::net {

enum class Side : std::uint8_t { source, destination };

// A TCP or UDP packet, whole (ParseResult::ok) or a first fragment. `address` is of the packet's family.
void translate(std::uint8_t* frame, const ParsedPacket& packet, Side side, const abi::IpAddress& address,
               std::uint16_t port);

// The address alone: of a later fragment, whose first one has the L4 header.
void translate_address(std::uint8_t* frame, const ParsedPacket& packet, Side side, const abi::IpAddress& address);

// The flow that an ICMP error speaks of, as the quoted packet names it: its source, destination, ports and protocol. None if
// `packet` (ParseResult::other_ip, protocol ICMP or ICMPv6) is no error about a TCP or UDP packet, or the quote ends before
// the ports; a quoted fragment that is not the first has none.
std::optional<FlowKey> quoted_flow(const std::uint8_t* frame, const ParsedPacket& packet);

// Rewrites one side of the quoted packet of an ICMP error that quoted_flow() has read, and the error's own source (side
// source of `outer`) or destination; all checksums that are there are updated. L4 checksums of a quote may be cut off.
struct QuoteChange {
  Side quoted_side;  // of the quoted packet
  Side outer_side;   // of the error itself
  const abi::IpAddress& quoted_address;
  std::uint16_t quoted_port;
  const abi::IpAddress& outer_address;
};
void translate_quote(std::uint8_t* frame, const ParsedPacket& packet, const QuoteChange& change);

}  // namespace lb::net
