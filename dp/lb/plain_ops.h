// The common packet: untagged Ethernet, IPv4 without options, TCP or UDP, not a fragment. Its fields stand at fixed places,
// so the packet path reads them from the frame, and a ParsedPacket is made only where something else asks for one.
//
//   0        6        12    14 15 16  18 20 22  23  24   26      30      34    36    38 … 46  47
//   MAC dst │ MAC src │0800│45│tos│len│id│DF│ttl│pro│csum│ source │ dest. │sport│dport│   │doff│flags
//
// Whatever is done here equals what dp/net does in general: tests compare the two.
#pragma once

#include <immintrin.h>

#include <array>
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

// What the packet path asks a packet's flags of: UDP's are those of an ordinary segment.
LB_INLINE std::uint8_t plain_path_flags(const std::uint8_t* frame) {
  return plain_protocol(frame) == kTcp ? frame[kPlainL4 + net::kTcpFlagsAt] : net::kTcpAck;
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

// Sixteen bytes of the frame in one compare: every byte at least `low` and at most `high` once masked. EtherType, version
// and header length, no fragment, TTL ≥ 2, protocol 6 … 17, and a first byte of the source that is neither 0 nor ≥ 224.
inline constexpr std::uint32_t kHeadAt = net::kEtherTypeAt;
struct alignas(16) HeadLimits {
  std::uint8_t mask[16] = {0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0x3f, 0xff, 0xff, 0xff, 0, 0, 0xff, 0};
  std::uint8_t low[16] = {0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 2, kTcp, 0, 0, 1, 0};
  std::uint8_t high[16] = {0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 0xff, kUdp, 0, 0, 223, 0};
};
inline constexpr HeadLimits kHeadLimits;

LB_INLINE __m128i load_128(const void* from) {
  return _mm_loadu_si128(static_cast<const __m128i*>(from));
}

LB_INLINE bool has_plain_head(const std::uint8_t* frame) {
  const __m128i bytes = _mm_and_si128(load_128(frame + kHeadAt), load_128(kHeadLimits.mask));
  const __m128i clamped = _mm_max_epu8(_mm_min_epu8(bytes, load_128(kHeadLimits.high)), load_128(kHeadLimits.low));
  return _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, clamped)) == 0xffff;
}

// A plain frame that may go on whatever its VIP: what net::detail::parse_plain_v4 accepts, the checksum apart, with a TTL
// above 1 and none of the sources that net::is_bad_source() and is_land() refuse. `length` ≥ kPlainBytes.
inline constexpr std::uint32_t kPlainBytes = net::kEthernetBytes + net::kIpv4Bytes + net::kUdpBytes;

LB_INLINE bool is_servable_frame(const std::uint8_t* frame, std::uint32_t length) {
  if (!has_plain_head(frame) || frame[kPlainIp + net::kIpv4SourceAt] == 127 ||
      plain_source(frame) == plain_destination(frame)) {
    return false;
  }
  const std::uint32_t ip_length = plain_ip_length(frame);
  if (ip_length > length - net::kEthernetBytes) return false;
  if (plain_protocol(frame) == kTcp) [[likely]] {
    const std::uint32_t header_bytes = (frame[kPlainL4 + net::kTcpDataOffsetAt] & 0xf0U) >> 2;
    return header_bytes >= net::kTcpBytes && net::kIpv4Bytes + header_bytes <= ip_length;
  }
  const std::uint32_t udp_bytes = load_be16(frame + kPlainL4 + net::kUdpLengthAt);
  return plain_protocol(frame) == kUdp && udp_bytes >= net::kUdpBytes && net::kIpv4Bytes + udp_bytes <= ip_length;
}

// What the flow hash is made of, as it stands in the packet: source, destination, ports, protocol, three zero bytes.
struct alignas(16) PlainTuple {
  std::array<std::uint8_t, 16> bytes;
};

LB_INLINE __m128i plain_tuple(const std::uint8_t* frame) {
  const __m128i words = load_128(frame + kPlainIp + net::kIpv4SourceAt);
  return _mm_and_si128(_mm_insert_epi8(words, plain_protocol(frame), 12), _mm_set_epi32(0xff, -1, -1, -1));
}

