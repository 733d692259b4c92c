#include "dp/net/family.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "dp/net/checksum_change.h"
#include "dp/net/headers.h"
#include "dp/net/reply.h"
#include "dp/net/rewrite.h"
#include "dp/net/translate.h"

namespace lb::net {
namespace {

constexpr auto kTcp = static_cast<std::uint8_t>(abi::Protocol::tcp);
constexpr auto kUdp = static_cast<std::uint8_t>(abi::Protocol::udp);
constexpr auto kIcmpv4 = static_cast<std::uint8_t>(abi::Protocol::icmp);
constexpr auto kIcmpv6 = static_cast<std::uint8_t>(abi::Protocol::icmpv6);
constexpr std::uint32_t kAddressesGrowth = kIpv6Bytes - kIpv4Bytes;

std::uint32_t l4_bytes(const ParsedPacket& packet) {
  return packet.l2_length + std::uint32_t{packet.ip_length} - packet.l4_offset;
}

struct IpHeader {
  std::uint8_t protocol = 0;
  std::uint8_t traffic_class = 0;
  std::uint8_t ttl = 0;
  std::uint16_t id = 0;
  std::uint32_t payload_bytes = 0;
};

void write_v6(std::uint8_t* ip, const IpHeader& header, const abi::IpAddress& source, const abi::IpAddress& destination) {
  store_be32(ip, 0x60000000U | std::uint32_t{header.traffic_class} << 20);
  store_be16(ip + kIpv6PayloadLengthAt, static_cast<std::uint16_t>(header.payload_bytes));
  ip[kIpv6NextHeaderAt] = header.protocol;
  ip[kIpv6HopLimitAt] = header.ttl;
  std::memcpy(ip + kIpv6SourceAt, source.bytes.data(), 16);
  std::memcpy(ip + kIpv6DestinationAt, destination.bytes.data(), 16);
}

// A packet of at most 1,260 bytes may be fragmented, as RFC 7915 §5.1 has it: IPv6 could not be told of a smaller MTU.
void write_v4(std::uint8_t* ip, const IpHeader& header, const abi::IpAddress& source, const abi::IpAddress& destination) {
  const std::uint32_t total = kIpv4Bytes + header.payload_bytes;
  const bool fits = total <= kIpv6MinMtuBytes - kAddressesGrowth;
  ip[0] = 0x45;
  ip[kIpv4TosAt] = header.traffic_class;
  store_be16(ip + kIpv4TotalLengthAt, static_cast<std::uint16_t>(total));
  store_be16(ip + kIpv4IdAt, fits ? header.id : std::uint16_t{0});
  store_be16(ip + kIpv4FragmentAt, fits ? std::uint16_t{0} : kIpv4DontFragment);
  ip[kIpv4TtlAt] = header.ttl;
  ip[kIpv4ProtocolAt] = header.protocol;
  store_be16(ip + kIpv4ChecksumAt, 0);
  std::memcpy(ip + kIpv4SourceAt, source.bytes.data() + 12, 4);
  std::memcpy(ip + kIpv4DestinationAt, destination.bytes.data() + 12, 4);
  store(ip + kIpv4ChecksumAt, checksum_finish(ipv4_header_sum(ip)));
}

// Ports, and the checksum for them and for the addresses of the pseudo header; length and protocol stay in it as they are.
void rewrite_l4(std::uint8_t* l4, const ParsedPacket& packet, const Tuple& to, bool to_v6) {
  const bool udp = packet.protocol == kUdp;
  const std::uint32_t bytes = l4_bytes(packet);
  ChecksumChange change;
  change.add_sums(
      pseudo_header_sum(packet.key.source, packet.key.destination, packet.key.is_v6 != 0, packet.protocol, bytes),
      pseudo_header_sum(to.source, to.destination, to_v6, packet.protocol, bytes));
  std::uint8_t ports[4];
  store_be16(ports, to.source_port);
  store_be16(ports + 2, to.destination_port);
  change.add(replace_bytes(l4, ports, sizeof ports));
  std::uint8_t* checksum = l4 + (udp ? kUdpChecksumAt : kTcpChecksumAt);
  if (udp && load<std::uint16_t>(checksum) == 0) {
    if (!to_v6) return;
    const std::uint64_t pseudo = pseudo_header_sum(to.source, to.destination, to_v6, packet.protocol, bytes);
    store(checksum, checksum_finish(checksum_sum(l4, bytes, pseudo)));
  } else {
    change.apply(checksum);
  }
  if (udp && load<std::uint16_t>(checksum) == 0) store(checksum, std::uint16_t{0xffff});
}

struct Told {
  std::uint8_t type = 0;
  std::uint8_t code = 0;
  std::uint32_t word = 0;  // the second 32 bits: MTU or pointer
};

// RFC 7915 §4.2. The MTU is that of the other family's packet.
std::optional<Told> told_v6(std::uint8_t type, std::uint8_t code, std::uint32_t word) {
  if (type == 11) return Told{3, code, 0};
  if (type != 3) return std::nullopt;
  switch (code) {
    case 2: return Told{4, 1, kIpv6NextHeaderAt};
    case 3: return Told{1, 4, 0};
    case 4: return Told{2, 0, std::max(kIpv6MinMtuBytes, (word & 0xffff) + kAddressesGrowth)};
    case 9:
    case 10:
    case 13:
    case 15: return Told{1, 1, 0};
    default: return code <= 12 ? std::optional(Told{1, 0, 0}) : std::nullopt;
  }
}

// RFC 7915 §5.2.
std::optional<Told> told_v4(std::uint8_t type, std::uint8_t code, std::uint32_t word) {
  switch (type) {
    case 1: return Told{3, static_cast<std::uint8_t>(code == 1 ? 10 : code == 4 ? 3 : 1), 0};
    case 2: return Told{3, 4, std::min<std::uint32_t>(word > kAddressesGrowth ? word - kAddressesGrowth : 0, 0xffff)};
    case 3: return Told{11, code, 0};
    case 4: return code == 1 ? std::optional(Told{3, 2, 0}) : std::nullopt;
    default: return std::nullopt;
  }
}

}  // namespace

std::uint32_t length_with(const ParsedPacket& packet, bool to_v6) {
  if (to_v6 == (packet.key.is_v6 != 0)) return packet.ip_length;
  return l4_bytes(packet) + (to_v6 ? kIpv6Bytes : kIpv4Bytes);
}

std::uint32_t room_for(const ParsedPacket& packet, bool to_v6) {
  const std::uint32_t length = length_with(packet, to_v6);
  return length > packet.ip_length ? length - packet.ip_length : 0;
}

IpPacket rewrite_tuple(std::uint8_t* frame, const ParsedPacket& packet, const Tuple& to, std::uint16_t id) {
  const bool to_v6 = !to.destination.is_v4();
  if (to_v6 == (packet.key.is_v6 != 0)) {
    std::uint8_t* ip = frame + packet.l2_length;
    translate(frame, packet, Side::source, to.source, to.source_port);
    translate(frame, packet, Side::destination, to.destination, to.destination_port);
    decrement_ttl(ip, to_v6);
    return {ip, packet.ip_length, to_v6};
  }
  std::uint8_t* l4 = frame + packet.l4_offset;
  rewrite_l4(l4, packet, to, to_v6);
  const IpHeader header{.protocol = packet.protocol,
                        .traffic_class = packet.traffic_class,
                        .ttl = static_cast<std::uint8_t>(packet.ttl - 1),
                        .id = id,
                        .payload_bytes = l4_bytes(packet)};
  std::uint8_t* ip = l4 - (to_v6 ? kIpv6Bytes : kIpv4Bytes);
  to_v6 ? write_v6(ip, header, to.source, to.destination) : write_v4(ip, header, to.source, to.destination);
  return {ip, length_with(packet, to_v6), to_v6};
}

IpPacket relay_error(const std::uint8_t* frame, const ParsedPacket& packet, const RelayedError& error, std::uint8_t* out) {
  const bool from_v6 = packet.key.is_v6 != 0;
  const bool to_v6 = !error.destination.is_v4();
  const std::uint8_t* icmp = frame + packet.l4_offset;
  const std::uint8_t* quoted = icmp + kIcmpBytes;
  const std::uint32_t end = packet.l2_length + std::uint32_t{packet.ip_length};
  const std::uint32_t header_bytes = from_v6 ? kIpv6Bytes : (quoted[0] & 0x0fU) * 4;
  const std::uint8_t* l4 = quoted + header_bytes;
  const auto available = static_cast<std::uint32_t>(frame + end - l4);
  Told told{icmp[0], icmp[1], load_be32(icmp + 4)};
  if (from_v6 != to_v6) {
    const auto other = to_v6 ? told_v6(told.type, told.code, told.word) : told_v4(told.type, told.code, told.word);
    if (!other) return {};
    told = *other;
  }
  const std::uint8_t protocol = quoted[from_v6 ? kIpv6NextHeaderAt : kIpv4ProtocolAt];
  const std::uint32_t quoted_payload =
      from_v6 ? load_be16(quoted + kIpv6PayloadLengthAt) : load_be16(quoted + kIpv4TotalLengthAt) - header_bytes;
  const std::uint32_t quote_bytes = std::min(available, kMaxQuotedL4Bytes);
  const std::uint32_t ip_bytes = to_v6 ? kIpv6Bytes : kIpv4Bytes;

  std::uint8_t* told_icmp = out + ip_bytes;
  std::uint8_t* told_ip = told_icmp + kIcmpBytes;
  std::uint8_t* told_l4 = told_ip + ip_bytes;
  const IpHeader header{.protocol = protocol,
                        .traffic_class = 0,
                        .ttl = quoted[from_v6 ? kIpv6HopLimitAt : kIpv4TtlAt],
                        .id = from_v6 ? std::uint16_t{0} : load_be16(quoted + kIpv4IdAt),
                        .payload_bytes = quoted_payload};
  to_v6 ? write_v6(told_ip, header, error.quoted.source, error.quoted.destination)
        : write_v4(told_ip, header, error.quoted.source, error.quoted.destination);
  std::memcpy(told_l4, l4, quote_bytes);
  store_be16(told_l4, error.quoted.source_port);
  store_be16(told_l4 + 2, error.quoted.destination_port);
  if (protocol == kTcp) store_be32(told_l4 + kTcpSequenceAt, load_be32(l4 + kTcpSequenceAt) + error.sequence_shift);

  const std::uint32_t icmp_bytes = kIcmpBytes + ip_bytes + quote_bytes;
  const std::uint8_t icmp_protocol = to_v6 ? kIcmpv6 : kIcmpv4;
  told_icmp[0] = told.type;
  told_icmp[1] = told.code;
  store_be16(told_icmp + 2, 0);
  store_be32(told_icmp + 4, told.word);
  write_ip(out, to_v6, error.source, error.destination, icmp_protocol, icmp_bytes);
  const std::uint64_t pseudo =
      to_v6 ? pseudo_header_sum(error.source, error.destination, true, icmp_protocol, icmp_bytes) : 0;
  store(told_icmp + 2, checksum_finish(checksum_sum(told_icmp, icmp_bytes, pseudo)));
  return {out, ip_bytes + icmp_bytes, to_v6};
}

}  // namespace lb::net
