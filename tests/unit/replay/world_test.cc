#include "replay/world.h"

#include <gtest/gtest.h>

namespace lb::replay {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr abi::IpAddress kBlue = abi::IpAddress::v4(10, 0, 0, 1);
constexpr abi::IpAddress kGreen = abi::IpAddress::v4(10, 0, 0, 2);

cp::Config config() {
  cp::Config config;
  config.seed = 1;
  config.vips = {{"web", abi::IpAddress::v4(192, 0, 2, 10)}};
  config.listeners = {{"web-80", "web", cp::ListenerProtocol::tcp, 80, 80, {{"blue", 1}}}};
  cp::TargetGroup group{.name = "blue", .table_size = 251};
  group.deregistration_delay = std::chrono::seconds(60);
  group.after_deregistration = abi::TrackedFlows::reset;
  group.health_check.interval = std::chrono::seconds(10);
  group.targets = {{kBlue, 80, 1}, {kGreen, 80, 1}};
  config.groups = {group};
  return config;
}

class WorldTest : public testing::Test {
 protected:
  void start(World& world) {
    ASSERT_TRUE(world.apply(config(), 0).has_value());
    ASSERT_TRUE(world.settle(0).has_value());
    ASSERT_NE(world.snapshot(), nullptr);
  }
  static const abi::Target& target(const World& world, const abi::IpAddress& address) {
    for (const abi::Target& each : world.snapshot()->targets()) {
      if (each.address == address) return each;
    }
    ADD_FAILURE() << "no such target";
    return world.snapshot()->targets()[0];
  }
  static World make(std::set<TargetAddress> unhealthy = {}) {
    return {1500, std::move(unhealthy), [](std::uint32_t) { return std::optional<std::uint64_t>(1); }};
  }
};

TEST_F(WorldTest, EveryTargetIsHealthyResolvedAndOnTheLinkOfTheReplay) {
  World world = make();
  start(world);
  EXPECT_EQ(target(world, kBlue).state, abi::TargetState::healthy);
  EXPECT_TRUE((target(world, kBlue).flags & abi::kTargetResolved) != 0);
  EXPECT_EQ(target(world, kBlue).next_hop_mac, (abi::MacAddress{0x02, 0x04, 10, 0, 0, 1}));
  EXPECT_EQ(target(world, kBlue).source_mac, kOwnMac);
  EXPECT_EQ(target(world, kBlue).mtu_bytes, 1500);
  EXPECT_EQ(world.snapshot()->root().tunnel_source_v4.prefix, kTunnelSourceV4);
  EXPECT_EQ(world.deadline_ns(), std::nullopt);
}

TEST_F(WorldTest, TargetsThatAreToFailAreUnhealthyFromTheStart) {
  World world = make({{kBlue, 80}});
  start(world);
  EXPECT_EQ(target(world, kBlue).state, abi::TargetState::unhealthy);
  EXPECT_EQ(target(world, kGreen).state, abi::TargetState::healthy);
}

TEST_F(WorldTest, ADrainEndsAtItsDeadlineAndNotBefore) {
  World world = make();
  start(world);
  ASSERT_TRUE(world.drain({kBlue, 80}, true, 5 * kSecond).has_value());
  ASSERT_TRUE(world.settle(5 * kSecond).has_value());
  EXPECT_EQ(target(world, kBlue).state, abi::TargetState::draining);
  EXPECT_EQ(world.deadline_ns(), 65 * kSecond);
  const auto draining = world.snapshot();
  ASSERT_TRUE(world.settle(65 * kSecond - 1).has_value());
  EXPECT_EQ(world.snapshot(), draining);
  ASSERT_TRUE(world.settle(65 * kSecond).has_value());
  EXPECT_EQ(target(world, kBlue).tracked, abi::TrackedFlows::reset);
  EXPECT_GT(world.snapshot()->generation(), draining->generation());
}

TEST_F(WorldTest, ResetsOfAnUnhealthyTargetFallDueOneIntervalLater) {
  World world = make();
  start(world);
  world.set_healthy({kBlue, 80}, false, kSecond);
  ASSERT_TRUE(world.settle(kSecond).has_value());
  EXPECT_EQ(target(world, kBlue).tracked, abi::TrackedFlows::keep);
  EXPECT_EQ(world.deadline_ns(), 11 * kSecond);
  ASSERT_TRUE(world.settle(11 * kSecond).has_value());
  EXPECT_EQ(target(world, kBlue).tracked, abi::TrackedFlows::reset);
}

TEST_F(WorldTest, ATargetThatIsToFailFailsWhenItIsConfiguredLater) {
  World world = make({{abi::IpAddress::v4(10, 0, 0, 3), 80}});
  start(world);
  cp::Config more = config();
  more.groups[0].targets.push_back({abi::IpAddress::v4(10, 0, 0, 3), 80, 1});
  ASSERT_TRUE(world.apply(more, kSecond).has_value());
  ASSERT_TRUE(world.settle(kSecond).has_value());
  EXPECT_EQ(target(world, abi::IpAddress::v4(10, 0, 0, 3)).state, abi::TargetState::unhealthy);
}

TEST_F(WorldTest, TheSameConfigurationAgainKeepsTheTable) {
  World world = make();
  start(world);
  const auto before = world.snapshot();
  ASSERT_TRUE(world.apply(config(), kSecond).has_value());
  ASSERT_TRUE(world.settle(2 * kSecond).has_value());
  EXPECT_EQ(target(world, kBlue).state, abi::TargetState::healthy);
  EXPECT_EQ(world.snapshot()->groups()[0].table_hash, before->groups()[0].table_hash);
}

TEST(NextHopMac, ComesFromTheAddress) {
  EXPECT_EQ(next_hop_mac(abi::IpAddress::v4(10, 77, 2, 2)), (abi::MacAddress{0x02, 0x04, 10, 77, 2, 2}));
  EXPECT_EQ(next_hop_mac(*cp::parse_address("2001:db8::1:2")), (abi::MacAddress{0x02, 0x06, 0, 1, 0, 2}));
}

}  // namespace
}  // namespace lb::replay
