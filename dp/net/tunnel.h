// Prepends an outer IP header and a tunnel header of its own, for forwarding modes gue, gre and geneve; both families in
// both.
//
//   gue   … │ outer IP 20 or 40 │ UDP 8 │ GUE 4 │ inner IP packet     variant 0 of draft-ietf-intarea-gue, no options
//   gre   … │ outer IP 20 or 40 │ GRE 4, with a key 8 │ inner IP packet     RFC 2784, RFC 2890
//   geneve … │ outer IP 20 or 40 │ UDP 8 │ Geneve 8 │ options 32 │ inner IP packet     geneve.h
//
// The outer IP header is that of encap.h: DSCP and ECN copied (RFC 6040), TTL 64, DF as the inner packet asks for. GUE is
// what Linux' `ip fou add … gue` takes; the UDP source port follows the flow hash, so that routers' ECMP and targets' RSS
// spread flows. Its checksum is 0 over IPv4. Over IPv6 it is computed, unless the target's group chose zero (RFC 6935, under
// the conditions of RFC 6936): for a packet whose TCP or UDP checksum covers all of its payload that takes no look at the
// payload, since the sum of such a payload is known from its pseudo header. A wrong inner checksum gives a wrong outer one.
#pragma once

#include <cstdint>

#include "dp/abi/snapshot.h"
#include "dp/net/encap.h"
#include "dp/net/geneve.h"

namespace lb::net {

inline constexpr std::uint32_t kGueBytes = 4;
inline constexpr std::uint32_t kGreBytes = 4;
inline constexpr std::uint32_t kGreKeyBytes = 4;
inline constexpr std::uint32_t kMaxTunnelBytes = kIpv6Bytes + kUdpBytes + kGeneveBytes + kGeneveOptionsBytes;
inline constexpr std::uint16_t kGreKeyPresent = 0x2000;

// Bytes between the outer IP header and the inner packet: 0 for ipip and l2dsr.
LB_INLINE std::uint32_t tunnel_header_bytes(const abi::Target& target) {
  if (target.mode == abi::ForwardingMode::gue) return kUdpBytes + kGueBytes;
  if (target.mode == abi::ForwardingMode::geneve) return kUdpBytes + kGeneveBytes + kGeneveOptionsBytes;
  if (target.mode != abi::ForwardingMode::gre) return 0;
  return kGreBytes + ((target.tunnel_flags & abi::kTunnelKeyed) != 0 ? kGreKeyBytes : 0);
}

// UDP source port of a flow, of the dynamic range (RFC 6335): gue and geneve.
LB_INLINE std::uint16_t tunnel_source_port(std::uint64_t flow_hash) {
  return static_cast<std::uint16_t>(0xc000 | (flow_hash & 0x3fff));
}

// As encapsulate() of encap.h, for a target of mode gue, gre or geneve; the latter with `options` of class `option_class`.
std::uint8_t* encapsulate_for(const abi::Target& target, std::uint8_t* frame, const ParsedPacket& packet,
                              const TunnelEnds& ends, std::uint32_t& length, const GeneveOptions& options = {},
                              std::uint16_t option_class = 0);

}  // namespace lb::net
