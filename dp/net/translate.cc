#include "dp/net/translate.h"

#include "dp/base/endian.h"
#include "dp/net/checksum_change.h"
#include "dp/net/headers.h"

namespace lb::net {
namespace {

constexpr auto kTcp = static_cast<std::uint8_t>(abi::Protocol::tcp);
constexpr auto kUdp = static_cast<std::uint8_t>(abi::Protocol::udp);
constexpr auto kIcmpv4 = static_cast<std::uint8_t>(abi::Protocol::icmp);
constexpr auto kIcmpv6 = static_cast<std::uint8_t>(abi::Protocol::icmpv6);
constexpr std::uint32_t kUdpChecksumAt = 6;
constexpr std::uint32_t kIcmpChecksumAt = 2;

using Change = ChecksumChange;

// Replaces an address of an IP header, and its IPv4 checksum. What is returned concerns pseudo headers.
Change replace_address(std::uint8_t* ip, bool is_v6, Side side, const abi::IpAddress& address) {
  const bool source = side == Side::source;
  if (is_v6) return replace_bytes(ip + (source ? kIpv6SourceAt : kIpv6DestinationAt), address.bytes.data(), 16);
  const Change change = replace_bytes(ip + (source ? kIpv4SourceAt : kIpv4DestinationAt), address.bytes.data() + 12, 4);
  change.apply(ip + kIpv4ChecksumAt);
  return change;
}

// Replaces a port and updates the L4 checksum for it and for `addresses`. `bytes`: how many of the L4 header are there.
// Returns what became of the bytes at `l4` themselves.
Change replace_port(std::uint8_t* l4, std::uint32_t bytes, std::uint8_t protocol, Side side, std::uint16_t port,
                    const Change& addresses) {
  std::uint8_t word[2];
  store_be16(word, port);
  Change change = replace_bytes(l4 + (side == Side::source ? 0 : 2), word, 2);
  const std::uint32_t checksum_at = protocol == kTcp ? kTcpChecksumAt : kUdpChecksumAt;
  if (bytes < checksum_at + 2) return change;
  std::uint8_t* checksum = l4 + checksum_at;
  const auto before = load<std::uint16_t>(checksum);
  if (protocol == kUdp && before == 0) return change;
  Change covered = addresses;
  covered.add(change);
  covered.apply(checksum);
  if (protocol == kUdp && load<std::uint16_t>(checksum) == 0) store(checksum, std::uint16_t{0xffff});
  change.add(reinterpret_cast<const std::uint8_t*>(&before), checksum, 2);
  return change;
}

// The packet an ICMP error quotes, as far as it is there.
struct Quote {
  std::uint8_t* ip = nullptr;
  std::uint8_t* l4 = nullptr;
  std::uint32_t l4_bytes = 0;
  std::uint8_t protocol = 0;
};

bool is_error(std::uint8_t protocol, std::uint8_t type) {
  if (protocol == kIcmpv6) return type >= 1 && type <= 4;  // RFC 4443: unreachable, too big, time exceeded, parameter
  return protocol == kIcmpv4 && (type == 3 || type == 11 || type == 12);
}

std::optional<Quote> find_quote(std::uint8_t* frame, const ParsedPacket& packet) {
  const std::uint32_t end = packet.l2_length + std::uint32_t{packet.ip_length};
  const bool is_v6 = packet.key.is_v6 != 0;
  const std::uint32_t at = packet.l4_offset + kIcmpBytes;
  const std::uint32_t ip_bytes = is_v6 ? kIpv6Bytes : kIpv4Bytes;
  if (packet.protocol != (is_v6 ? kIcmpv6 : kIcmpv4) || at + ip_bytes + 8 > end) return std::nullopt;
  if (!is_error(packet.protocol, frame[packet.l4_offset])) return std::nullopt;
  Quote quote{.ip = frame + at};
  std::uint32_t header = kIpv6Bytes;
  if (is_v6) {
    if (quote.ip[0] >> 4 != 6) return std::nullopt;
    quote.protocol = quote.ip[kIpv6NextHeaderAt];
  } else {
    header = (quote.ip[0] & 0x0fU) * 4;
    if (quote.ip[0] >> 4 != 4 || header < kIpv4Bytes || (load_be16(quote.ip + kIpv4FragmentAt) & 0x1fff) != 0)
      return std::nullopt;
    quote.protocol = quote.ip[kIpv4ProtocolAt];
  }
  if (at + header + 8 > end || (quote.protocol != kTcp && quote.protocol != kUdp)) return std::nullopt;
  quote.l4 = quote.ip + header;
  quote.l4_bytes = end - at - header;
  return quote;
}

}  // namespace

void translate(std::uint8_t* frame, const ParsedPacket& packet, Side side, const abi::IpAddress& address,
               std::uint16_t port) {
  const Change addresses = replace_address(frame + packet.l2_length, packet.key.is_v6 != 0, side, address);
  const std::uint32_t l4_bytes = packet.l2_length + std::uint32_t{packet.ip_length} - packet.l4_offset;
  replace_port(frame + packet.l4_offset, l4_bytes, packet.protocol, side, port, addresses);
}

void translate_address(std::uint8_t* frame, const ParsedPacket& packet, Side side, const abi::IpAddress& address) {
  replace_address(frame + packet.l2_length, packet.key.is_v6 != 0, side, address);
}

std::optional<FlowKey> quoted_flow(const std::uint8_t* frame, const ParsedPacket& packet) {
  const auto quote = find_quote(const_cast<std::uint8_t*>(frame), packet);
  if (!quote) return std::nullopt;
  FlowKey key;
  if (packet.key.is_v6 != 0) {
    key.source = load<abi::IpAddress>(quote->ip + kIpv6SourceAt);
    key.destination = load<abi::IpAddress>(quote->ip + kIpv6DestinationAt);
  } else {
    detail::store_v4(key.source, load<std::uint32_t>(quote->ip + kIpv4SourceAt));
    detail::store_v4(key.destination, load<std::uint32_t>(quote->ip + kIpv4DestinationAt));
  }
  detail::store_ports(key, quote->l4, quote->protocol, packet.key.is_v6 != 0);
  return key;
}

void translate_quote(std::uint8_t* frame, const ParsedPacket& packet, const QuoteChange& change) {
  const auto quote = find_quote(frame, packet);
  if (!quote) return;
  const bool is_v6 = packet.key.is_v6 != 0;
  const Change addresses = replace_address(quote->ip, is_v6, change.quoted_side, change.quoted_address);
  // An IPv4 header is whole and its checksum updated with it: its sum stands still. An IPv6 header's does not.
  Change icmp = is_v6 ? addresses : Change{};
  icmp.add(replace_port(quote->l4, quote->l4_bytes, quote->protocol, change.quoted_side, change.quoted_port, addresses));
  const Change outer = replace_address(frame + packet.l2_length, is_v6, change.outer_side, change.outer_address);
  if (is_v6) icmp.add(outer);  // ICMPv6 has a pseudo header
  icmp.apply(frame + packet.l4_offset + kIcmpChecksumAt);
}

}  // namespace lb::net
