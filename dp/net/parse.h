// Bytes in: reads Ethernet, VLAN tags, IPv4 with options or IPv6 with extension headers, and the ports of TCP or UDP.
// Every length is checked against the frame and against each other before it is used; nothing past `length` is read.
#pragma once

#include <cstdint>

#include "dp/abi/counters.h"
#include "dp/net/flow_key.h"

namespace lb::net {

struct ParsedPacket {
  FlowKey key;                        // ports 0 where the protocol has none
  std::uint16_t l2_length = 0;        // bytes of Ethernet and VLAN headers
  std::uint16_t l4_offset = 0;        // bytes from the start of the frame; after options and extension headers
  std::uint16_t ip_length = 0;        // bytes of the IP packet: trailing Ethernet padding is not part of it
  std::uint16_t vlan = 0;             // VID of the outermost tag, 0 if untagged
  std::uint8_t protocol = 0;          // the IP protocol at l4_offset
  std::uint8_t tcp_flags = 0;         // 0 for other protocols
  std::uint8_t ttl = 0;               // or hop limit
  std::uint8_t traffic_class = 0;     // TOS byte or traffic class
  std::uint8_t dont_fragment = 0;     // IPv4 DF; 1 for IPv6
};

enum class ParseResult : std::uint8_t {
  ok,        // a whole TCP or UDP header: key is complete
  other_ip,  // well-formed IP, but not TCP or UDP (ICMP, …), or a fragment: addresses and protocol are set, ports are 0
  not_ip,    // ARP, LLDP, …: for the kernel
  drop,      // malformed; `reason` says how
};

struct ParseStatus {
  ParseResult result = ParseResult::drop;
  abi::DropReason reason = abi::DropReason::none;  // set when result is drop; `fragment` when other_ip is a fragment
};

inline constexpr std::uint8_t kTcpFin = 0x01;
inline constexpr std::uint8_t kTcpSyn = 0x02;
inline constexpr std::uint8_t kTcpRst = 0x04;
inline constexpr std::uint8_t kTcpAck = 0x10;

// Reads the frame of `length` bytes at `frame`. `check_ip_checksum` is false where the NIC has done it.
ParseStatus parse(const std::uint8_t* frame, std::uint32_t length, bool check_ip_checksum, ParsedPacket& out);

}  // namespace lb::net
