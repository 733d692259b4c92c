// One worker and its world, for the tests of the pipeline.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <vector>

#include "dp/lb/dispatch.h"
#include "dp/lb/pipeline.h"
#include "tests/unit/lb/packets.h"
#include "tests/unit/lb/world.h"

namespace lb::test {

using abi::Counter;
using abi::DropReason;

inline constexpr NodeSecret kSecret{9};
inline constexpr std::uint64_t kSecond = 1'000'000'000;

inline const abi::IpAddress kVip4 = abi::IpAddress::v4(192, 0, 2, 10);
inline const abi::IpAddress kVip6{{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10}};

struct ExtraRecorder : ExtraPackets {
  bool send(std::uint8_t out_port, const std::uint8_t* frame, std::uint32_t length) override {
    frames.emplace_back(frame, frame + length);
    ports.push_back(out_port);
    return true;
  }
  std::vector<std::vector<std::uint8_t>> frames;
  std::vector<std::uint8_t> ports;
};

// One worker on one snapshot. By default: VIP4:80 TCP → blue (ipip, 4 targets), VIP4:53 UDP → blue, VIP4:90 → green (l2dsr),
// VIP6:80 TCP → blue, VIP4 TCP 1000-2000 → violet (ipip to IPv6 targets).
struct Lab {
  explicit Lab(std::uint64_t lines = 1024, const Kernel& kernel = **choose_kernel(""))
      : memory(lines), target_flows(64), table(memory, target_flows, kSecret), listener_stats(64) {
    world.add_vip(kVip4);
    world.add_vip(kVip6);
    blue = world.add_group(abi::ForwardingMode::ipip);
    green = world.add_group(abi::ForwardingMode::l2dsr);
    violet = world.add_group(abi::ForwardingMode::ipip);
    for (std::uint8_t i = 0; i < 4; ++i) world.add_target(blue, abi::IpAddress::v4(10, 0, 0, i));
    for (std::uint8_t i = 0; i < 2; ++i) world.add_target(green, abi::IpAddress::v4(10, 0, 1, i));
    for (std::uint8_t i = 0; i < 2; ++i) {
      world.add_target(violet, {{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, i}});
    }
    tcp80 = world.add_listener(0, abi::Protocol::tcp, 80, 80, {{blue, 1}});
    udp53 = world.add_listener(0, abi::Protocol::udp, 53, 53, {{blue, 1}});
    tcp90 = world.add_listener(0, abi::Protocol::tcp, 90, 90, {{green, 1}});
    six80 = world.add_listener(1, abi::Protocol::tcp, 80, 80, {{blue, 1}});
    range = world.add_listener(0, abi::Protocol::tcp, 1000, 2000, {{violet, 1}});
    apply();
    pipeline = std::make_unique<Pipeline>(PipelineOptions{.flows = &table,
                                                          .stats = &stats,
                                                          .listener_stats = listener_stats.data(),
                                                          .extra = &extra,
                                                          .resets_per_second = 1'000'000},
                                          kernel);
  }

  void apply() { snapshot = make_snapshot(world); }
  void run() { pipeline->process(*snapshot, packets.burst, now_ns); }
  // One packet, alone in its burst.
  Burst& send(const net::FlowKey& key, const FrameOptions& options = {}) {
    packets.clear();
    packets.add(key, options);
    run();
    return packets.burst;
  }
  Burst& send(const net::FlowKey& key, std::uint8_t tcp_flags) { return send(key, FrameOptions{.tcp_flags = tcp_flags}); }
  void sweep() { pipeline->age(*snapshot, static_cast<std::uint32_t>(memory.size()), now_ns); }
  std::uint64_t counter(Counter c) const { return stats.counters[static_cast<std::size_t>(c)]; }
  std::uint64_t dropped(DropReason reason) const { return counter(abi::drop_counter(reason)); }
  abi::Target& target(std::uint32_t id) { return world.targets[id]; }
  std::optional<FlowView> entry(const net::FlowKey& key) { return FlowTable::peek(memory, kSecret, key, now_ns); }

  // Every packet ended once, and the gauge is the table's.
  void check_accounting() const {
    std::uint64_t ends = counter(Counter::forwarded_packets) + counter(Counter::punted_packets);
    for (std::size_t c = abi::kFirstDropCounter; c < abi::kCounterCount; ++c) ends += stats.counters[c];
    EXPECT_EQ(counter(Counter::rx_packets), ends);
    EXPECT_EQ(stats.flows, table.flows());
    std::uint64_t by_target = 0;
    for (const std::uint32_t flows : target_flows) by_target += flows;
    EXPECT_EQ(by_target, table.flows());
  }

  World world;
  std::uint32_t blue = 0, green = 0, violet = 0;
  std::uint32_t tcp80 = 0, udp53 = 0, tcp90 = 0, six80 = 0, range = 0;
  std::shared_ptr<const Snapshot> snapshot;
  std::vector<abi::FlowLine> memory;
  std::vector<std::uint32_t> target_flows;
  FlowTable table;
  abi::WorkerStats stats;
  std::vector<abi::ListenerStats> listener_stats;
  ExtraRecorder extra;
  std::unique_ptr<Pipeline> pipeline;
  BurstBuffers packets;
  std::uint64_t now_ns = 1000 * kSecond;
};

inline net::FlowKey client(std::uint16_t port, std::uint16_t to_port = 80, abi::Protocol protocol = abi::Protocol::tcp) {
  net::FlowKey key;
  key.source = abi::IpAddress::v4(198, 51, 100, 7);
  key.destination = kVip4;
  key.source_port = port;
  key.destination_port = to_port;
  key.protocol = static_cast<std::uint8_t>(protocol);
  return key;
}

inline net::FlowKey client6(std::uint16_t port) {
  net::FlowKey key = client(port);
  key.is_v6 = 1;
  key.source = {{0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}};
  key.destination = kVip6;
  return key;
}

inline net::ParsedPacket parsed(const std::vector<std::uint8_t>& frame) {
  net::ParsedPacket packet;
  EXPECT_NE(net::parse(frame.data(), static_cast<std::uint32_t>(frame.size()), true, packet).result, net::ParseResult::drop);
  return packet;
}

}  // namespace lb::test
