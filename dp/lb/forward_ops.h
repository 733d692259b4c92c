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
  return target.mode == abi::ForwardingMode::l2dsr ? 0 : net::encap_bytes(!is_v4(target.address));
}

LB_INLINE OutFrame refuse_frame(std::uint8_t* data, std::uint32_t length, abi::DropReason reason) {
  return {data, length, reason};
}

LB_INLINE const abi::TunnelSource& tunnel_source_of(const Snapshot& snapshot, const abi::Target& target) {
  return is_v4(target.address) ? snapshot.root().tunnel_source_v4 : snapshot.root().tunnel_source_v6;
}

// `headroom`: bytes free in front of data.
LB_INLINE OutFrame forward(const Snapshot& snapshot, const abi::Target& target, const net::ParsedPacket& packet,
                           const Hash128& hash, std::uint8_t* data, std::uint32_t length, std::uint32_t headroom) {
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

// ---- the common case: untagged in and out, IPv4 without options inside; the same bytes as forward() (a test compares them)

// What every packet of a burst needs of the snapshot.
struct PlainSources {
  std::uint32_t v4_prefix = 0;  // as in memory
  std::uint32_t v4_host_mask = 0;
  bool v4_present = false;
  bool v6_present = false;
  std::uint64_t v6_high = 0;  // as in memory
  std::uint64_t v6_low = 0;
  std::uint64_t v6_host_mask = 0;
};

LB_INLINE std::uint64_t host_mask_of(const abi::TunnelSource& source) {
  const std::uint32_t bits = 128U - source.prefix_length;
  return swap64(bits == 0 ? 0 : bits >= 64 ? ~std::uint64_t{0} : ~std::uint64_t{0} >> (64 - bits));
}

LB_INLINE PlainSources plain_sources(const Snapshot& snapshot) {
  const abi::TunnelSource& v4 = snapshot.root().tunnel_source_v4;
  const abi::TunnelSource& v6 = snapshot.root().tunnel_source_v6;
  PlainSources sources;
  sources.v4_present = v4.present != 0;
  sources.v6_present = v6.present != 0;
  sources.v4_host_mask = static_cast<std::uint32_t>(host_mask_of(v4) >> 32);
  sources.v4_prefix = load<std::uint32_t>(v4.prefix.bytes.data() + 12) & ~sources.v4_host_mask;
  sources.v6_host_mask = host_mask_of(v6);
  sources.v6_high = load<std::uint64_t>(v6.prefix.bytes.data());
  sources.v6_low = load<std::uint64_t>(v6.prefix.bytes.data() + 8) & ~sources.v6_host_mask;
  return sources;
}

LB_INLINE void copy_macs(std::uint8_t* frame, const abi::Target& target) {
  static_assert(offsetof(abi::Target, source_mac) == offsetof(abi::Target, next_hop_mac) + 6);
  const std::uint8_t* macs = target.next_hop_mac.data();
  store(frame, load<std::uint64_t>(macs));
  store(frame + 8, load<std::uint32_t>(macs + 8));
}

// As net::decrement_ttl: TTL, protocol and checksum are one word; a sum is the same in either byte order.
LB_INLINE void decrement_ttl_v4(std::uint8_t* ip) {
  const auto word = load<std::uint32_t>(ip + net::kIpv4TtlAt);
  const std::uint32_t sum = (word >> 16) + 1;
  store(ip + net::kIpv4TtlAt, ((word - 1) & 0xffff) | (sum + (sum >= 0xffff ? 1U : 0U)) << 16);
}

LB_INLINE void prepend_v4(std::uint8_t* inner, const abi::Target& target, const net::ParsedPacket& packet,
                          const PlainSources& sources, std::uint64_t on_wire) {
  std::uint8_t* outer = inner - net::kIpv4Bytes;
  const bool dont_fragment = packet.dont_fragment != 0;
  const std::uint32_t id = load<std::uint16_t>(inner + net::kIpv4IdAt) ^ swap16(static_cast<std::uint16_t>(on_wire >> 48));
  const std::uint32_t word0 = 0x45U | std::uint32_t{packet.traffic_class} << 8 |
                              std::uint32_t{swap16(static_cast<std::uint16_t>(packet.ip_length + net::kIpv4Bytes))} << 16;
  const std::uint32_t word1 = dont_fragment ? 0x00400000U : id;
  const std::uint32_t word2 = net::kDefaultTtl | static_cast<std::uint32_t>(abi::Protocol::ipip) << 8;
  const std::uint32_t source =
      sources.v4_prefix | (static_cast<std::uint32_t>(swap64(on_wire) >> 32) & sources.v4_host_mask);
  const auto destination = load<std::uint32_t>(target.address.bytes.data() + 12);
  const std::uint64_t sum = std::uint64_t{word0} + word1 + word2 + source + destination;
  store(outer, word0 | std::uint64_t{word1} << 32);
  store(outer + 8, word2 | std::uint32_t{net::checksum_finish(sum)} << 16 | std::uint64_t{source} << 32);
  store(outer + 16, destination);
  decrement_ttl_v4(inner);
  copy_macs(outer - net::kEthernetBytes, target);
  store(outer - 2, swap16(net::kEtherTypeIpv4));
}

LB_INLINE void prepend_v6(std::uint8_t* inner, const abi::Target& target, const net::ParsedPacket& packet,
                          const PlainSources& sources, std::uint64_t on_wire) {
  std::uint8_t* outer = inner - net::kIpv6Bytes;
  const auto label = static_cast<std::uint32_t>(on_wire >> 44);
  const std::uint32_t word0 = swap32(0x60000000U | std::uint32_t{packet.traffic_class} << 20 | label);
  const std::uint32_t word1 = swap16(packet.ip_length) | static_cast<std::uint32_t>(abi::Protocol::ipip) << 16 |
                              std::uint32_t{net::kDefaultTtl} << 24;
  store(outer, word0 | std::uint64_t{word1} << 32);
  store(outer + 8, sources.v6_high);
  store(outer + 16, sources.v6_low | (swap64(on_wire) & sources.v6_host_mask));
  store(outer + 24, load<std::uint64_t>(target.address.bytes.data()));
  store(outer + 32, load<std::uint64_t>(target.address.bytes.data() + 8));
  decrement_ttl_v4(inner);
  copy_macs(outer - net::kEthernetBytes, target);
  store(outer - 2, swap16(net::kEtherTypeIpv6));
}

// True: done, data and length are the frame to send. False: not the common case, nothing was touched; forward() knows.
LB_INLINE bool forward_plain(const abi::Target& target, const net::ParsedPacket& packet, const Hash128& hash,
                             const PlainSources& sources, std::uint32_t headroom, std::uint8_t*& data,
                             std::uint32_t& length) {
  if (target.vlan != 0 || packet.l2_length != net::kEthernetBytes || packet.key.is_v6 != 0) return false;
  if (target.mode == abi::ForwardingMode::l2dsr) {
    if (packet.ip_length > target.mtu_bytes) return false;
    copy_macs(data, target);
    return true;
  }
  const bool outer_is_v6 = !is_v4(target.address);
  const std::uint32_t outer = net::encap_bytes(outer_is_v6);
  if (packet.ip_length + outer > target.mtu_bytes || outer > headroom) return false;
  if (!(outer_is_v6 ? sources.v6_present : sources.v4_present)) return false;
  std::uint8_t* inner = data + net::kEthernetBytes;
  if (outer_is_v6) {
    prepend_v6(inner, target, packet, sources, wire_hash(hash));
  } else {
    prepend_v4(inner, target, packet, sources, wire_hash(hash));
  }
  data -= outer;
  length = net::kEthernetBytes + outer + packet.ip_length;
  return true;
}

}  // namespace lb
