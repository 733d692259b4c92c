// Prepends an outer IP header: 4in4 (RFC 2003), 6in4 (RFC 4213), 4in6 and 6in6 (RFC 2473). Hot; see LB_INLINE.
//
//   headroom │ Ethernet │ outer IP 20 or 40 │ inner IP packet, where it was, TTL one less
//
// The outer header: DSCP and ECN of the inner one (RFC 6040, normal mode), TTL 64, protocol 4 or 41. DF is set where the
// inner packet has it, and for inner IPv6, so that path MTU discovery works end to end; only then is the id 0 (RFC 6864).
// Ethernet padding behind the inner packet is cut off.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dp/abi/snapshot.h"
#include "dp/abi/types.h"
#include "dp/base/compiler.h"
#include "dp/base/endian.h"
#include "dp/net/checksum.h"
#include "dp/net/headers.h"
#include "dp/net/parse.h"
#include "dp/net/rewrite.h"

namespace lb::net {

// Bytes of the outer header. The outer packet has packet.ip_length + this many bytes: what must fit the MTU towards the
// target. In front of the frame, this + l2_bytes(vlan) - packet.l2_length bytes must be free.
LB_INLINE constexpr std::uint32_t encap_bytes(bool outer_is_v6) {
  return outer_is_v6 ? kIpv6Bytes : kIpv4Bytes;
}

// Outer source: the prefix, its host bits (at most the last 64) taken from the flow hash, so that targets' RSS spreads the
// flows and a flow keeps to one queue. Every address of the prefix is lb's own.
LB_INLINE abi::IpAddress tunnel_source(const abi::TunnelSource& source, std::uint64_t flow_hash) {
  const std::uint32_t host_bits = std::min<std::uint32_t>(128U - source.prefix_length, 64);
  const std::uint64_t host_mask = host_bits == 0 ? 0 : ~std::uint64_t{0} >> (64 - host_bits);
  abi::IpAddress address = source.prefix;
  const std::uint64_t low = swap64(load<std::uint64_t>(address.bytes.data() + 8));
  store(address.bytes.data() + 8, swap64((low & ~host_mask) | (flow_hash & host_mask)));
  return address;
}

// Both of the family of the outer header.
struct TunnelEnds {
  const abi::IpAddress& source;
  const abi::IpAddress& destination;
  std::uint64_t flow_hash = 0;  // flow label (RFC 6438) and, where the packet may be fragmented, the IPv4 id
};

// What the outer header carries.
struct OuterPayload {
  abi::Protocol protocol = abi::Protocol::ipip;
  std::uint32_t bytes = 0;
};

namespace detail {

LB_INLINE void write_outer_v4(std::uint8_t* outer, const std::uint8_t* inner, const ParsedPacket& packet,
                              const TunnelEnds& ends, const OuterPayload& payload, bool dont_fragment) {
  // Flows share the outer addresses, so the inner id alone would repeat; with the flow hash it rarely does.
  const std::uint32_t id = dont_fragment ? 0 : (load_be16(inner + kIpv4IdAt) ^ (ends.flow_hash >> 48)) & 0xffff;
  const auto protocol = static_cast<std::uint32_t>(payload.protocol);
  const std::uint32_t length = payload.bytes + kIpv4Bytes;
  const std::uint32_t word0 = swap32(0x45000000U | std::uint32_t{packet.traffic_class} << 16 | length);
  const std::uint32_t word1 = swap32(id << 16 | (dont_fragment ? kIpv4DontFragment : 0U));
  const std::uint32_t word2 = swap32(std::uint32_t{kDefaultTtl} << 24 | protocol << 16);
  const auto source = load<std::uint32_t>(ends.source.bytes.data() + 12);
  const auto destination = load<std::uint32_t>(ends.destination.bytes.data() + 12);
  const std::uint64_t sum = std::uint64_t{word0} + word1 + word2 + source + destination;
  store(outer, word0);
  store(outer + kIpv4IdAt, word1);
  store(outer + kIpv4TtlAt, word2 | std::uint32_t{checksum_finish(sum)} << 16);
  store(outer + kIpv4SourceAt, source);
  store(outer + kIpv4DestinationAt, destination);
}

LB_INLINE void write_outer_v6(std::uint8_t* outer, const ParsedPacket& packet, const TunnelEnds& ends,
                              const OuterPayload& payload) {
  const auto label = static_cast<std::uint32_t>(ends.flow_hash >> 44);  // 20 bits
  const auto next = static_cast<std::uint32_t>(payload.protocol);
  store_be32(outer, 0x60000000U | std::uint32_t{packet.traffic_class} << 20 | label);
  store_be32(outer + kIpv6PayloadLengthAt, payload.bytes << 16 | next << 8 | kDefaultTtl);
  store(outer + kIpv6SourceAt, ends.source);
  store(outer + kIpv6DestinationAt, ends.destination);
}

}  // namespace detail

// Encapsulates the frame and addresses it to the next hop. The caller has seen that ttl > 1, that the outer packet fits the
// MTU and that the headroom is there. Returns the new start; `length` becomes the frame's new length. The variant is a
// compile-time constant of one body, so that a caller who sorts its packets by variant has no branch here.
template <bool kInnerV6, bool kOuterV6>
LB_INLINE std::uint8_t* encapsulate(std::uint8_t* frame, const ParsedPacket& packet, const TunnelEnds& ends,
                                    const LinkAddress& link, std::uint32_t& length) {
  std::uint8_t* inner = frame + packet.l2_length;
  std::uint8_t* outer = inner - encap_bytes(kOuterV6);
  const OuterPayload payload{kInnerV6 ? abi::Protocol::ipv6_in : abi::Protocol::ipip, packet.ip_length};
  decrement_ttl(inner, kInnerV6);
  if constexpr (kOuterV6) {
    detail::write_outer_v6(outer, packet, ends, payload);
  } else {
    detail::write_outer_v4(outer, inner, packet, ends, payload, kInnerV6 || packet.dont_fragment != 0);
  }
  length = l2_bytes(link.vlan) + encap_bytes(kOuterV6) + packet.ip_length;
  return write_l2(outer, kOuterV6 ? kEtherTypeIpv6 : kEtherTypeIpv4, link);
}

LB_INLINE std::uint8_t* encapsulate(std::uint8_t* frame, const ParsedPacket& packet, const TunnelEnds& ends,
                                    bool outer_is_v6, const LinkAddress& link, std::uint32_t& length) {
  if (packet.key.is_v6 == 0) {
    return outer_is_v6 ? encapsulate<false, true>(frame, packet, ends, link, length)
                       : encapsulate<false, false>(frame, packet, ends, link, length);
  }
  return outer_is_v6 ? encapsulate<true, true>(frame, packet, ends, link, length)
                     : encapsulate<true, false>(frame, packet, ends, link, length);
}

}  // namespace lb::net
