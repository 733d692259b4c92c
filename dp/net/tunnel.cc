#include "dp/net/tunnel.h"

#include "dp/base/endian.h"
#include "dp/net/checksum.h"

namespace lb::net {
namespace {

// Whether a TCP or UDP checksum covers everything behind the IP header: no fragment, no checksum left out, no bytes behind
// the UDP datagram. `packet` may be one that parse() took for another reason than its ports.
bool is_covered(const std::uint8_t* inner, const ParsedPacket& packet, std::uint32_t l4_bytes) {
  const bool fragmented = packet.key.is_v6 != 0 ? packet.l4_offset - packet.l2_length != kIpv6Bytes
                                                : (load_be16(inner + kIpv4FragmentAt) & kIpv4MoreOrOffset) != 0;
  if (fragmented || packet.key.destination_port == 0) return false;
  if (packet.protocol == static_cast<std::uint8_t>(abi::Protocol::tcp)) return l4_bytes >= kTcpBytes;
  const std::uint8_t* udp = inner + (packet.l4_offset - packet.l2_length);
  return packet.protocol == static_cast<std::uint8_t>(abi::Protocol::udp) && l4_bytes >= kUdpBytes &&
         load_be16(udp + kUdpLengthAt) == l4_bytes && load<std::uint16_t>(udp + kUdpChecksumAt) != 0;
}

// Sum of the inner packet as it stands there, TTL already lowered.
std::uint64_t inner_sum(const std::uint8_t* inner, const ParsedPacket& packet) {
  const std::uint32_t header_bytes = packet.l4_offset - packet.l2_length;
  const std::uint32_t l4_bytes = packet.ip_length - header_bytes;
  if (!is_covered(inner, packet, l4_bytes)) return checksum_sum(inner, packet.ip_length);
  const std::uint64_t pseudo =
      pseudo_header_sum(packet.key.source, packet.key.destination, packet.key.is_v6 != 0, packet.protocol, l4_bytes);
  return checksum_sum(inner, header_bytes) + checksum_finish(pseudo);
}

// In front of `header_bytes` of a tunnel header, written already, and the packet.
void write_udp(std::uint8_t* udp, std::uint32_t header_bytes, std::uint16_t port, const ParsedPacket& packet,
               const TunnelEnds& ends, bool checksummed) {
  const std::uint32_t udp_bytes = kUdpBytes + header_bytes + packet.ip_length;
  store_be16(udp, tunnel_source_port(ends.flow_hash));
  store_be16(udp + 2, port);
  store_be16(udp + kUdpLengthAt, static_cast<std::uint16_t>(udp_bytes));
  store_be16(udp + kUdpChecksumAt, 0);
  if (!checksummed) return;
  std::uint64_t sum =
      pseudo_header_sum(ends.source, ends.destination, true, static_cast<std::uint8_t>(abi::Protocol::udp), udp_bytes);
  sum = checksum_sum(udp, kUdpBytes + header_bytes, sum) + inner_sum(udp + kUdpBytes + header_bytes, packet);
  const std::uint16_t checksum = checksum_finish(sum);
  store(udp + kUdpChecksumAt, checksum == 0 ? std::uint16_t{0xffff} : checksum);  // RFC 768: 0 would say "none"
}

void write_gre(std::uint8_t* gre, const abi::Target& target, bool inner_is_v6) {
  const bool keyed = (target.tunnel_flags & abi::kTunnelKeyed) != 0;
  store_be16(gre, keyed ? kGreKeyPresent : std::uint16_t{0});
  store_be16(gre + 2, inner_is_v6 ? kEtherTypeIpv6 : kEtherTypeIpv4);
  if (keyed) store_be32(gre + kGreBytes, target.tunnel_word);
}

}  // namespace

std::uint8_t* encapsulate_for(const abi::Target& target, std::uint8_t* frame, const ParsedPacket& packet,
                              const TunnelEnds& ends, std::uint32_t& length, const GeneveOptions& options,
                              std::uint16_t option_class) {
  const bool outer_is_v6 = !target.address.is_v4();
  const bool inner_is_v6 = packet.key.is_v6 != 0;
  const bool gre = target.mode == abi::ForwardingMode::gre;
  const auto inner_protocol = static_cast<std::uint8_t>(inner_is_v6 ? abi::Protocol::ipv6_in : abi::Protocol::ipip);
  const std::uint32_t header_bytes = tunnel_header_bytes(target);
  std::uint8_t* inner = frame + packet.l2_length;
  std::uint8_t* header = inner - header_bytes;
  std::uint8_t* outer = header - encap_bytes(outer_is_v6);
  const OuterPayload payload{gre ? abi::Protocol::gre : abi::Protocol::udp, header_bytes + packet.ip_length};
  decrement_ttl(inner, inner_is_v6);
  if (outer_is_v6) {
    detail::write_outer_v6(outer, packet, ends, payload);
  } else {
    detail::write_outer_v4(outer, inner, packet, ends, payload, packet.dont_fragment != 0);
  }
  if (gre) {
    write_gre(header, target, inner_is_v6);
  } else if (target.mode == abi::ForwardingMode::geneve) {
    write_geneve(header + kUdpBytes, option_class, options, inner_is_v6);
    write_udp(header, kGeneveBytes + kGeneveOptionsBytes, abi::kGenevePort, packet, ends, outer_is_v6);
  } else {
    store_be32(header + kUdpBytes, std::uint32_t{inner_protocol} << 16);  // version 0, no control message, no options
    write_udp(header, kGueBytes, static_cast<std::uint16_t>(target.tunnel_word), packet, ends,
              outer_is_v6 && (target.tunnel_flags & abi::kTunnelZeroChecksum) == 0);
  }
  const LinkAddress link{target.next_hop_mac, target.source_mac, target.vlan};
  length = l2_bytes(link.vlan) + encap_bytes(outer_is_v6) + payload.bytes;
  return write_l2(outer, outer_is_v6 ? kEtherTypeIpv6 : kEtherTypeIpv4, link);
}

}  // namespace lb::net
