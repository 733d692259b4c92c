#include "dp/lb/plain_ops.h"

#include <gtest/gtest.h>

#include <random>

#include "dp/lb/guard_hygiene.h"
#include "tests/unit/lb/packets.h"
#include "tests/unit/lb/world.h"

namespace lb {
namespace {

net::FlowKey random_key(std::mt19937_64& random) {
  net::FlowKey key;
  const auto byte = [&] { return static_cast<std::uint8_t>(random()); };
  key.source = abi::IpAddress::v4(byte(), byte(), byte(), byte());
  key.destination = abi::IpAddress::v4(byte(), byte(), byte(), byte());
  key.source_port = static_cast<std::uint16_t>(random());
  key.destination_port = static_cast<std::uint16_t>(random());
  key.protocol = random() % 2 ? kTcp : kUdp;
  return key;
}

// A frame of 1 to 300 bytes of payload, some of its header bytes and its length changed.
std::vector<std::uint8_t> random_frame(std::mt19937_64& random) {
  std::vector<std::uint8_t> frame(512);
  const test::FrameOptions options{.tcp_flags = static_cast<std::uint8_t>(random()),
                                   .payload_bytes = static_cast<std::uint32_t>(random() % 300),
                                   .ttl = static_cast<std::uint8_t>(random()),
                                   .dont_fragment = random() % 2 == 0};
  frame.resize(test::write_frame(frame.data(), random_key(random), options));
  for (std::uint64_t n = random() % 3; n > 0; --n)
    frame[12 + random() % 36] = static_cast<std::uint8_t>(random() % 2 ? random() : random() % 8 << 4);
  if (random() % 4 == 0) frame.resize(random() % frame.size());
  if (random() % 4 == 0) frame.resize(frame.size() + random() % 10);
  return frame;
}

TEST(PlainFrame, IsWhatTheParserTakesForPlainAndMayGoOn) {
  std::mt19937_64 random(1);
  int plain = 0;
  for (int round = 0; round < 200'000; ++round) {
    const auto frame = random_frame(random);
    const auto length = static_cast<std::uint32_t>(frame.size());
    net::ParsedPacket want;
    const bool accepted = length >= net::kEthernetBytes && load_be16(frame.data() + 12) == net::kEtherTypeIpv4 &&
                          net::detail::parse_plain_v4(frame.data(), length, false, want);
    const std::uint8_t first = accepted ? want.key.source.bytes[12] : std::uint8_t{0};
    const bool in_order =
        accepted && want.ttl > 1 && first > 0 && first < 224 && first != 127 && want.key.source != want.key.destination;
    ASSERT_EQ(length >= kPlainBytes && is_servable_frame(frame.data(), length), in_order);
    if (!in_order) continue;
    ++plain;
    net::ParsedPacket have;
    parse_plain_frame(frame.data(), have);
    EXPECT_EQ(have.key, want.key);
    EXPECT_EQ(have.l2_length, want.l2_length);
    EXPECT_EQ(have.l4_offset, want.l4_offset);
    EXPECT_EQ(have.ip_length, want.ip_length);
    EXPECT_EQ(have.vlan, want.vlan);
    EXPECT_EQ(have.protocol, want.protocol);
    EXPECT_EQ(have.tcp_flags, want.tcp_flags);
    EXPECT_EQ(have.ttl, want.ttl);
    EXPECT_EQ(have.traffic_class, want.traffic_class);
    EXPECT_EQ(have.dont_fragment, want.dont_fragment);
    EXPECT_FALSE(net::is_bad_source(want.key) || net::is_land(want.key)) << "the sources that header_fault() refuses";
    EXPECT_FALSE(has_odd_header(want));
    EXPECT_EQ(plain_path_flags(frame.data()), want.protocol == kTcp ? want.tcp_flags : net::kTcpAck);
  }
  EXPECT_GT(plain, 20'000);
}

TEST(PlainFrame, IsForwardedAsAnyOtherByteForByte) {
  std::mt19937_64 random(2);
  int forwarded = 0;
  for (int round = 0; round < 20'000; ++round) {
    test::World world;
    world.add_vip(abi::IpAddress::v4(192, 0, 2, 1));
    constexpr abi::ForwardingMode kModes[] = {abi::ForwardingMode::l2dsr, abi::ForwardingMode::ipip,
                                              abi::ForwardingMode::ipip, abi::ForwardingMode::gue, abi::ForwardingMode::gre};
    const auto group = world.add_group(kModes[random() % 5], 7);
    abi::IpAddress address = abi::IpAddress::v4(10, 0, 0, static_cast<std::uint8_t>(random()));
    if (random() % 2) address = {{0xfd, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, static_cast<std::uint8_t>(random())}};
    world.add_target(group, address);
    world.targets[0].mtu_bytes = random() % 4 == 0 ? 200 : 1500;
    world.targets[0].vlan = random() % 4 == 0 ? 7 : 0;
    world.tunnel_v4.prefix_length = static_cast<std::uint8_t>(96 + random() % 33);
    world.tunnel_v6.prefix_length = static_cast<std::uint8_t>(random() % 129);
    if (random() % 10 == 0) world.tunnel_v4.present = world.tunnel_v6.present = 0;
    const auto snapshot = test::make_snapshot(world);
    std::vector<std::uint8_t> room(128 + 1024);
    const auto frame = random_frame(random);
    const auto length = static_cast<std::uint32_t>(frame.size());
    if (length < kPlainBytes || !is_servable_frame(frame.data(), length)) continue;
    std::copy(frame.begin(), frame.end(), room.begin() + 128);
    std::vector<std::uint8_t> twin = room;
    net::ParsedPacket packet;
    parse_plain_frame(frame.data(), packet);
    const Hash128 hash{random(), random()};
    const std::uint32_t headroom = random() % 8 == 0 ? 30 : 128;
    const OutFrame want = forward(*snapshot, snapshot->targets()[0], packet, hash, twin.data() + 128, length, headroom);
    std::uint8_t* data = room.data() + 128;
    std::uint32_t out_length = length;
    const PlainSources sources = plain_sources(*snapshot);
    if (!forward_plain(snapshot->targets()[0], hash, sources, headroom, data, out_length)) {
      const bool tunnel = world.targets[0].mode > abi::ForwardingMode::ipip;
      EXPECT_TRUE(want.reason != abi::DropReason::none || world.targets[0].vlan != 0 || tunnel);
      EXPECT_EQ(room, std::vector<std::uint8_t>([&] {
                  auto r = std::vector<std::uint8_t>(128 + 1024);
                  std::copy(frame.begin(), frame.end(), r.begin() + 128);
                  return r;
                }()));
      continue;
    }
    ++forwarded;
    ASSERT_EQ(want.reason, abi::DropReason::none);
    ASSERT_EQ(data - room.data(), want.data - twin.data());
    ASSERT_EQ(out_length, want.length);
    ASSERT_EQ(room, twin);
  }
  EXPECT_GT(forwarded, 3000);
}

}  // namespace
}  // namespace lb