// Whether two tuples go to one address, protocol and port.
LB_INLINE bool is_same_listener(__m128i one, __m128i other) {
  return _mm_testz_si128(_mm_xor_si128(one, other), _mm_set_epi32(0xff, static_cast<int>(0xffff0000), -1, 0)) != 0;
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
  std::uint32_t v4_outer_bytes = 0;  // headroom needed: more than there can be where no source is configured
  std::uint32_t v6_outer_bytes = 0;
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
  constexpr std::uint32_t kNever = 1U << 20;
  sources.v4_outer_bytes = v4.present != 0 ? net::kIpv4Bytes : kNever;
  sources.v6_outer_bytes = v6.present != 0 ? net::kIpv6Bytes : kNever;
  sources.v4_host_mask = static_cast<std::uint32_t>(host_mask_of(v4) >> 32);
  sources.v4_prefix = load<std::uint32_t>(v4.prefix.bytes.data() + 12) & ~sources.v4_host_mask;
  sources.v6_host_mask = host_mask_of(v6);
  sources.v6_high = load<std::uint64_t>(v6.prefix.bytes.data());
  sources.v6_low = load<std::uint64_t>(v6.prefix.bytes.data() + 8) & ~sources.v6_host_mask;
  return sources;
}

// Twelve bytes of MACs, and four that are written over by what follows.
LB_INLINE void copy_macs(std::uint8_t* frame, const abi::Target& target) {
  static_assert(offsetof(abi::Target, source_mac) == offsetof(abi::Target, next_hop_mac) + 6 &&
                offsetof(abi::Target, next_hop_mac) + 16 <= sizeof(abi::Target));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(frame), load_128(target.next_hop_mac.data()));
}

// As net::decrement_ttl: TTL, protocol and checksum are one word; a sum is the same in either byte order.
LB_INLINE void decrement_ttl_v4(std::uint8_t* ip) {
  const auto word = load<std::uint32_t>(ip + net::kIpv4TtlAt);
  store(ip + net::kIpv4TtlAt, word + 0xffff + (static_cast<std::uint32_t>(word >= 0xfffe0000) << 16));
}

// The two halves of a sum added with the carry going round, in the upper half.
LB_INLINE std::uint32_t folded_upper(std::uint64_t sum) {
  const auto folded = static_cast<std::uint32_t>((sum + (sum << 32 | sum >> 32)) >> 32);
  return folded + (folded << 16 | folded >> 16);
}

// `word0`: of the outer header, as in memory: version, header length, TOS, total length.
LB_INLINE void prepend_v4(std::uint8_t* inner, std::uint32_t word0, const abi::Target& target, const PlainSources& sources,
                          std::uint64_t hash_high) {
  std::uint8_t* outer = inner - net::kIpv4Bytes;
  const auto id_flags = load<std::uint32_t>(inner + net::kIpv4IdAt);
  const std::uint32_t on_wire = swap16(static_cast<std::uint16_t>(hash_high));
  const std::uint32_t word1 = (id_flags & 0x00400000) != 0 ? 0x00400000 : (id_flags ^ on_wire) & 0xffff;
  constexpr std::uint32_t kWord2 = net::kDefaultTtl | static_cast<std::uint32_t>(abi::Protocol::ipip) << 8;
  const std::uint32_t source = sources.v4_prefix | (on_wire * 0x10001U & sources.v4_host_mask);
  const auto destination = load<std::uint32_t>(target.address.bytes.data() + 12);
  const std::uint32_t sum = folded_upper(std::uint64_t{word0} + word1 + kWord2 + source + destination);
  const __m128i macs = load_128(target.next_hop_mac.data());  // 12 bytes of MACs; then EtherType, and the first two of IP
  const std::uint32_t type_and_ip = std::uint32_t{swap16(net::kEtherTypeIpv4)} | word0 << 16;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(outer - net::kEthernetBytes),
                   _mm_insert_epi32(macs, static_cast<int>(type_and_ip), 3));
  store(outer, word0);
  store(outer + 4, word1);
  store(outer + 8, (~sum & 0xffff0000) | kWord2);
  store(outer + 12, source);
  store(outer + 16, destination);
  decrement_ttl_v4(inner);
}

