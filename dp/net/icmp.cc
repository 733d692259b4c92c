#include "dp/net/icmp.h"

#include <cstring>

#include "dp/base/endian.h"
#include "dp/net/checksum.h"
#include "dp/net/reply.h"

namespace lb::net {
namespace {

constexpr std::uint8_t kEchoReplyV4 = 0;
constexpr std::uint8_t kUnreachableV4 = 3;
constexpr std::uint8_t kEchoRequestV4 = 8;
constexpr std::uint8_t kTimeExceededV4 = 11;
constexpr std::uint8_t kParameterProblemV4 = 12;
constexpr std::uint8_t kLastErrorV6 = 127;
constexpr std::uint8_t kEchoRequestV6 = 128;
constexpr std::uint8_t kEchoReplyV6 = 129;

constexpr std::uint32_t kPortBytes = 8;  // of the quoted L4 header: RFC 792's least, with both ports in it

IcmpKind kind_of(std::uint8_t type, bool is_v6) {
  if (is_v6)
    return type == kEchoRequestV6 ? IcmpKind::echo_request : type <= kLastErrorV6 ? IcmpKind::error : IcmpKind::other;
  if (type == kEchoRequestV4) return IcmpKind::echo_request;
  const bool error = type == kUnreachableV4 || type == kTimeExceededV4 || type == kParameterProblemV4;
  return error ? IcmpKind::error : IcmpKind::other;
}

bool is_intact(const std::uint8_t* icmp, std::uint32_t bytes, const ParsedPacket& packet) {
  const bool is_v6 = packet.key.is_v6 != 0;
  const std::uint64_t pseudo =
      is_v6 ? pseudo_header_sum(packet.key.source, packet.key.destination, true, packet.protocol, bytes) : 0;
  return checksum_fold(checksum_sum(icmp, bytes, pseudo)) == 0xffff;
}

// Where the quoted packet's L4 header starts, and what it is. False: the quote is no IP header.
struct Quote {
  std::uint32_t l4_at = 0;
  std::uint8_t protocol = 0;
  bool has_ports = true;  // false: a fragment that is not the first
};

bool read_quote_v4(const std::uint8_t* ip, std::uint32_t bytes, Quote& quote, FlowKey& flow) {
  if (bytes < kIpv4Bytes || ip[0] >> 4 != 4) return false;
  quote.l4_at = (ip[0] & 0x0f) * 4U;
  if (quote.l4_at < kIpv4Bytes || quote.l4_at > bytes) return false;
  quote.protocol = ip[kIpv4ProtocolAt];
  quote.has_ports = (load_be16(ip + kIpv4FragmentAt) & 0x1fff) == 0;
  detail::store_v4(flow.source, load<std::uint32_t>(ip + kIpv4DestinationAt));
  detail::store_v4(flow.destination, load<std::uint32_t>(ip + kIpv4SourceAt));
  return true;
}

bool read_quote_v6(const std::uint8_t* ip, std::uint32_t bytes, Quote& quote, FlowKey& flow) {
  if (bytes < kIpv6Bytes || ip[0] >> 4 != 6 || detail::is_mapped(ip + kIpv6SourceAt) ||
      detail::is_mapped(ip + kIpv6DestinationAt)) {
    return false;
  }
  flow.source = load<abi::IpAddress>(ip + kIpv6DestinationAt);
  flow.destination = load<abi::IpAddress>(ip + kIpv6SourceAt);
  flow.is_v6 = 1;
  quote.l4_at = kIpv6Bytes;
  quote.protocol = ip[kIpv6NextHeaderAt];
  for (std::uint32_t count = 0; count < kMaxExtensionHeaders; ++count) {
    const bool fragment = quote.protocol == kIpv6Fragment;
    if (!fragment && quote.protocol != kIpv6HopByHop && quote.protocol != kIpv6Routing &&
        quote.protocol != kIpv6DestinationOptions) {
      return true;
    }
    if (bytes - quote.l4_at < 8) return false;
    const std::uint8_t* header = ip + quote.l4_at;
    const std::uint32_t header_bytes = fragment ? 8 : (header[1] + 1U) * 8;
    if (header_bytes > bytes - quote.l4_at) return false;
    if (fragment && (load_be16(header + 2) & 0xfff8) != 0) quote.has_ports = false;
    quote.protocol = header[0];
    quote.l4_at += header_bytes;
  }
  return false;
}

}  // namespace

IcmpMessage read_icmp(const std::uint8_t* frame, const ParsedPacket& packet) {
  const bool is_v6 = packet.key.is_v6 != 0;
  const std::uint8_t* icmp = frame + packet.l4_offset;
  const std::uint32_t bytes = packet.l2_length + packet.ip_length - packet.l4_offset;
  IcmpMessage message;
  if (bytes < kIcmpBytes) return message;
  const IcmpKind kind = kind_of(icmp[0], is_v6);
  if (kind == IcmpKind::other) return {kind, {}};
  if (!is_intact(icmp, bytes, packet)) return message;
  if (kind == IcmpKind::echo_request) return {kind, {}};

  const std::uint8_t* quoted = icmp + kIcmpBytes;
  const std::uint32_t quoted_bytes = bytes - kIcmpBytes;
  Quote quote;
  const bool is_ip = is_v6 ? read_quote_v6(quoted, quoted_bytes, quote, message.flow)
                           : read_quote_v4(quoted, quoted_bytes, quote, message.flow);
  if (!is_ip) return message;
  const bool has_flow = quote.protocol == static_cast<std::uint8_t>(abi::Protocol::tcp) ||
                        quote.protocol == static_cast<std::uint8_t>(abi::Protocol::udp);
  message.kind = IcmpKind::error_other;
  message.flow.protocol = quote.protocol;
  if (!has_flow || !quote.has_ports) return message;
  if (quoted_bytes - quote.l4_at < kPortBytes) return {};
  message.flow.source_port = load_be16(quoted + quote.l4_at + 2);
  message.flow.destination_port = load_be16(quoted + quote.l4_at);
  message.kind = IcmpKind::error;
  return message;
}

std::uint32_t build_echo_reply(const std::uint8_t* frame, const ParsedPacket& packet, std::uint8_t* out) {
  if (!may_answer(frame)) return 0;
  const bool is_v6 = packet.key.is_v6 != 0;
  const std::uint32_t bytes = packet.l2_length + packet.ip_length - packet.l4_offset;
  std::uint8_t* ip = out + packet.l2_length;
  std::uint8_t* icmp = ip + (is_v6 ? kIpv6Bytes : kIpv4Bytes);
  const abi::IpAddress client = packet.key.source;
  const abi::IpAddress vip = packet.key.destination;
  std::memmove(icmp, frame + packet.l4_offset, bytes);  // first: the headers in front of it only get shorter
  write_l2_of(frame, packet, true, out);
  write_ip(ip, is_v6, vip, client, packet.protocol, bytes);
  const auto before = load<std::uint16_t>(icmp);
  icmp[0] = is_v6 ? kEchoReplyV6 : kEchoReplyV4;
  store(icmp + 2, checksum_update(load<std::uint16_t>(icmp + 2), before, load<std::uint16_t>(icmp)));
  return static_cast<std::uint32_t>(icmp + bytes - out);
}

}  // namespace lb::net
