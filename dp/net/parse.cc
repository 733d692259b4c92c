#include "dp/net/parse.h"

namespace lb::net {
namespace {

using abi::DropReason;
using abi::Protocol;

constexpr ParseStatus drop(DropReason reason) {
  return {ParseResult::drop, reason};
}

// TCP or UDP in `bytes` of IP payload; everything else about the packet is known.
ParseStatus parse_l4(const std::uint8_t* l4, std::uint32_t bytes, ParsedPacket& out) {
  const bool is_tcp = out.protocol == static_cast<std::uint8_t>(Protocol::tcp);
  if (!is_tcp && out.protocol != static_cast<std::uint8_t>(Protocol::udp)) return {ParseResult::other_ip};
  if (bytes < (is_tcp ? kTcpBytes : kUdpBytes)) return drop(DropReason::truncated);
  if (!detail::l4_fits(l4, out.protocol, bytes)) return drop(DropReason::bad_l4_header);
  detail::store_ports(out.key, l4, out.protocol, out.key.is_v6 != 0);
  out.tcp_flags = detail::tcp_flags(l4, out.protocol);
  return {ParseResult::ok};
}

ParseStatus parse_v4(const std::uint8_t* frame, std::uint32_t length, bool check_ip_checksum, ParsedPacket& out) {
  const std::uint8_t* ip = frame + out.l2_length;
  const std::uint32_t available = length - out.l2_length;
  if (available < kIpv4Bytes) return drop(DropReason::truncated);
  const std::uint32_t header_bytes = (ip[0] & 0x0f) * 4U;
  const std::uint32_t ip_length = load_be16(ip + kIpv4TotalLengthAt);
  if (ip[0] >> 4 != 4 || header_bytes < kIpv4Bytes || ip_length < header_bytes) return drop(DropReason::bad_ip_header);
  if (ip_length > available) return drop(DropReason::truncated);
  if (check_ip_checksum && checksum_fold(checksum_sum(ip, header_bytes)) != 0xffff) return drop(DropReason::bad_ip_checksum);

  const std::uint16_t fragment = load_be16(ip + kIpv4FragmentAt);
  detail::store_v4(out.key.source, load<std::uint32_t>(ip + kIpv4SourceAt));
  detail::store_v4(out.key.destination, load<std::uint32_t>(ip + kIpv4DestinationAt));
  out.l4_offset = static_cast<std::uint16_t>(out.l2_length + header_bytes);
  out.ip_length = static_cast<std::uint16_t>(ip_length);
  out.protocol = out.key.protocol = ip[kIpv4ProtocolAt];
  out.ttl = ip[kIpv4TtlAt];
  out.traffic_class = ip[kIpv4TosAt];
  out.dont_fragment = (fragment & kIpv4DontFragment) != 0;
  if ((fragment & kIpv4MoreOrOffset) != 0) return {ParseResult::other_ip, DropReason::fragment};
  return parse_l4(ip + header_bytes, ip_length - header_bytes, out);
}

// Follows extension headers. `offset`: of the header named by out.protocol, from the start of the IP packet of `end` bytes.
ParseStatus parse_extensions(const std::uint8_t* ip, std::uint32_t end, ParsedPacket& out) {
  std::uint32_t offset = kIpv6Bytes;
  std::uint8_t next = ip[kIpv6NextHeaderAt];
  DropReason reason = DropReason::none;
  for (std::uint32_t count = 0; reason == DropReason::none; ++count) {
    const bool is_extension =
        next == kIpv6HopByHop || next == kIpv6Routing || next == kIpv6Fragment || next == kIpv6DestinationOptions;
    if (!is_extension) break;
    const bool misplaced = next == kIpv6HopByHop && count != 0;
    if (misplaced || count == kMaxExtensionHeaders || end - offset < 8) return drop(DropReason::bad_extension_header);
    const std::uint8_t* header = ip + offset;
    const std::uint32_t header_bytes = next == kIpv6Fragment ? 8 : (header[1] + 1U) * 8;
    if (header_bytes > end - offset) return drop(DropReason::bad_extension_header);
    if (next == kIpv6Routing && header[3] != 0) break;
    if (next == kIpv6Fragment && (load_be16(header + 2) & 0xfff9) != 0) reason = DropReason::fragment;
    next = header[0];
    offset += header_bytes;
  }
  out.protocol = out.key.protocol = next;
  out.l4_offset = static_cast<std::uint16_t>(out.l2_length + offset);
  if (reason != DropReason::none) return {ParseResult::other_ip, reason};
  return parse_l4(ip + offset, end - offset, out);
}

ParseStatus parse_v6(const std::uint8_t* frame, std::uint32_t length, ParsedPacket& out) {
  const std::uint8_t* ip = frame + out.l2_length;
  const std::uint32_t available = length - out.l2_length;
  if (available < kIpv6Bytes) return drop(DropReason::truncated);
  const std::uint32_t payload_bytes = load_be16(ip + kIpv6PayloadLengthAt);
  if (ip[0] >> 4 != 6 || payload_bytes == 0) return drop(DropReason::bad_ip_header);
  if (payload_bytes > available - kIpv6Bytes) return drop(DropReason::truncated);
  if (payload_bytes > 0xffff - kIpv6Bytes) return drop(DropReason::bad_ip_header);  // no link of ours carries it
  if (detail::is_mapped(ip + kIpv6SourceAt) || detail::is_mapped(ip + kIpv6DestinationAt))
    return drop(DropReason::bad_ip_header);

  out.key.source = load<abi::IpAddress>(ip + kIpv6SourceAt);
  out.key.destination = load<abi::IpAddress>(ip + kIpv6DestinationAt);
  out.key.is_v6 = 1;
  out.ip_length = static_cast<std::uint16_t>(kIpv6Bytes + payload_bytes);
  out.ttl = ip[kIpv6HopLimitAt];
  out.traffic_class = static_cast<std::uint8_t>(load_be16(ip) >> 4);
  out.dont_fragment = 1;
  return parse_extensions(ip, out.ip_length, out);
}

}  // namespace

ParseStatus parse(const std::uint8_t* frame, std::uint32_t length, bool check_ip_checksum, ParsedPacket& out) {
  out = ParsedPacket{};
  if (length < kEthernetBytes) return drop(DropReason::truncated);
  std::uint32_t l2_length = kEthernetBytes;
  std::uint16_t ether_type = load_be16(frame + kEtherTypeAt);
  for (std::uint32_t tags = 0; tags < kMaxVlanTags && (ether_type == kEtherTypeVlan || ether_type == kEtherTypeQinQ);
       ++tags) {
    if (length < l2_length + kVlanTagBytes) return drop(DropReason::truncated);
    if (tags == 0) out.vlan = load_be16(frame + l2_length) & 0x0fff;
    ether_type = load_be16(frame + l2_length + 2);
    l2_length += kVlanTagBytes;
  }
  out.l2_length = static_cast<std::uint16_t>(l2_length);
  if (ether_type == kEtherTypeIpv4) return parse_v4(frame, length, check_ip_checksum, out);
  if (ether_type == kEtherTypeIpv6) return parse_v6(frame, length, out);
  return {ParseResult::not_ip};
}

}  // namespace lb::net
