// The common packet: untagged Ethernet, IPv4 without options, TCP or UDP, not a fragment. Its fields stand at fixed places,
// so the packet path reads them from the frame, and a ParsedPacket is made only where something else asks for one.
//
//   0        6        12    14 15 16  18 20 22  23  24   26      30      34    36    38 … 46  47
//   MAC dst │ MAC src │0800│45│tos│len│id│DF│ttl│pro│csum│ source │ dest. │sport│dport│   │doff│flags
//
// Whatever is done here equals what dp/net does in general: tests compare the two.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dp/abi/snapshot.h"
#include "dp/base/compiler.h"
#include "dp/base/endian.h"
#include "dp/lb/forward_ops.h"
#include "dp/net/checksum.h"
#include "dp/net/parse.h"

namespace lb {

inline constexpr std::uint32_t kPlainIp = net::kEthernetBytes;
inline constexpr std::uint32_t kPlainL4 = net::kEthernetBytes + net::kIpv4Bytes;
inline constexpr std::uint8_t kTcp = static_cast<std::uint8_t>(abi::Protocol::tcp);
inline constexpr std::uint8_t kUdp = static_cast<std::uint8_t>(abi::Protocol::udp);

LB_INLINE std::uint32_t plain_ip_length(const std::uint8_t* frame) {
  return load_be16(frame + kPlainIp + net::kIpv4TotalLengthAt);
}
LB_INLINE std::uint32_t plain_source(const std::uint8_t* frame) {
  return load<std::uint32_t>(frame + kPlainIp + net::kIpv4SourceAt);
}
LB_INLINE std::uint32_t plain_destination(const std::uint8_t* frame) {
  return load<std::uint32_t>(frame + kPlainIp + net::kIpv4DestinationAt);
}
LB_INLINE std::uint8_t plain_protocol(const std::uint8_t* frame) {
  return frame[kPlainIp + net::kIpv4ProtocolAt];
}
LB_INLINE std::uint8_t plain_tcp_flags(const std::uint8_t* frame) {
  return plain_protocol(frame) == kTcp ? frame[kPlainL4 + net::kTcpFlagsAt] : std::uint8_t{0};
}

// Exactly what net::detail::parse_plain_v4 accepts, the checksum apart.
LB_INLINE bool is_plain_frame(const std::uint8_t* frame, std::uint32_t length) {
  if (length < kPlainL4 + net::kUdpBytes) return false;
  const auto type_version = load<std::uint32_t>(frame + net::kEtherTypeAt) & 0xffffff;
  const auto fragment = load<std::uint16_t>(frame + kPlainIp + net::kIpv4FragmentAt) & swap16(net::kIpv4MoreOrOffset);
  const std::uint32_t ip_length = plain_ip_length(frame);
  if (type_version != 0x450008 || fragment != 0 || ip_length > length - net::kEthernetBytes) return false;
  if (plain_protocol(frame) == kTcp) [[likely]] {
    if (ip_length < net::kIpv4Bytes + net::kTcpBytes) return false;
    const std::uint32_t header_bytes = (frame[kPlainL4 + net::kTcpDataOffsetAt] & 0xf0U) >> 2;
    return header_bytes >= net::kTcpBytes && net::kIpv4Bytes + header_bytes <= ip_length;
  }
  const std::uint32_t udp_bytes = load_be16(frame + kPlainL4 + net::kUdpLengthAt);
  return plain_protocol(frame) == kUdp && udp_bytes >= net::kUdpBytes && net::kIpv4Bytes + udp_bytes <= ip_length;
}

// As parse() would fill it.
LB_INLINE void parse_plain_frame(const std::uint8_t* frame, net::ParsedPacket& packet) {
  net::detail::store_v4(packet.key.source, plain_source(frame));
  net::detail::store_v4(packet.key.destination, plain_destination(frame));
  // Ports, protocol, is_v6 and reserved are one word: read again at once as part of larger ones, single bytes would stall.
  static_assert(offsetof(net::FlowKey, source_port) == 32 && offsetof(net::FlowKey, protocol) == 36 &&
                sizeof(net::FlowKey) == 40);
  store(reinterpret_cast<std::uint8_t*>(&packet.key) + 32, std::uint64_t{load_be16(frame + kPlainL4)} |
                                                               std::uint64_t{load_be16(frame + kPlainL4 + 2)} << 16 |
                                                               std::uint64_t{plain_protocol(frame)} << 32);
  packet.l2_length = net::kEthernetBytes;
  packet.l4_offset = kPlainL4;
  packet.ip_length = static_cast<std::uint16_t>(plain_ip_length(frame));
  packet.vlan = 0;
  packet.protocol = plain_protocol(frame);
  packet.tcp_flags = plain_tcp_flags(frame);
  packet.ttl = frame[kPlainIp + net::kIpv4TtlAt];
  packet.traffic_class = frame[kPlainIp + net::kIpv4TosAt];
  packet.dont_fragment = (frame[kPlainIp + net::kIpv4FragmentAt] & 0x40) != 0;
}

// Whether the source may be one that net::is_bad_source() refuses, by its first byte: 0, 127, 224-239, 255.
struct SuspiciousSources {
  std::uint64_t words[4] = {1, std::uint64_t{1} << 63, 0, std::uint64_t{0xffff} << 32 | std::uint64_t{1} << 63};
};
constexpr SuspiciousSources kSuspicious;

LB_INLINE bool is_suspicious_source(const std::uint8_t* frame) {
  const std::uint8_t first = frame[kPlainIp + net::kIpv4SourceAt];
  return (kSuspicious.words[first >> 6] >> (first & 63) & 1) != 0 || plain_source(frame) == plain_destination(frame);
}

// The key of the VIP table's exact cell: the address's low word, and port, protocol and kind as they stand in a VipCell.
struct PlainVipKey {
  std::uint64_t low = 0;
  std::uint32_t rest = 0;
};

LB_INLINE PlainVipKey plain_vip_key(const std::uint8_t* frame) {
  return {0xffff0000 | std::uint64_t{plain_destination(frame)} << 32,
          std::uint32_t{load_be16(frame + kPlainL4 + 2)} | std::uint32_t{plain_protocol(frame)} << 16 |
              static_cast<std::uint32_t>(abi::VipCellKind::exact) << 24};
}

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

LB_INLINE void prepend_v4(std::uint8_t* inner, std::uint32_t ip_length, const abi::Target& target,
                          const PlainSources& sources, std::uint64_t on_wire) {
  std::uint8_t* outer = inner - net::kIpv4Bytes;
  const auto id_flags = load<std::uint32_t>(inner + net::kIpv4IdAt);
  const bool dont_fragment = (id_flags >> 16 & 0x40) != 0;
  const std::uint32_t id = (id_flags ^ swap16(static_cast<std::uint16_t>(on_wire >> 48))) & 0xffff;
  const std::uint32_t word0 = (load<std::uint32_t>(inner) & 0xff00U) | 0x45U |
                              std::uint32_t{swap16(static_cast<std::uint16_t>(ip_length + net::kIpv4Bytes))} << 16;
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

LB_INLINE void prepend_v6(std::uint8_t* inner, std::uint32_t ip_length, const abi::Target& target,
                          const PlainSources& sources, std::uint64_t on_wire) {
  std::uint8_t* outer = inner - net::kIpv6Bytes;
  const auto label = static_cast<std::uint32_t>(on_wire >> 44);
  const std::uint32_t word0 = swap32(0x60000000U | std::uint32_t{inner[net::kIpv4TosAt]} << 20 | label);
  const std::uint32_t word1 = std::uint32_t{swap16(static_cast<std::uint16_t>(ip_length))} |
                              static_cast<std::uint32_t>(abi::Protocol::ipip) << 16 | std::uint32_t{net::kDefaultTtl} << 24;
  store(outer, word0 | std::uint64_t{word1} << 32);
  store(outer + 8, sources.v6_high);
  store(outer + 16, sources.v6_low | (swap64(on_wire) & sources.v6_host_mask));
  store(outer + 24, load<std::uint64_t>(target.address.bytes.data()));
  store(outer + 32, load<std::uint64_t>(target.address.bytes.data() + 8));
  decrement_ttl_v4(inner);
  copy_macs(outer - net::kEthernetBytes, target);
  store(outer - 2, swap16(net::kEtherTypeIpv6));
}

// Sends a plain frame untagged. True: done, data and length are the frame to send. False: it does not fit, or the target is
// on a VLAN; nothing was touched, and forward() knows.
LB_INLINE bool forward_plain(const abi::Target& target, const Hash128& hash, const PlainSources& sources,
                             std::uint32_t headroom, std::uint8_t*& data, std::uint32_t& length) {
  const std::uint32_t ip_length = plain_ip_length(data);
  if (target.mode == abi::ForwardingMode::l2dsr) {
    if (target.vlan != 0 || ip_length > target.mtu_bytes) return false;
    copy_macs(data, target);
    return true;
  }
  std::uint8_t* inner = data + net::kEthernetBytes;
  if (is_v4(target.address)) {
    constexpr std::uint32_t kOuter = net::kIpv4Bytes;
    if (target.vlan != 0 || ip_length + kOuter > target.mtu_bytes || kOuter > headroom || !sources.v4_present) return false;
    prepend_v4(inner, ip_length, target, sources, wire_hash(hash));
    data -= kOuter;
    length = net::kEthernetBytes + kOuter + ip_length;
    return true;
  }
  constexpr std::uint32_t kOuter = net::kIpv6Bytes;
  if (target.vlan != 0 || ip_length + kOuter > target.mtu_bytes || kOuter > headroom || !sources.v6_present) return false;
  prepend_v6(inner, ip_length, target, sources, wire_hash(hash));
  data -= kOuter;
  length = net::kEthernetBytes + kOuter + ip_length;
  return true;
}

}  // namespace lb
