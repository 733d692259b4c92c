// Both addresses and ports of a packet at once, and where they are of the other family, its IP header too (RFC 7915): what
// mode fullnat does, also as NAT64 and NAT46. And ICMP errors told anew, in the words of the other side.
//
//   same family   … │ IP header │ L4 │          in place
//   v4 → v6     … │ IPv6 header │ L4 │          20 bytes (and more where IPv4 options go) into the room in front
//   v6 → v4       …   │ IPv4    │ L4 │          extension headers and options do not cross
//
// Checksums of TCP and UDP are updated, not computed, so that what came broken arrives broken; but an IPv4 UDP datagram
// without one gets one on its way to IPv6, which wants it.
#pragma once

#include <cstdint>

#include "dp/abi/types.h"
#include "dp/net/parse.h"

namespace lb::net {

// All addresses are of one family, the one the packet is to have.
struct Tuple {
  abi::IpAddress source;
  abi::IpAddress destination;
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 0;
};

// An IP packet on its way out; the Ethernet header is yet to be written in front of it.
struct IpPacket {
  std::uint8_t* ip = nullptr;
  std::uint32_t length = 0;
  bool is_v6 = false;
};

// Bytes that the IP packet will have, and how many more it needs in front of the present one's start (0 if fewer).
std::uint32_t length_with(const ParsedPacket& packet, bool to_v6);
std::uint32_t room_for(const ParsedPacket& packet, bool to_v6);

// A whole TCP or UDP packet, one hop later. `id`: of an IPv4 header made here for a packet that may be fragmented.
IpPacket rewrite_tuple(std::uint8_t* frame, const ParsedPacket& packet, const Tuple& to, std::uint16_t id);

// An ICMP error that quotes a TCP or UDP packet (quoted_flow() names it), told from `source` to `destination` about the
// packet `quoted` that the receiver has sent; written to `out`, kMaxRelayedErrorBytes. TCP sequence numbers of the quote
// grow by `sequence_shift`. Length 0: the other family has no such error.
struct RelayedError {
  abi::IpAddress source;
  abi::IpAddress destination;
  Tuple quoted;
  std::uint32_t sequence_shift = 0;
};
inline constexpr std::uint32_t kMaxQuotedL4Bytes = 64;
inline constexpr std::uint32_t kMaxRelayedErrorBytes = kIpv6Bytes + kIcmpBytes + kIpv6Bytes + kMaxQuotedL4Bytes;
IpPacket relay_error(const std::uint8_t* frame, const ParsedPacket& packet, const RelayedError& error, std::uint8_t* out);

}  // namespace lb::net
