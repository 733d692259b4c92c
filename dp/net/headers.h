// Where the fields of Ethernet, IP, TCP, UDP and ICMP stand: byte offsets from the start of their header, and the numbers
// of the registries. RFC 791 (IPv4), 8200 (IPv6), 9293 (TCP), 768 (UDP), 792 and 4443 (ICMP), IEEE 802.1Q (VLAN).
#pragma once

#include <cstdint>

namespace lb::net {

inline constexpr std::uint32_t kEthernetBytes = 14;
inline constexpr std::uint32_t kVlanTagBytes = 4;
inline constexpr std::uint32_t kMaxVlanTags = 2;
inline constexpr std::uint32_t kIpv4Bytes = 20;  // without options
inline constexpr std::uint32_t kIpv6Bytes = 40;
inline constexpr std::uint32_t kTcpBytes = 20;  // without options
inline constexpr std::uint32_t kUdpBytes = 8;
inline constexpr std::uint32_t kIcmpBytes = 8;
inline constexpr std::uint32_t kMaxL2Bytes = kEthernetBytes + kMaxVlanTags * kVlanTagBytes;

inline constexpr std::uint16_t kEtherTypeIpv4 = 0x0800;
inline constexpr std::uint16_t kEtherTypeIpv6 = 0x86dd;
inline constexpr std::uint16_t kEtherTypeVlan = 0x8100;
inline constexpr std::uint16_t kEtherTypeQinQ = 0x88a8;

inline constexpr std::uint32_t kEtherTypeAt = 12;

inline constexpr std::uint32_t kIpv4TosAt = 1;
inline constexpr std::uint32_t kIpv4TotalLengthAt = 2;
inline constexpr std::uint32_t kIpv4IdAt = 4;
inline constexpr std::uint32_t kIpv4FragmentAt = 6;
inline constexpr std::uint32_t kIpv4TtlAt = 8;
inline constexpr std::uint32_t kIpv4ProtocolAt = 9;
inline constexpr std::uint32_t kIpv4ChecksumAt = 10;
inline constexpr std::uint32_t kIpv4SourceAt = 12;
inline constexpr std::uint32_t kIpv4DestinationAt = 16;
inline constexpr std::uint16_t kIpv4DontFragment = 0x4000;
inline constexpr std::uint16_t kIpv4MoreOrOffset = 0x3fff;  // more-fragments flag and fragment offset

inline constexpr std::uint32_t kIpv6PayloadLengthAt = 4;
inline constexpr std::uint32_t kIpv6NextHeaderAt = 6;
inline constexpr std::uint32_t kIpv6HopLimitAt = 7;
inline constexpr std::uint32_t kIpv6SourceAt = 8;
inline constexpr std::uint32_t kIpv6DestinationAt = 24;
inline constexpr std::uint32_t kIpv6MinMtuBytes = 1280;

inline constexpr std::uint8_t kIpv6HopByHop = 0;
inline constexpr std::uint8_t kIpv6Routing = 43;
inline constexpr std::uint8_t kIpv6Fragment = 44;
inline constexpr std::uint8_t kIpv6DestinationOptions = 60;

inline constexpr std::uint32_t kTcpSequenceAt = 4;
inline constexpr std::uint32_t kTcpAckAt = 8;
inline constexpr std::uint32_t kTcpDataOffsetAt = 12;
inline constexpr std::uint32_t kTcpFlagsAt = 13;
inline constexpr std::uint32_t kTcpChecksumAt = 16;

inline constexpr std::uint32_t kUdpLengthAt = 4;
inline constexpr std::uint32_t kUdpChecksumAt = 6;

inline constexpr std::uint8_t kDefaultTtl = 64;  // RFC 1700; of every header lb makes itself

}  // namespace lb::net
