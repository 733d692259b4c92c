// Frames for tests, written byte by byte from a description, without any code of dp/net: the other half of every round trip.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <ostream>
#include <string_view>
#include <vector>

#include "dp/abi/types.h"
#include "dp/net/parse.h"

namespace lb::net::test {

using Bytes = std::vector<std::uint8_t>;

// A frame in a heap block of exactly its size, so that the address sanitizer sees a read or write one byte past it.
class ExactFrame {
 public:
  ExactFrame(const std::uint8_t* data, std::size_t length) : length_(length), data_(new std::uint8_t[length]) {
    if (length != 0) std::memcpy(data_.get(), data, length);
  }
  explicit ExactFrame(const Bytes& bytes) : ExactFrame(bytes.data(), bytes.size()) {}
  [[nodiscard]] std::uint8_t* data() { return data_.get(); }
  [[nodiscard]] std::uint32_t length() const { return static_cast<std::uint32_t>(length_); }

 private:
  std::size_t length_;
  std::unique_ptr<std::uint8_t[]> data_;
};

struct FrameSpec {
  Bytes tags;  // VLAN identifiers as bytes pairs (TCI), outermost first; 0x88a8 outside, 0x8100 inside
  bool is_v6 = false;
  abi::IpAddress source;
  abi::IpAddress destination;
  std::uint8_t traffic_class = 0;
  std::uint8_t ttl = 64;
  std::uint16_t id = 0x1234;
  bool dont_fragment = true;
  Bytes options;     // IPv4, a multiple of 4
  Bytes extensions;  // IPv6, whole headers; the first one's number is first_extension, the last names `protocol`
  std::uint8_t first_extension = 0;
  std::uint8_t protocol = 6;
  std::uint16_t source_port = 40000;
  std::uint16_t destination_port = 80;
  std::uint8_t tcp_flags = kTcpAck;
  std::uint32_t sequence = 1000;
  std::uint32_t acknowledgment = 2000;
  Bytes tcp_options;  // a multiple of 4
  Bytes payload;
  std::size_t padding = 0;  // bytes behind the IP packet
};

inline void put16(Bytes& to, std::uint32_t value) {
  to.push_back(static_cast<std::uint8_t>(value >> 8));
  to.push_back(static_cast<std::uint8_t>(value));
}
inline void put32(Bytes& to, std::uint32_t value) {
  put16(to, value >> 16);
  put16(to, value & 0xffff);
}
inline void put(Bytes& to, const Bytes& bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}
inline std::uint32_t get16(const std::uint8_t* at) {
  return static_cast<std::uint32_t>(at[0] << 8 | at[1]);
}

// RFC 1071 to the letter: big-endian words, the carry added at every step.
inline std::uint16_t naive_sum(const Bytes& bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    sum += static_cast<std::uint32_t>(bytes[i] << 8) + (i + 1 < bytes.size() ? bytes[i + 1] : 0U);
    if (sum > 0xffff) sum = (sum & 0xffff) + 1;
  }
  return static_cast<std::uint16_t>(sum);
}

inline void put_address(Bytes& to, const abi::IpAddress& address, bool is_v6) {
  to.insert(to.end(), address.bytes.begin() + (is_v6 ? 0 : 12), address.bytes.end());
}

inline Bytes naive_pseudo_header(const abi::IpAddress& source, const abi::IpAddress& destination, bool is_v6,
                                 std::uint8_t protocol, std::size_t l4_bytes) {
  Bytes bytes;
  put_address(bytes, source, is_v6);
  put_address(bytes, destination, is_v6);
  put32(bytes, static_cast<std::uint32_t>(l4_bytes));
  put32(bytes, protocol);
  return bytes;
}

// L4 bytes with a right checksum: of TCP and UDP; other protocols are their payload alone.
inline Bytes make_l4(const FrameSpec& spec) {
  Bytes l4;
  std::size_t checksum_at = 0;
  if (spec.protocol == 6) {
    put16(l4, spec.source_port);
    put16(l4, spec.destination_port);
    put32(l4, spec.sequence);
    put32(l4, spec.acknowledgment);
    l4.push_back(static_cast<std::uint8_t>((20 + spec.tcp_options.size()) / 4 << 4));
    l4.push_back(spec.tcp_flags);
    put16(l4, 0xfaf0);
    put32(l4, 0);
    put(l4, spec.tcp_options);
    checksum_at = 16;
  } else if (spec.protocol == 17) {
    put16(l4, spec.source_port);
    put16(l4, spec.destination_port);
    put16(l4, static_cast<std::uint32_t>(8 + spec.payload.size()));
    put16(l4, 0);
    checksum_at = 6;
  }
  put(l4, spec.payload);
  if (checksum_at != 0) {
    Bytes all = naive_pseudo_header(spec.source, spec.destination, spec.is_v6, spec.protocol, l4.size());
    put(all, l4);
    const auto checksum = static_cast<std::uint16_t>(~naive_sum(all));
    l4[checksum_at] = static_cast<std::uint8_t>(checksum >> 8);
    l4[checksum_at + 1] = static_cast<std::uint8_t>(checksum);
  }
  return l4;
}

