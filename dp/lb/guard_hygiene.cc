#include "dp/lb/guard_hygiene.h"

#include "dp/lb/fragments.h"
#include "dp/lb/guard_rates.h"
#include "dp/lb/snapshot.h"
#include "dp/lb/work.h"
#include "dp/net/checksum.h"

namespace lb {
namespace {

using abi::DropReason;

constexpr std::uint8_t kTcpProtocol = static_cast<std::uint8_t>(abi::Protocol::tcp);
constexpr std::uint8_t kUdpProtocol = static_cast<std::uint8_t>(abi::Protocol::udp);

bool checks(const Snapshot& snapshot, abi::Hygiene what) {
  return (snapshot.root().hygiene & what) != 0;
}

// RFC 791: loose (131) or strict (137) source and record route. Malformed options end the search: the packet's receiver
// refuses them, and they route nothing.
bool has_source_route(const std::uint8_t* options, std::uint32_t bytes) {
  constexpr std::uint8_t kEnd = 0;
  constexpr std::uint8_t kNothing = 1;
  constexpr std::uint8_t kLoose = 131;
  constexpr std::uint8_t kStrict = 137;
  for (std::uint32_t at = 0; at < bytes && options[at] != kEnd;) {
    if (options[at] == kLoose || options[at] == kStrict) return true;
    if (options[at] == kNothing) {
      ++at;
      continue;
    }
    if (at + 1 >= bytes || options[at + 1] < 2) return false;
    at += options[at + 1];
  }
  return false;
}

// The packet's L4 bytes as their own length says: a UDP datagram may be shorter than the IP payload.
bool l4_is_intact(const net::ParsedPacket& packet, const std::uint8_t* frame) {
  const std::uint8_t* l4 = frame + packet.l4_offset;
  std::uint32_t bytes = packet.l2_length + std::uint32_t{packet.ip_length} - packet.l4_offset;
  if (packet.protocol == kUdpProtocol) {
    if (load<std::uint16_t>(l4 + net::kUdpChecksumAt) == 0) return packet.key.is_v6 == 0;  // RFC 768: none; RFC 8200 §8.1
    bytes = load_be16(l4 + net::kUdpLengthAt);
  }
  const std::uint64_t sum =
      net::pseudo_header_sum(packet.key.source, packet.key.destination, packet.key.is_v6 != 0, packet.protocol, bytes);
  return net::checksum_fold(net::checksum_sum(l4, bytes, sum)) == 0xffff;
}

bool is_tiny(const net::ParsedPacket& packet, std::uint32_t offset_units, bool more) {
  const std::uint32_t end = packet.l2_length + std::uint32_t{packet.ip_length};
  const std::uint32_t bytes = end > packet.l4_offset ? end - packet.l4_offset : 0;
  if (packet.protocol == kTcpProtocol) {
    return offset_units == 0 ? bytes < net::kTcpBytes : offset_units * 8 < net::kTcpBytes;
  }
  if (packet.protocol == kUdpProtocol && offset_units == 0) return bytes < net::kUdpBytes;
  return more && bytes == 0;
}

}  // namespace

DropReason source_fault(const Snapshot& snapshot, const net::FlowKey& key) {
  if (net::is_land(key)) return checks(snapshot, abi::kHygieneLand) ? DropReason::land : DropReason::none;
  if (checks(snapshot, abi::kHygieneMartians) && net::is_bad_source(key)) return DropReason::bad_source;
  return DropReason::none;
}

DropReason header_fault(const Snapshot& snapshot, const net::ParsedPacket& packet, const std::uint8_t* frame) {
  const DropReason fault = source_fault(snapshot, packet.key);
  if (fault != DropReason::none || packet.key.is_v6 != 0 || !checks(snapshot, abi::kHygieneSourceRoute)) return fault;
  const std::uint8_t* options = frame + packet.l2_length + net::kIpv4Bytes;
  const std::uint32_t bytes = packet.l4_offset - packet.l2_length - net::kIpv4Bytes;
  return has_source_route(options, bytes) ? DropReason::source_route : DropReason::none;
}

DropReason flags_fault(const Snapshot& snapshot, const net::ParsedPacket& packet) {
  const bool bad = packet.protocol == kTcpProtocol && is_bad_flags(packet.tcp_flags);
  return bad && checks(snapshot, abi::kHygieneTcpFlags) ? DropReason::bad_tcp_flags : DropReason::none;
}

DropReason unusual_fault(const Snapshot& snapshot, const net::ParsedPacket& packet, const std::uint8_t* frame) {
  if (packet.key.is_v6 != 0 && packet.protocol == net::kIpv6Routing) {
    return checks(snapshot, abi::kHygieneSourceRoute) ? DropReason::source_route : DropReason::none;
  }
  if (!checks(snapshot, abi::kHygieneTinyFragments)) return DropReason::none;
  const std::uint8_t* ip = frame + packet.l2_length;
  std::uint32_t offset_units = 0;
  bool more = false;
  if (packet.key.is_v6 != 0) {
    if (packet.l4_offset < packet.l2_length + net::kIpv6Bytes + 8) return DropReason::none;
    const std::uint16_t field = load_be16(frame + packet.l4_offset - 8 + 2);  // the fragment header is the last one read
    offset_units = field >> 3;
    more = (field & 1) != 0;
  } else {
    const std::uint16_t field = load_be16(ip + net::kIpv4FragmentAt);
    offset_units = field & 0x1fff;
    more = (field & 0x2000) != 0;
  }
  const bool fragment = more || offset_units != 0;
  return fragment && is_tiny(packet, offset_units, more) ? DropReason::tiny_fragment : DropReason::none;
}

namespace {

void keep_intact(Work& work) {
  for (std::uint32_t i = 0; i < work.burst->count; ++i) {
    if (work.run[i] == kNoRun || is_first_fragment(work, i) || l4_is_intact(packet_of(work, i), work.burst->data[i])) {
      continue;
    }
    work.run[i] = kNoRun;
    work.burst->group[i] = abi::kNoIndex;
    drop(work, i, DropReason::bad_l4_checksum);
  }
}

}  // namespace

void guard_every_packet(Work& work) {
  if (checks(*work.snapshot, abi::kHygieneL4Checksums)) keep_intact(work);
  if (checks(*work.snapshot, abi::kHygieneRates)) keep_rates(work);
}

}  // namespace lb
