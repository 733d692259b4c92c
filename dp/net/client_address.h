// What tells a target behind a SNAT address who its client is, written into the client's own TCP packets.
//
//   PROXY protocol, version 2 (28 bytes for IPv4, 52 for IPv6): the first bytes of the stream. The client has not sent them,
//   so towards the target its sequence numbers are larger by as much, and the target's acknowledgments smaller towards it.
//
//     client: SYN n │ ACK n+1          │ data n+1 …        target's view: SYN n │ header n+1 (on the ACK) │ data n+1+28 …
//
//   TCP option 254 (RFC 4727's second experiment): kind, length 8 or 20, port, address; no sequence number changes.
//
// All work in place on a parsed TCP packet, checksums updated. What goes in front of payload or options moves all headers
// towards the start of the buffer; the Ethernet header is not moved: it is written anew.
#pragma once

#include <cstdint>

#include "dp/abi/types.h"
#include "dp/net/parse.h"

namespace lb::net {

// The addresses as the client used them: all of one family.
struct ClientAddresses {
  abi::IpAddress client;
  abi::IpAddress vip;
  std::uint16_t client_port = 0;
  std::uint16_t vip_port = 0;
};

inline constexpr std::uint32_t kMaxProxyHeaderBytes = 52;
[[nodiscard]] constexpr std::uint32_t proxy_header_bytes(bool is_v6) {
  return is_v6 ? kMaxProxyHeaderBytes : 28;
}
[[nodiscard]] constexpr std::uint32_t address_option_bytes(bool is_v6) {
  return is_v6 ? 20 : 8;
}

// Bytes of TCP payload; sequence and acknowledgment number.
std::uint32_t payload_bytes(const std::uint8_t* frame, const ParsedPacket& packet);
std::uint32_t sequence_of(const std::uint8_t* frame, const ParsedPacket& packet);
std::uint32_t acknowledgment_of(const std::uint8_t* frame, const ParsedPacket& packet);

// Puts the PROXY header in front of the payload, and sets PSH. Returns the new start of the frame, proxy_header_bytes()
// before the old one; `packet` then describes it.
std::uint8_t* insert_proxy_header(std::uint8_t* frame, ParsedPacket& packet, const ClientAddresses& addresses);

// Puts the option in front of the others. Returns as insert_proxy_header(); nullptr, and nothing is changed, if 40 bytes of
// options do not hold it.
std::uint8_t* insert_address_option(std::uint8_t* frame, ParsedPacket& packet, const ClientAddresses& addresses);

// Leaves the first `keep` bytes of the payload, and the FIN to the retransmission of the rest; with as much or less nothing.
void trim_payload(std::uint8_t* frame, ParsedPacket& packet, std::uint32_t keep);

// Sequence number of the client's packet: + bytes.
void add_to_sequence(std::uint8_t* frame, const ParsedPacket& packet, std::uint32_t bytes);

// Acknowledgment number and SACK blocks of the target's packet: - bytes. Before the whole header is acknowledged (`first`:
// the sequence number of its first byte) the client is told `first`, and a block that would begin there is left out.
void take_from_acknowledgment(std::uint8_t* frame, const ParsedPacket& packet, std::uint32_t bytes, std::uint32_t first,
                              bool arrived);

}  // namespace lb::net
