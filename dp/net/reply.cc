#include "dp/net/reply.h"

#include <algorithm>
#include <cstring>

#include "dp/base/endian.h"
#include "dp/net/checksum.h"

namespace lb::net {
namespace {

constexpr std::uint8_t kIcmpv4Unreachable = 3;
constexpr std::uint8_t kIcmpv4PortUnreachable = 3;
constexpr std::uint8_t kIcmpv4FragmentationNeeded = 4;
constexpr std::uint8_t kIcmpv6Unreachable = 1;
constexpr std::uint8_t kIcmpv6PortUnreachable = 4;
constexpr std::uint8_t kIcmpv6PacketTooBig = 2;

// Fields of the packet, read before `out` (which may be the same memory) is written.
struct Segment {
  std::uint32_t sequence;
  std::uint32_t acknowledgment;
  std::uint32_t sequence_space;  // payload bytes, and one each for SYN and FIN
};

Segment read_segment(const std::uint8_t* frame, const ParsedPacket& packet) {
  const std::uint8_t* tcp = frame + packet.l4_offset;
  const std::uint32_t header_bytes = (tcp[kTcpDataOffsetAt] >> 4) * 4U;
  const std::uint32_t payload = packet.l2_length + packet.ip_length - packet.l4_offset - header_bytes;
  return {load_be32(tcp + kTcpSequenceAt), load_be32(tcp + kTcpAckAt),
          payload + ((packet.tcp_flags & kTcpSyn) != 0 ? 1U : 0U) + ((packet.tcp_flags & kTcpFin) != 0 ? 1U : 0U)};
}

struct Reset {
  abi::IpAddress source;
  abi::IpAddress destination;
  std::uint16_t source_port;
  std::uint16_t destination_port;
  std::uint32_t sequence;
  std::uint32_t acknowledgment;
  std::uint8_t flags;
};

std::uint32_t write_reset(std::uint8_t* out, const ParsedPacket& packet, const Reset& reset) {
  const bool is_v6 = packet.key.is_v6 != 0;
  constexpr auto kTcp = static_cast<std::uint8_t>(abi::Protocol::tcp);
  std::uint8_t* ip = out + packet.l2_length;
  std::uint8_t* tcp = ip + (is_v6 ? kIpv6Bytes : kIpv4Bytes);
  write_ip(ip, is_v6, reset.source, reset.destination, kTcp, kTcpBytes);
  store_be16(tcp, reset.source_port);
  store_be16(tcp + 2, reset.destination_port);
  store_be32(tcp + kTcpSequenceAt, reset.sequence);
  store_be32(tcp + kTcpAckAt, reset.acknowledgment);
  store_be32(tcp + kTcpDataOffsetAt, 0x50000000U | std::uint32_t{reset.flags} << 16);  // 5 words, window 0
  store_be32(tcp + kTcpChecksumAt, 0);
  const std::uint64_t sum = pseudo_header_sum(reset.source, reset.destination, is_v6, kTcp, kTcpBytes);
  store(tcp + kTcpChecksumAt, checksum_finish(checksum_sum(tcp, kTcpBytes, sum)));
  return static_cast<std::uint32_t>(tcp - out) + kTcpBytes;
}

bool may_reset(const std::uint8_t* frame, const ParsedPacket& packet) {
  return packet.protocol == static_cast<std::uint8_t>(abi::Protocol::tcp) && (packet.tcp_flags & kTcpRst) == 0 &&
         may_answer(frame);
}

}  // namespace

bool may_answer(const std::uint8_t* frame) {
  return (frame[0] & 0x01) == 0;
}

void write_ip(std::uint8_t* ip, bool is_v6, const abi::IpAddress& source, const abi::IpAddress& destination,
              std::uint8_t protocol, std::uint32_t payload_bytes) {
  if (is_v6) {
    store_be32(ip, 0x60000000);
    store_be32(ip + kIpv6PayloadLengthAt, payload_bytes << 16 | std::uint32_t{protocol} << 8 | kDefaultTtl);
    store(ip + kIpv6SourceAt, source);
    store(ip + kIpv6DestinationAt, destination);
    return;
  }
  store_be32(ip, 0x45000000 | (kIpv4Bytes + payload_bytes));
  store_be32(ip + kIpv4IdAt, kIpv4DontFragment);
  store_be32(ip + kIpv4TtlAt, std::uint32_t{kDefaultTtl} << 24 | std::uint32_t{protocol} << 16);
  std::memcpy(ip + kIpv4SourceAt, source.bytes.data() + 12, 4);
  std::memcpy(ip + kIpv4DestinationAt, destination.bytes.data() + 12, 4);
  store(ip + kIpv4ChecksumAt, checksum_finish(ipv4_header_sum(ip)));
}

void write_l2_of(const std::uint8_t* frame, const ParsedPacket& packet, bool swap, std::uint8_t* out) {
  const auto destination = load<abi::MacAddress>(frame + (swap ? 6 : 0));
  const auto source = load<abi::MacAddress>(frame + (swap ? 0 : 6));
  std::memmove(out, frame, packet.l2_length);
  store(out, destination);
  store(out + 6, source);
}

std::uint32_t build_reset_to_client(const std::uint8_t* frame, const ParsedPacket& packet, std::uint8_t* out) {
  if (!may_reset(frame, packet)) return 0;
  const Segment segment = read_segment(frame, packet);
  const bool has_ack = (packet.tcp_flags & kTcpAck) != 0;
  write_l2_of(frame, packet, true, out);
  return write_reset(out, packet,
                     {.source = packet.key.destination,
                      .destination = packet.key.source,
                      .source_port = packet.key.destination_port,
                      .destination_port = packet.key.source_port,
                      .sequence = has_ack ? segment.acknowledgment : 0,
                      .acknowledgment = has_ack ? 0 : segment.sequence + segment.sequence_space,
                      .flags = has_ack ? kTcpRst : static_cast<std::uint8_t>(kTcpRst | kTcpAck)});
}

std::uint32_t build_reset_to_target(const std::uint8_t* frame, const ParsedPacket& packet, std::uint8_t* out) {
  if (!may_reset(frame, packet)) return 0;
  const Segment segment = read_segment(frame, packet);
  const std::uint8_t ack = packet.tcp_flags & kTcpAck;
  write_l2_of(frame, packet, false, out);
  return write_reset(out, packet,
                     {.source = packet.key.source,
                      .destination = packet.key.destination,
                      .source_port = packet.key.source_port,
                      .destination_port = packet.key.destination_port,
                      .sequence = segment.sequence,
                      .acknowledgment = ack != 0 ? segment.acknowledgment : 0,
                      .flags = static_cast<std::uint8_t>(kTcpRst | ack)});
}

namespace {

// Type, code and the second word of an ICMP error.
struct Message {
  std::uint8_t type;
  std::uint8_t code;
  std::uint32_t word;
};

// `room_bytes`: how much longer the answer may be than the packet.
std::uint32_t build_error(const std::uint8_t* frame, const ParsedPacket& packet, const Message& message,
                          std::uint32_t room_bytes, std::uint8_t* out) {
  const bool is_v6 = packet.key.is_v6 != 0;
  const std::uint32_t ip_bytes = is_v6 ? kIpv6Bytes : kIpv4Bytes;
  const std::uint32_t l4_at = packet.l4_offset - packet.l2_length;
  // A quote has the ports, or it is of no use.
  const std::uint32_t longest = packet.ip_length + std::min(room_bytes, ip_bytes + kIcmpBytes);
  const std::uint32_t limit = std::min<std::uint32_t>(longest, is_v6 ? kIpv6MinMtuBytes : kMaxIcmpv4ErrorBytes);
  if (!may_answer(frame) || limit < ip_bytes + kIcmpBytes + l4_at + 8) return 0;
  const std::uint32_t quote_bytes = limit - ip_bytes - kIcmpBytes;
  const abi::IpAddress client = packet.key.source;
  const abi::IpAddress vip = packet.key.destination;

  std::uint8_t* ip = out + packet.l2_length;
  std::uint8_t* icmp = ip + ip_bytes;
  std::memmove(icmp + kIcmpBytes, frame + packet.l2_length, quote_bytes);
  write_l2_of(frame, packet, true, out);
  const auto protocol = static_cast<std::uint8_t>(is_v6 ? abi::Protocol::icmpv6 : abi::Protocol::icmp);
  write_ip(ip, is_v6, vip, client, protocol, kIcmpBytes + quote_bytes);
  icmp[0] = message.type;
  icmp[1] = message.code;
  store_be16(icmp + 2, 0);
  store_be32(icmp + 4, message.word);
  const std::uint64_t pseudo = is_v6 ? pseudo_header_sum(vip, client, true, protocol, kIcmpBytes + quote_bytes) : 0;
  store(icmp + 2, checksum_finish(checksum_sum(icmp, kIcmpBytes + quote_bytes, pseudo)));
  return packet.l2_length + limit;
}

}  // namespace

std::uint32_t build_packet_too_big(const std::uint8_t* frame, const ParsedPacket& packet, std::uint32_t mtu_bytes,
                                   std::uint8_t* out) {
  const bool is_v6 = packet.key.is_v6 != 0;
  const Message message =
      is_v6 ? Message{kIcmpv6PacketTooBig, 0, std::max(mtu_bytes, kIpv6MinMtuBytes)}
            : Message{kIcmpv4Unreachable, kIcmpv4FragmentationNeeded, std::min<std::uint32_t>(mtu_bytes, 0xffff)};
  return build_error(frame, packet, message, 0, out);
}

std::uint32_t build_port_unreachable(const std::uint8_t* frame, const ParsedPacket& packet, std::uint32_t room_bytes,
                                     std::uint8_t* out) {
  const bool is_v6 = packet.key.is_v6 != 0;
  const Message message = is_v6 ? Message{kIcmpv6Unreachable, kIcmpv6PortUnreachable, 0}
                                : Message{kIcmpv4Unreachable, kIcmpv4PortUnreachable, 0};
  return build_error(frame, packet, message, room_bytes, out);
}

}  // namespace lb::net
