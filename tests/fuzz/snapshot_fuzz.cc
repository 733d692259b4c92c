// Any bytes as a snapshot: refused by name, or safe to forward by.
//
// Input: six-byte edits (part and offset in 16 bits, value in 32) of a snapshot that is in order, each part sealed again;
// what the verifier accepts then carries packets and a sweep, under the sanitizers.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "dp/lb/pipeline.h"
#include "tests/unit/lb/packets.h"
#include "tests/unit/lb/world.h"

namespace {

using namespace lb;

const abi::IpAddress kVip = abi::IpAddress::v4(192, 0, 2, 10);

test::World make_world() {
  test::World world;
  world.add_vip(kVip);
  const auto tunnels = world.add_group(abi::ForwardingMode::ipip, 31);
  const auto gue = world.add_group(abi::ForwardingMode::gue, 31);
  const auto gre = world.add_group(abi::ForwardingMode::gre, 31);
  const auto direct = world.add_group(abi::ForwardingMode::l2dsr, 31);
  for (std::uint8_t i = 0; i < 3; ++i) {
    world.add_target(tunnels, abi::IpAddress::v4(10, 0, 0, i));
    world.add_target(direct, abi::IpAddress::v4(10, 0, 1, i));
  }
  world.add_listener(0, abi::Protocol::tcp, 80, 80, {{tunnels, 1}, {direct, 1}});
  world.add_listener(0, abi::Protocol::udp, 100, 200, {{direct, 1}});
  return world;
}

void edit(const test::WorldBytes& bytes, const std::uint8_t* data) {
  const auto where = load<std::uint16_t>(data);
  const test::AlignedBytes& part = (where & 1) != 0 ? bytes.root : bytes.slots;
  const std::size_t words = part.size() / 4;
  part.at<std::uint32_t>((where >> 1) % words * 4) = load<std::uint32_t>(data + 2);
}

void forward_some(const Snapshot& snapshot) {
  for (const abi::Listener& listener : snapshot.listeners()) {
    if (listener.counter_index >= 64) return;  // lb-dp refuses it: capacity
  }
  std::vector<abi::FlowLine> lines(4);
  std::vector<std::uint32_t> target_flows(16);
  std::vector<abi::ListenerStats> listener_stats(64);
  abi::WorkerStats stats;
  FlowTable flows(lines, target_flows, NodeSecret{});
  Pipeline pipeline({.flows = &flows, .stats = &stats, .listener_stats = listener_stats.data()});
  test::BurstBuffers packets;
  for (std::uint64_t round = 0; round < 3; ++round) {
    packets.clear();
    for (std::uint16_t i = 0; i < 24; ++i) {
      net::FlowKey key;
      key.source = abi::IpAddress::v4(198, 51, 100, static_cast<std::uint8_t>(i));
      key.destination = kVip;
      key.source_port = i;
      key.destination_port = i % 3 == 0 ? 150 : 80;
      key.protocol = i % 3 == 0 ? 17 : 6;
      packets.add(key, {.tcp_flags = round == 0 ? net::kTcpSyn : net::kTcpAck});
    }
    pipeline.process(snapshot, packets.burst, round * 100'000'000'000);
    pipeline.age(snapshot, 4, round * 100'000'000'000);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kEditBytes = 6;
  const test::WorldBytes bytes = test::make_bytes(make_world());
  for (std::size_t at = 0; at + kEditBytes <= size && at < 16 * kEditBytes; at += kEditBytes) edit(bytes, data + at);
  bytes.slots.at<abi::SegmentHeader>(0).checksum = segment_checksum(bytes.slots.bytes());
  const abi::Table& segments = bytes.root.at<abi::Root>(0).segments;
  if (segments.offset <= bytes.root.size() - sizeof(abi::SegmentEntry)) {
    bytes.root.at<abi::SegmentEntry>(segments.offset / 8 * 8).checksum = bytes.slots.at<abi::SegmentHeader>(0).checksum;
  }
  bytes.root.at<abi::SegmentHeader>(0).checksum = segment_checksum(bytes.root.bytes());
  const auto snapshot = bytes.open();
  if (snapshot) {
    forward_some(**snapshot);
  } else if (snapshot.error().text.empty() || snapshot.error().refusal == abi::Refusal::none) {
    std::abort();
  }
  return 0;
}
