// Bytes out, in place: the Ethernet header for the next hop, and the TTL. Hot; see LB_INLINE.
//
//   headroom │ MACs │ tag? tag? │ EtherType │ IP packet …
//            ◀── l2_length of the frame that came ──▶
//      ◀──── 14 or 18 bytes of the frame that goes ─▶     the IP packet does not move
#pragma once

#include <cstdint>
#include <cstring>

#include "dp/abi/types.h"
#include "dp/base/compiler.h"
#include "dp/base/endian.h"
#include "dp/net/headers.h"
#include "dp/net/parse.h"

namespace lb::net {

// Where a frame goes on its link. vlan: 0 untagged, else the VID of the one tag it gets (priority 0).
struct LinkAddress {
  const abi::MacAddress& destination;
  const abi::MacAddress& source;
  std::uint16_t vlan = 0;
};

// Bytes of the Ethernet header that write_l2() puts in front of an IP packet.
LB_INLINE std::uint32_t l2_bytes(std::uint16_t vlan) {
  return vlan == 0 ? kEthernetBytes : kEthernetBytes + kVlanTagBytes;
}

// Writes the Ethernet header that ends at `ip`; l2_bytes(vlan) bytes before it must belong to the buffer. Returns its start.
LB_INLINE std::uint8_t* write_l2(std::uint8_t* ip, std::uint16_t ether_type, const LinkAddress& link) {
  std::uint8_t* frame = ip - l2_bytes(link.vlan);
  std::memcpy(frame, link.destination.data(), 6);
  std::memcpy(frame + 6, link.source.data(), 6);
  if (link.vlan != 0) [[unlikely]] {
    store_be16(frame + kEtherTypeAt, kEtherTypeVlan);
    store_be16(frame + kEtherTypeAt + 2, link.vlan);
  }
  store_be16(ip - 2, ether_type);
  return frame;
}

// Replaces MACs and VLAN tags (any number by none or one) of a parsed frame. Returns the new start; the frame's length
// changes by frame - returned, at most 4 bytes more, which must be free in front of it.
LB_INLINE std::uint8_t* rewrite_l2(std::uint8_t* frame, const ParsedPacket& packet, const LinkAddress& link) {
  return write_l2(frame + packet.l2_length, packet.key.is_v6 != 0 ? kEtherTypeIpv6 : kEtherTypeIpv4, link);
}

// Takes one from TTL or hop limit, which the caller has seen to be > 1; the IPv4 checksum is updated, and stays wrong if it
// was wrong (RFC 1624).
LB_INLINE void decrement_ttl(std::uint8_t* ip, bool is_v6) {
  if (is_v6) {
    --ip[kIpv6HopLimitAt];
    return;
  }
  --ip[kIpv4TtlAt];
  // The word (TTL, protocol) fell by 0x0100, so the complement of its sum rises by as much, the carry going round.
  const std::uint32_t checksum = load_be16(ip + kIpv4ChecksumAt) + 0x0100U;
  store_be16(ip + kIpv4ChecksumAt, static_cast<std::uint16_t>(checksum + (checksum >= 0xffff ? 1 : 0)));
}

}  // namespace lb::net
