// Sends a parsed packet to its target: checks size and room, then rewrites MACs or encapsulates. Shared by the packet path
// and by the resets lb sends to targets.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dp/abi/counters.h"
#include "dp/abi/snapshot.h"
#include "dp/base/compiler.h"
#include "dp/lb/flow_hash.h"
#include "dp/lb/snapshot.h"
#include "dp/net/encap.h"
#include "dp/net/rewrite.h"
#include "dp/net/tunnel.h"

namespace lb {

// A frame on its way out.
struct OutFrame {
  std::uint8_t* data = nullptr;
  std::uint32_t length = 0;
  abi::DropReason reason = abi::DropReason::none;  // why it cannot go; data and length are unchanged then
};

LB_INLINE bool is_v4(const abi::IpAddress& address) {
  return load<std::uint64_t>(address.bytes.data()) == 0 && load<std::uint32_t>(address.bytes.data() + 8) == 0xffff0000;
}

// What may be seen on the wire of a flow's hash: the 16 bits that neither place nor tell flows apart in the table.
LB_INLINE std::uint64_t wire_hash(const Hash128& hash) {
  return (hash.high & 0xffff) * 0x0001000100010001ULL;
}

// Bytes that the way to the target adds to the client's IP packet.
LB_INLINE std::uint32_t outer_bytes(const abi::Target& target) {
  if (target.mode == abi::ForwardingMode::l2dsr || target.mode >= abi::ForwardingMode::nat) return 0;
  return net::encap_bytes(!is_v4(target.address)) + net::tunnel_header_bytes(target);
}

LB_INLINE OutFrame refuse_frame(std::uint8_t* data, std::uint32_t length, abi::DropReason reason) {
  return {data, length, reason};
}

// Mode nat (dp/lb/nat.h): the same for a packet whose destination becomes the target's address and port; of an ICMP error
// from the client's side, the quote as well.
OutFrame forward_nat(const abi::Target& target, const net::ParsedPacket& packet, std::uint8_t* data, std::uint32_t length,
                     std::uint32_t headroom);

LB_INLINE const abi::TunnelSource& tunnel_source_of(const Snapshot& snapshot, const abi::Target& target) {
  return is_v4(target.address) ? snapshot.root().tunnel_source_v4 : snapshot.root().tunnel_source_v6;
}

// Of modes gue, gre and geneve; otherwise as forward(). geneve: `hash` is named_hash() of dp/lb/gateway.h.
OutFrame forward_tunnel(const Snapshot& snapshot, const abi::Target& target, const net::ParsedPacket& packet,
                        const Hash128& hash, std::uint8_t* data, std::uint32_t length, std::uint32_t headroom);

// `headroom`: bytes free in front of data. Not of mode fullnat, whose packets need their translation (dp/lb/fullnat.h).
LB_INLINE OutFrame forward(const Snapshot& snapshot, const abi::Target& target, const net::ParsedPacket& packet,
                           const Hash128& hash, std::uint8_t* data, std::uint32_t length, std::uint32_t headroom) {
  if (target.mode == abi::ForwardingMode::nat) return forward_nat(target, packet, data, length, headroom);
  if (target.mode > abi::ForwardingMode::ipip) return forward_tunnel(snapshot, target, packet, hash, data, length, headroom);
  const net::LinkAddress link{target.next_hop_mac, target.source_mac, target.vlan};
  const bool outer_is_v6 = !is_v4(target.address);
  const std::uint32_t outer = target.mode == abi::ForwardingMode::l2dsr ? 0 : net::encap_bytes(outer_is_v6);
  if (packet.ip_length + outer > target.mtu_bytes) [[unlikely]]
    return refuse_frame(data, length, abi::DropReason::too_big);
  if (outer + net::l2_bytes(target.vlan) > headroom + packet.l2_length) [[unlikely]] {
    return refuse_frame(data, length, abi::DropReason::no_headroom);
  }
  if (target.mode == abi::ForwardingMode::l2dsr) {
    std::uint8_t* start = net::rewrite_l2(data, packet, link);
    return {start, static_cast<std::uint32_t>(length + (data - start)), abi::DropReason::none};
  }
  const abi::TunnelSource& source = tunnel_source_of(snapshot, target);
  if (source.present == 0) [[unlikely]]
    return refuse_frame(data, length, abi::DropReason::no_tunnel_source);
  const std::uint64_t on_wire = wire_hash(hash);
  const abi::IpAddress from = net::tunnel_source(source, on_wire);
  std::uint8_t* start = net::encapsulate(data, packet, {from, target.address, on_wire}, outer_is_v6, link, length);
  return {start, length, abi::DropReason::none};
}

}  // namespace lb
