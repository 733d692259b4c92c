// Packets lb makes from a packet it was given: TCP resets and the ICMP errors of path MTU discovery. Rare path, no
// allocation. None of them ever needs more bytes than the frame it is made from, so it can be written over it:
// `out` is either `frame` itself or a buffer apart from it.
//
// All take a parsed TCP or UDP packet (ParseResult::ok), before anything of it was rewritten, and return the length of the
// frame written to `out`, without Ethernet padding; 0 means that no answer may be sent (RFC 1122 §3.2.2, RFC 4443 §2.4): the
// packet is itself a reset, or came to a group MAC address.
#pragma once

#include <cstdint>

#include "dp/net/headers.h"
#include "dp/net/parse.h"

namespace lb::net {

inline constexpr std::uint32_t kMaxResetBytes = kMaxL2Bytes + kIpv6Bytes + kTcpBytes;

// Frames shorter than this on the wire are padded by the port, not here.
inline constexpr std::uint32_t kMaxIcmpv4ErrorBytes = 576;  // of the whole IP packet, RFC 1812 §4.3.2.3

// Reset in answer to a TCP packet: MACs, addresses and ports swapped, VLAN tags kept. If the packet has ACK: seq = its ACK,
// which is exactly what the client expects (RFC 5961 §3.2). Else seq = 0 and ack = the packet's SEQ + bytes of sequence
// space it takes (RFC 9293 §3.10.7.1).
std::uint32_t build_reset_to_client(const std::uint8_t* frame, const ParsedPacket& packet, std::uint8_t* out);

// Reset in the name of the client: MACs, addresses, ports and VLAN tags as they came, seq = the packet's SEQ, its ACK kept.
// To be encapsulated or rewritten like the client's own packet, after parse().
std::uint32_t build_reset_to_target(const std::uint8_t* frame, const ParsedPacket& packet, std::uint8_t* out);

// "Fragmentation needed" (RFC 1191) or "packet too big" (RFC 8201), by the packet's family, from the VIP to the client. It
// quotes as much as the family's limit allows, 576 or 1,280 bytes in all. mtu_bytes: the largest IP packet of the client
// that fits towards the target; IPv6 clients are never told less than 1,280 (RFC 2473 §7.1).
std::uint32_t build_packet_too_big(const std::uint8_t* frame, const ParsedPacket& packet, std::uint32_t mtu_bytes,
                                   std::uint8_t* out);

// "Port unreachable" (RFC 792, RFC 4443), else as build_packet_too_big(), but as much longer than the packet as `room_bytes`
// behind it allow. 0 if the quote would have no ports.
std::uint32_t build_port_unreachable(const std::uint8_t* frame, const ParsedPacket& packet, std::uint32_t room_bytes,
                                     std::uint8_t* out);

// Parts of the above, for whoever builds an answer of another kind.

// No answer goes to a frame that came to a group MAC address.
[[nodiscard]] bool may_answer(const std::uint8_t* frame);

// The Ethernet header and its tags, with MACs swapped for an answer.
void write_l2_of(const std::uint8_t* frame, const ParsedPacket& packet, bool swap, std::uint8_t* out);

// An IP header of lb's own, without options: TTL 64; IPv4: DF, id 0, checksum filled in.
void write_ip(std::uint8_t* ip, bool is_v6, const abi::IpAddress& source, const abi::IpAddress& destination,
              std::uint8_t protocol, std::uint32_t payload_bytes);

}  // namespace lb::net
