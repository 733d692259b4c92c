// Packet hygiene: packets for a VIP that no honest client sends, each with a drop reason and a switch of its own
// (Root::hygiene, docs/guard.md).
//
//   not plain      source or IPv4 options look odd ──▶ header_fault()    bad_source, land, source_route
//   cold flow path TCP flags cannot be             ──▶ flags_fault()     bad_tcp_flags
//   not TCP/UDP    fragment, routing header        ──▶ unusual_fault()   tiny_fragment, source_route
//   whole burst, if switched on                    ──▶ guard_every_packet() bad_l4_checksum
//
// What is inlined here is one test that an ordinary packet passes; everything else is out of line. A live flow's packet with
// ACK and without SYN, FIN or RST cannot have bad flags, so that the common hit asks nothing.
#pragma once

#include <array>
#include <cstdint>

#include "dp/abi/counters.h"
#include "dp/abi/snapshot.h"
#include "dp/base/compiler.h"
#include "dp/base/endian.h"
#include "dp/net/parse.h"

namespace lb {

class Snapshot;
struct Work;

// SYN with FIN or RST; none of the six of RFC 793 (null); FIN with PSH and URG, without ACK (Xmas).
constexpr bool is_bad_flags(std::uint8_t flags) {
  const bool syn = (flags & net::kTcpSyn) != 0;
  const bool fin = (flags & net::kTcpFin) != 0;
  const bool rst = (flags & net::kTcpRst) != 0;
  const bool ack = (flags & net::kTcpAck) != 0;
  const bool xmas = fin && (flags & (net::kTcpPsh | net::kTcpUrg)) == (net::kTcpPsh | net::kTcpUrg) && !ack;
  const bool null = (flags & (net::kTcpFin | net::kTcpSyn | net::kTcpRst | net::kTcpPsh | net::kTcpAck | net::kTcpUrg)) == 0;
  return (syn && (fin || rst)) || null || xmas;
}

namespace detail {
constexpr std::array<std::uint64_t, 4> bad_flags() {
  std::array<std::uint64_t, 4> words{};
  for (std::uint32_t flags = 0; flags < 256; ++flags) {
    if (is_bad_flags(static_cast<std::uint8_t>(flags))) words[flags >> 6] |= std::uint64_t{1} << (flags & 63);
  }
  return words;
}
}  // namespace detail

inline constexpr std::array<std::uint64_t, 4> kBadFlags = detail::bad_flags();

// Whether flags_fault() is to be asked. `tcp_flags` of UDP may be anything: it knows the protocol.
LB_INLINE bool has_odd_flags(std::uint8_t tcp_flags) {
  return (kBadFlags[tcp_flags >> 6] >> (tcp_flags & 63) & 1) != 0;
}

// Whether header_fault() is to be asked of a packet that is not a plain frame (plain_ops.h): by the first byte of its
// source, land, or IPv4 options.
LB_INLINE bool has_odd_header(const net::ParsedPacket& packet) {
  if (net::is_land(packet.key)) return true;
  const std::uint8_t* source = packet.key.source.bytes.data();
  if (packet.key.is_v6 != 0) return source[0] == 0 || source[0] >= 0xfe;
  return packet.l4_offset - packet.l2_length != net::kIpv4Bytes || net::is_bad_source(packet.key);
}

// Reason to drop a TCP or UDP packet for a VIP, or none. `frame` is as it came.
abi::DropReason header_fault(const Snapshot& snapshot, const net::ParsedPacket& packet, const std::uint8_t* frame);

// What header_fault() says of the addresses alone: for questions about a flow, of which there is no packet.
abi::DropReason source_fault(const Snapshot& snapshot, const net::FlowKey& key);

// bad_tcp_flags or none.
abi::DropReason flags_fault(const Snapshot& snapshot, const net::ParsedPacket& packet);

// Of a packet for a VIP that parse() called other_ip: tiny_fragment (RFC 1858, RFC 3128: a fragment that hides its ports or
// flags from whoever reads the first fragment alone), source_route (an IPv6 routing header with segments left), or none.
abi::DropReason unusual_fault(const Snapshot& snapshot, const net::ParsedPacket& packet, const std::uint8_t* frame);

// After stage vip, where every packet has to be asked: drops those whose TCP or UDP checksum is wrong, which reads every
// byte of every packet, then those over a limit of packets or bytes (guard_rates.h).
void guard_every_packet(Work& work);

}  // namespace lb
