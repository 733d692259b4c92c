// Bytes in: reads Ethernet, VLAN tags, IPv4 with options or IPv6 with extension headers, and the ports of TCP or UDP.
//
//   parse_inline ── untagged, IPv4 without options or IPv6 without extension headers, TCP or UDP, not a fragment ─▶ ok
//        └───────── anything else: parse(), out of line, which also finds the name of what is wrong
//
// Every length is checked against the frame and against each other before it is used; nothing past `length` is read.
// Ethernet padding behind the IP packet is accepted, and not part of ip_length. Judgements that depend on whom the packet
// is for are not made here: ttl_expired and bad_source (is_bad_source) are the pipeline's, once the destination is a VIP.
// The kernel's own traffic may well have them: duplicate address detection and DHCP send from the unspecified address.
#pragma once

#include <cstdint>

#include "dp/abi/counters.h"
#include "dp/base/compiler.h"
#include "dp/base/endian.h"
#include "dp/net/checksum.h"
#include "dp/net/flow_key.h"
#include "dp/net/headers.h"

namespace lb::net {

struct ParsedPacket {
  FlowKey key;                     // ports 0 where the protocol has none
  std::uint16_t l2_length = 0;     // bytes of Ethernet and VLAN headers
  std::uint16_t l4_offset = 0;     // bytes from the start of the frame; after options and extension headers
  std::uint16_t ip_length = 0;     // bytes of the IP packet: trailing Ethernet padding is not part of it
  std::uint16_t vlan = 0;          // VID of the outermost tag, 0 if untagged
  std::uint8_t protocol = 0;       // the IP protocol at l4_offset
  std::uint8_t tcp_flags = 0;      // 0 for other protocols
  std::uint8_t ttl = 0;            // or hop limit
  std::uint8_t traffic_class = 0;  // TOS byte or traffic class
  std::uint8_t dont_fragment = 0;  // IPv4 DF; 1 for IPv6
};

enum class ParseResult : std::uint8_t {
  ok,        // a whole TCP or UDP header: key is complete
  other_ip,  // well-formed IP, but not TCP or UDP (ICMP, …), or a fragment: addresses and protocol are set, ports are 0
  not_ip,    // ARP, LLDP, …: for the kernel; of `out` only l2_length and vlan are set
  drop,      // malformed; `reason` says how; `out` is not to be used
};

struct ParseStatus {
  ParseResult result = ParseResult::drop;
  abi::DropReason reason = abi::DropReason::none;  // set when result is drop; `fragment` when other_ip is a fragment
};

inline constexpr std::uint8_t kTcpFin = 0x01;
inline constexpr std::uint8_t kTcpSyn = 0x02;
inline constexpr std::uint8_t kTcpRst = 0x04;
inline constexpr std::uint8_t kTcpPsh = 0x08;
inline constexpr std::uint8_t kTcpAck = 0x10;
inline constexpr std::uint8_t kTcpUrg = 0x20;

inline constexpr std::uint32_t kMaxExtensionHeaders = 8;

// Reads the frame of `length` bytes at `frame`. `check_ip_checksum` is false where the NIC has done it.
//   truncated              the frame ends before a header does, or is shorter than the IP length says
//   bad_ip_header          version, header length or total length; IPv6 payload length 0 (empty or jumbogram); an
//                          IPv4-mapped address in an IPv6 packet: it must not be taken for an IPv4 VIP or client
//   bad_ip_checksum        IPv4 header checksum
//   bad_extension_header   runs out of the packet, hop-by-hop not first, or more than kMaxExtensionHeaders
//   bad_l4_header          TCP data offset or UDP length does not fit the IP payload
// A first fragment carries ports, but is a fragment all the same: its followers do not. An IPv6 packet with a fragment
// header that is the whole packet (RFC 6946) is no fragment. A routing header with segments left makes the packet
// other_ip with protocol 43: its final destination is another.
ParseStatus parse(const std::uint8_t* frame, std::uint32_t length, bool check_ip_checksum, ParsedPacket& out);

// Source addresses no packet for a VIP may have (RFC 6890, "source" or "forwardable" false):
//   IPv4 0/8, 127/8, 224/4, 240/4;  IPv6 ::/96 (unspecified, loopback, IPv4-compatible), fe80::/10, ff00::/8
LB_INLINE bool is_bad_source(const FlowKey& key) {
  const std::uint8_t* bytes = key.source.bytes.data();
  if (key.is_v6 == 0) {
    const std::uint32_t first = bytes[12];
    return first == 0 || first == 127 || first >= 224;
  }
  const bool compatible = load<std::uint64_t>(bytes) == 0 && load<std::uint32_t>(bytes + 8) == 0;
  return compatible || bytes[0] == 0xff || (bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80);
}

// A packet that names its destination as its source ("land").
LB_INLINE bool is_land(const FlowKey& key) {
  return load<std::uint64_t>(key.source.bytes.data()) == load<std::uint64_t>(key.destination.bytes.data()) &&
         load<std::uint64_t>(key.source.bytes.data() + 8) == load<std::uint64_t>(key.destination.bytes.data() + 8);
}

namespace detail {

// ::ffff:a.b.c.d; `address` as it stands in the packet.
LB_INLINE void store_v4(abi::IpAddress& to, std::uint32_t address) {
  store(to.bytes.data(), std::uint64_t{0});
  store(to.bytes.data() + 8, std::uint64_t{address} << 32 | 0xffff0000);
}

LB_INLINE void store_ports(FlowKey& key, const std::uint8_t* l4, std::uint8_t protocol, bool is_v6) {
  key.source_port = load_be16(l4);
  key.destination_port = load_be16(l4 + 2);
  key.protocol = protocol;
  key.is_v6 = is_v6 ? 1 : 0;
  key.reserved = 0;
}

// ::ffff:0:0/96, which is for interfaces between programs, not for packets (RFC 4038 §4.2).
LB_INLINE bool is_mapped(const std::uint8_t* address) {
  return load<std::uint64_t>(address) == 0 && load<std::uint32_t>(address + 8) == 0xffff0000;
}

// Whether `l4_bytes` of IP payload hold a whole TCP or UDP header that agrees with them. They are ≥ kUdpBytes here.
LB_INLINE bool l4_fits(const std::uint8_t* l4, std::uint8_t protocol, std::uint32_t l4_bytes) {
  if (protocol == static_cast<std::uint8_t>(abi::Protocol::tcp)) {
    if (l4_bytes < kTcpBytes) return false;
    const std::uint32_t header_bytes = (l4[kTcpDataOffsetAt] >> 4) * 4U;
    return header_bytes >= kTcpBytes && header_bytes <= l4_bytes;
  }
  if (protocol == static_cast<std::uint8_t>(abi::Protocol::udp)) {
    const std::uint32_t udp_bytes = load_be16(l4 + kUdpLengthAt);
    return udp_bytes >= kUdpBytes && udp_bytes <= l4_bytes;
  }
  return false;
}

LB_INLINE std::uint8_t tcp_flags(const std::uint8_t* l4, std::uint8_t protocol) {
  return protocol == static_cast<std::uint8_t>(abi::Protocol::tcp) ? l4[kTcpFlagsAt] : std::uint8_t{0};
}

// The common IPv4 packet; false: something is uncommon or wrong, and `out` is not to be used.
LB_INLINE bool parse_plain_v4(const std::uint8_t* frame, std::uint32_t length, bool check_ip_checksum, ParsedPacket& out) {
  if (length < kEthernetBytes + kIpv4Bytes + kUdpBytes) return false;
  const std::uint8_t* ip = frame + kEthernetBytes;
  const std::uint8_t* l4 = ip + kIpv4Bytes;
  const std::uint32_t ip_length = load_be16(ip + kIpv4TotalLengthAt);
  const std::uint16_t fragment = load_be16(ip + kIpv4FragmentAt);
  const std::uint8_t protocol = ip[kIpv4ProtocolAt];
  if (ip[0] != 0x45 || ip_length < kIpv4Bytes + kUdpBytes || ip_length > length - kEthernetBytes ||
      (fragment & kIpv4MoreOrOffset) != 0 || !l4_fits(l4, protocol, ip_length - kIpv4Bytes)) {
    return false;
  }
  if (check_ip_checksum && checksum_fold(ipv4_header_sum(ip)) != 0xffff) return false;
  store_v4(out.key.source, load<std::uint32_t>(ip + kIpv4SourceAt));
  store_v4(out.key.destination, load<std::uint32_t>(ip + kIpv4DestinationAt));
  store_ports(out.key, l4, protocol, false);
  out.l2_length = kEthernetBytes;
  out.l4_offset = kEthernetBytes + kIpv4Bytes;
  out.ip_length = static_cast<std::uint16_t>(ip_length);
  out.vlan = 0;
  out.protocol = protocol;
  out.tcp_flags = tcp_flags(l4, protocol);
  out.ttl = ip[kIpv4TtlAt];
  out.traffic_class = ip[kIpv4TosAt];
  out.dont_fragment = (fragment & kIpv4DontFragment) != 0;
  return true;
}

// The common IPv6 packet; as parse_plain_v4.
LB_INLINE bool parse_plain_v6(const std::uint8_t* frame, std::uint32_t length, ParsedPacket& out) {
  if (length < kEthernetBytes + kIpv6Bytes + kUdpBytes) return false;
  const std::uint8_t* ip = frame + kEthernetBytes;
  const std::uint8_t* l4 = ip + kIpv6Bytes;
  const std::uint32_t l4_bytes = load_be16(ip + kIpv6PayloadLengthAt);
  const std::uint8_t protocol = ip[kIpv6NextHeaderAt];
  if (ip[0] >> 4 != 6 || l4_bytes < kUdpBytes || l4_bytes > length - kEthernetBytes - kIpv6Bytes ||
      l4_bytes > 0xffff - kIpv6Bytes || is_mapped(ip + kIpv6SourceAt) || is_mapped(ip + kIpv6DestinationAt) ||
      !l4_fits(l4, protocol, l4_bytes)) {
    return false;
  }
  out.key.source = load<abi::IpAddress>(ip + kIpv6SourceAt);
  out.key.destination = load<abi::IpAddress>(ip + kIpv6DestinationAt);
  store_ports(out.key, l4, protocol, true);
  out.l2_length = kEthernetBytes;
  out.l4_offset = kEthernetBytes + kIpv6Bytes;
  out.ip_length = static_cast<std::uint16_t>(kIpv6Bytes + l4_bytes);
  out.vlan = 0;
  out.protocol = protocol;
  out.tcp_flags = tcp_flags(l4, protocol);
  out.ttl = ip[kIpv6HopLimitAt];
  out.traffic_class = static_cast<std::uint8_t>(load_be16(ip) >> 4);
  out.dont_fragment = 1;
  return true;
}

}  // namespace detail

// As parse(), with the common case inlined into the caller: for code that is compiled per instruction set.
LB_INLINE ParseStatus parse_inline(const std::uint8_t* frame, std::uint32_t length, bool check_ip_checksum,
                                   ParsedPacket& out) {
  if (length >= kEthernetBytes) [[likely]] {
    const std::uint16_t ether_type = load_be16(frame + kEtherTypeAt);
    if (ether_type == kEtherTypeIpv4) {
      if (detail::parse_plain_v4(frame, length, check_ip_checksum, out)) [[likely]]
        return {ParseResult::ok};
    } else if (ether_type == kEtherTypeIpv6) {
      if (detail::parse_plain_v6(frame, length, out)) [[likely]]
        return {ParseResult::ok};
    }
  }
  return parse(frame, length, check_ip_checksum, out);
}

}  // namespace lb::net
