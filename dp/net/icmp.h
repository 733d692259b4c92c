// ICMP messages to a VIP: what an error quotes, and the answer to an echo request. RFC 792, 4443, 1812 §4.3.2.3, 5508.
#pragma once

#include <cstdint>

#include "dp/net/flow_key.h"
#include "dp/net/parse.h"

namespace lb::net {

enum class IcmpKind : std::uint8_t {
  other,         // neighbour discovery, redirects, timestamps, …: the kernel's
  echo_request,  // intact
  error,         // intact, and quotes enough to name a flow: `flow` is set
  error_other,   // intact, but of a packet that is neither TCP nor UDP, or of a fragment without ports
  bad,           // shorter than its kind must be, its checksum is wrong, or what it quotes is no IP header
};

struct IcmpMessage {
  IcmpKind kind = IcmpKind::bad;
  // The flow whose packet is quoted, in the client's direction: a target sent VIP → client, so source is the quote's
  // destination. key.destination is the address the message quotes as its packet's source.
  FlowKey flow;
};

// Of a packet that parse() called other_ip, with protocol ICMP (IPv4) or ICMPv6 (IPv6), not a fragment. Quotes may be cut
// after 8 bytes of their TCP or UDP header, and their lengths and checksums may have been changed on the way: neither is
// looked at.
IcmpMessage read_icmp(const std::uint8_t* frame, const ParsedPacket& packet);

// Answers an echo request in place: MACs and addresses swapped, VLAN tags kept, IPv4 options left out. Returns the frame's
// length, never more than it was; 0: no answer may be sent (group MAC address).
std::uint32_t build_echo_reply(const std::uint8_t* frame, const ParsedPacket& packet, std::uint8_t* out);

}  // namespace lb::net