LB_INLINE void prepend_v6(std::uint8_t* inner, std::uint32_t ip_length, const abi::Target& target,
                          const PlainSources& sources, std::uint64_t on_wire) {
  std::uint8_t* outer = inner - net::kIpv6Bytes;
  const auto label = static_cast<std::uint32_t>(on_wire >> 44);
  const std::uint32_t word0 = swap32(0x60000000U | std::uint32_t{inner[net::kIpv4TosAt]} << 20 | label);
  const std::uint32_t word1 = std::uint32_t{swap16(static_cast<std::uint16_t>(ip_length))} |
                              static_cast<std::uint32_t>(abi::Protocol::ipip) << 16 | std::uint32_t{net::kDefaultTtl} << 24;
  copy_macs(outer - net::kEthernetBytes, target);
  store(outer - 2, swap16(net::kEtherTypeIpv6));
  store(outer, word0 | std::uint64_t{word1} << 32);
  store(outer + 8, sources.v6_high);
  store(outer + 16, sources.v6_low | (swap64(on_wire) & sources.v6_host_mask));
  store(outer + 24, load<std::uint64_t>(target.address.bytes.data()));
  store(outer + 32, load<std::uint64_t>(target.address.bytes.data() + 8));
  decrement_ttl_v4(inner);
}

// The ways to send a plain frame untagged, each a loop of its own over a burst's hits.
enum class PlainWay : std::uint8_t { ipip_v4, ipip_v6, l2dsr, other };

LB_INLINE PlainWay plain_way(const abi::Target& target) {
  if (target.vlan != 0 || target.mode > abi::ForwardingMode::ipip) return PlainWay::other;
  if (target.mode == abi::ForwardingMode::l2dsr) return PlainWay::l2dsr;
  return is_v4(target.address) ? PlainWay::ipip_v4 : PlainWay::ipip_v6;
}

// Sends a plain frame to a target of this way. True: done, data and length are the frame to send. False: it does not fit;
// nothing was touched, and forward() knows.
template <PlainWay kWay>
LB_INLINE bool forward_by(const abi::Target& target, std::uint64_t hash_high, const PlainSources& sources,
                          std::uint32_t headroom, std::uint8_t*& data, std::uint32_t& length) {
  std::uint8_t* inner = data + net::kEthernetBytes;
  if constexpr (kWay == PlainWay::ipip_v4) {
    const std::uint32_t head = swap32(load<std::uint32_t>(inner)) + net::kIpv4Bytes;  // 4, 5, TOS, length
    const std::uint32_t outer_length = head & 0xffff;
    if (outer_length < net::kIpv4Bytes || outer_length > target.mtu_bytes || sources.v4_outer_bytes > headroom) return false;
    prepend_v4(inner, swap32(head), target, sources, hash_high);
    data -= net::kIpv4Bytes;
    length = net::kEthernetBytes + outer_length;
    return true;
  }
  const std::uint32_t ip_length = plain_ip_length(data);
  if constexpr (kWay == PlainWay::ipip_v6) {
    if (ip_length + net::kIpv6Bytes > target.mtu_bytes || sources.v6_outer_bytes > headroom) return false;
    prepend_v6(inner, ip_length, target, sources, wire_hash({0, hash_high}));
    data -= net::kIpv6Bytes;
    length = net::kEthernetBytes + net::kIpv6Bytes + ip_length;
    return true;
  }
  if (kWay != PlainWay::l2dsr || ip_length > target.mtu_bytes) return false;
  const auto type_and_ip = load<std::uint32_t>(data + net::kEtherTypeAt);
  copy_macs(data, target);
  store(data + net::kEtherTypeAt, type_and_ip);
  return true;
}

// The same whatever the target.
LB_INLINE bool forward_plain(const abi::Target& target, const Hash128& hash, const PlainSources& sources,
                             std::uint32_t headroom, std::uint8_t*& data, std::uint32_t& length) {
  switch (plain_way(target)) {
    case PlainWay::ipip_v4: return forward_by<PlainWay::ipip_v4>(target, hash.high, sources, headroom, data, length);
    case PlainWay::ipip_v6: return forward_by<PlainWay::ipip_v6>(target, hash.high, sources, headroom, data, length);
    case PlainWay::l2dsr: return forward_by<PlainWay::l2dsr>(target, hash.high, sources, headroom, data, length);
    case PlainWay::other: break;
  }
  return false;
}

}  // namespace lb