inline Bytes make_ip(const FrameSpec& spec) {
  const Bytes l4 = make_l4(spec);
  Bytes ip;
  if (spec.is_v6) {
    put32(ip, 0x60000000U | std::uint32_t{spec.traffic_class} << 20);
    put16(ip, static_cast<std::uint32_t>(spec.extensions.size() + l4.size()));
    ip.push_back(spec.extensions.empty() ? spec.protocol : spec.first_extension);
    ip.push_back(spec.ttl);
    put_address(ip, spec.source, true);
    put_address(ip, spec.destination, true);
    put(ip, spec.extensions);
  } else {
    ip.push_back(static_cast<std::uint8_t>(0x45 + spec.options.size() / 4));
    ip.push_back(spec.traffic_class);
    put16(ip, static_cast<std::uint32_t>(20 + spec.options.size() + l4.size()));
    put16(ip, spec.id);
    put16(ip, spec.dont_fragment ? 0x4000 : 0);
    ip.push_back(spec.ttl);
    ip.push_back(spec.protocol);
    put16(ip, 0);
    put_address(ip, spec.source, false);
    put_address(ip, spec.destination, false);
    put(ip, spec.options);
    const auto checksum = static_cast<std::uint16_t>(~naive_sum(ip));
    ip[10] = static_cast<std::uint8_t>(checksum >> 8);
    ip[11] = static_cast<std::uint8_t>(checksum);
  }
  put(ip, l4);
  return ip;
}

inline const abi::MacAddress kClientMac{2, 0, 0, 0, 0, 0xc1};
inline const abi::MacAddress kLbMac{2, 0, 0, 0, 0, 0x1b};
inline const abi::MacAddress kTargetMac{2, 0, 0, 0, 0, 0x70};

inline Bytes make_frame(const FrameSpec& spec) {
  Bytes frame(kLbMac.begin(), kLbMac.end());
  frame.insert(frame.end(), kClientMac.begin(), kClientMac.end());
  for (std::size_t i = 0; i < spec.tags.size(); i += 2) {
    put16(frame, spec.tags.size() > 2 && i == 0 ? 0x88a8 : 0x8100);
    frame.push_back(spec.tags[i]);
    frame.push_back(spec.tags[i + 1]);
  }
  put16(frame, spec.is_v6 ? 0x86dd : 0x0800);
  put(frame, make_ip(spec));
  frame.insert(frame.end(), spec.padding, 0);
  return frame;
}

inline abi::IpAddress v6_address(std::uint8_t last) {
  return {{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last}};
}

// TCP from a client to a VIP.
inline FrameSpec tcp_v4() {
  FrameSpec spec;
  spec.source = abi::IpAddress::v4(198, 51, 100, 7);
  spec.destination = abi::IpAddress::v4(192, 0, 2, 10);
  return spec;
}
inline FrameSpec tcp_v6() {
  FrameSpec spec;
  spec.is_v6 = true;
  spec.source = v6_address(7);
  spec.destination = v6_address(0x10);
  return spec;
}

// "0800 4500 …" with any spaces.
inline Bytes from_hex(std::string_view text) {
  Bytes bytes;
  int high = -1;
  for (const char c : text) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) continue;
    if (high >= 0) {
      bytes.push_back(static_cast<std::uint8_t>(high << 4 | digit));
      high = -1;
    } else {
      high = digit;
    }
  }
  return bytes;
}

// Whether every checksum of the IP packet is right: IPv4 header, TCP, UDP, ICMP and ICMPv6, by the naive sum.
inline bool checksums_hold(const Bytes& ip) {
  const bool is_v6 = ip[0] >> 4 == 6;
  const std::size_t header = is_v6 ? 40 : (ip[0] & 15) * 4U;
  const std::uint8_t protocol = is_v6 ? ip[6] : ip[9];
  if (!is_v6 && naive_sum(Bytes(ip.begin(), ip.begin() + static_cast<std::ptrdiff_t>(header))) != 0xffff) return false;
  Bytes all;
  if (protocol != 1) {
    all.assign(ip.begin() + (is_v6 ? 8 : 12), ip.begin() + (is_v6 ? 40 : 20));
    put32(all, static_cast<std::uint32_t>(ip.size() - header));
    put32(all, protocol);
  }
  all.insert(all.end(), ip.begin() + static_cast<std::ptrdiff_t>(header), ip.end());
  return naive_sum(all) == 0xffff;
}

}  // namespace lb::net::test
