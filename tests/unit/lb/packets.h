// Frames for tests and benchmarks of the packet path.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "dp/base/endian.h"
#include "dp/lb/pipeline.h"
#include "dp/net/checksum.h"
#include "dp/net/flow_key.h"
#include "dp/net/headers.h"
#include "dp/net/parse.h"

namespace lb::test {

inline constexpr std::uint32_t kHeadroom = 128;
inline constexpr std::uint32_t kRoom = 2048;

struct FrameOptions {
  std::uint8_t tcp_flags = net::kTcpAck;
  std::uint32_t payload_bytes = 0;
  std::uint8_t ttl = 64;
  bool dont_fragment = true;
};

// Writes the frame of `key` at `at`; returns its length.
inline std::uint32_t write_frame(std::uint8_t* at, const net::FlowKey& key, const FrameOptions& options = {}) {
  const bool tcp = key.protocol == static_cast<std::uint8_t>(abi::Protocol::tcp);
  const std::uint32_t ip_bytes = key.is_v6 != 0 ? net::kIpv6Bytes : net::kIpv4Bytes;
  const std::uint32_t l4_bytes = (tcp ? net::kTcpBytes : net::kUdpBytes) + options.payload_bytes;
  std::memset(at, 0, net::kEthernetBytes + ip_bytes + l4_bytes);
  const std::uint8_t macs[12] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9};
  std::memcpy(at, macs, sizeof macs);
  store_be16(at + net::kEtherTypeAt, key.is_v6 != 0 ? net::kEtherTypeIpv6 : net::kEtherTypeIpv4);
  std::uint8_t* ip = at + net::kEthernetBytes;
  if (key.is_v6 != 0) {
    ip[0] = 0x60;
    store_be16(ip + net::kIpv6PayloadLengthAt, static_cast<std::uint16_t>(l4_bytes));
    ip[net::kIpv6NextHeaderAt] = key.protocol;
    ip[net::kIpv6HopLimitAt] = options.ttl;
    std::memcpy(ip + net::kIpv6SourceAt, key.source.bytes.data(), 16);
    std::memcpy(ip + net::kIpv6DestinationAt, key.destination.bytes.data(), 16);
  } else {
    ip[0] = 0x45;
    store_be16(ip + net::kIpv4TotalLengthAt, static_cast<std::uint16_t>(ip_bytes + l4_bytes));
    store_be16(ip + net::kIpv4FragmentAt, options.dont_fragment ? net::kIpv4DontFragment : std::uint16_t{0});
    ip[net::kIpv4TtlAt] = options.ttl;
    ip[net::kIpv4ProtocolAt] = key.protocol;
    std::memcpy(ip + net::kIpv4SourceAt, key.source.bytes.data() + 12, 4);
    std::memcpy(ip + net::kIpv4DestinationAt, key.destination.bytes.data() + 12, 4);
    store(ip + net::kIpv4ChecksumAt, net::checksum_finish(net::ipv4_header_sum(ip)));
  }
  std::uint8_t* l4 = ip + ip_bytes;
  store_be16(l4, key.source_port);
  store_be16(l4 + 2, key.destination_port);
  if (tcp) {
    store_be32(l4 + net::kTcpSequenceAt, 0x1000);
    store_be32(l4 + net::kTcpAckAt, 0x2000);
    l4[net::kTcpDataOffsetAt] = 0x50;
    l4[net::kTcpFlagsAt] = options.tcp_flags;
  } else {
    store_be16(l4 + net::kUdpLengthAt, static_cast<std::uint16_t>(l4_bytes));
  }
  return net::kEthernetBytes + ip_bytes + l4_bytes;
}

// Buffers of a burst.
class BurstBuffers {
 public:
  BurstBuffers() : bytes_(kBurst * kRoom) {}

  void clear() { burst = {}; }

  void add(const net::FlowKey& key, const FrameOptions& options = {}) {
    std::uint8_t* frame = next();
    finish(write_frame(frame, key, options));
  }
  void add(const std::vector<std::uint8_t>& frame) {
    std::memcpy(next(), frame.data(), frame.size());
    finish(static_cast<std::uint32_t>(frame.size()));
  }
  [[nodiscard]] std::vector<std::uint8_t> frame(std::uint32_t i) const {
    return {burst.data[i], burst.data[i] + burst.length[i]};
  }

  Burst burst;

 private:
  [[nodiscard]] std::uint8_t* next() { return bytes_.data() + burst.count * kRoom + kHeadroom; }
  void finish(std::uint32_t length) {
    burst.data[burst.count] = next();
    burst.length[burst.count] = length;
    burst.headroom[burst.count] = kHeadroom;
    burst.tailroom[burst.count] = static_cast<std::uint16_t>(kRoom - kHeadroom - length);
    ++burst.count;
  }

  std::vector<std::uint8_t> bytes_;
};

}  // namespace lb::test
