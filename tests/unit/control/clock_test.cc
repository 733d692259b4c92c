#include "cp/control/clock.h"

#include <gtest/gtest.h>

#include "cp/snapshot/roster.h"

namespace lb::cp {
namespace {

constexpr std::int64_t kHourMs = 3'600'000;
constexpr std::int64_t kStart = 1'800'000'000'000;

struct Machine {
  std::int64_t wall = kStart;
  std::int64_t steady = 77'000;
  Clock clock{[this] { return wall; }, [this] { return steady; }};

  void pass(std::int64_t ms) {
    wall += ms;
    steady += ms;
  }
};

TEST(Clock, JumpOfAnHourEitherWayChangesNoTimeThatPassesAndIsTold) {
  for (const std::int64_t jump : {kHourMs, -kHourMs}) {
    Machine machine;
    machine.pass(5000);
    EXPECT_EQ(machine.clock.now_unix_ms(), kStart + 5000);
    machine.wall += jump;
    machine.pass(100);
    EXPECT_EQ(machine.clock.now_unix_ms(), kStart + 5100) << "until it is told";
    EXPECT_EQ(machine.clock.take_jump(), jump);
    EXPECT_EQ(machine.clock.now_unix_ms(), kStart + 5100 + jump);
    EXPECT_EQ(machine.clock.take_jump(), 0) << "told once";
  }
}

TEST(Clock, SlewedClockIsFollowedWithoutAWord) {
  Machine machine;
  for (int second = 0; second < 100; ++second) {
    machine.pass(1000);
    machine.wall += 1;
    EXPECT_EQ(machine.clock.take_jump(), 0);
  }
  EXPECT_EQ(machine.clock.now_unix_ms(), kStart + 100'100);
}

// A drain of ten minutes takes ten minutes, whatever the wall clock does meanwhile.
TEST(Clock, DrainTakesAsLongAsItWasToTake) {
  for (const std::int64_t jump : {kHourMs, -kHourMs}) {
    Machine machine;
    Roster roster;
    Config config;
    config.vips = {{"web", abi::IpAddress::v4(192, 0, 2, 10)}};
    config.listeners = {{"web-80", "web", ListenerProtocol::tcp, 80, 80, {{"blue", 1}}}};
    TargetGroup group{.name = "blue"};
    group.health_check.protocol = ProbeProtocol::none;
    group.targets = {{abi::IpAddress::v4(10, 0, 0, 1), 80, 1}, {abi::IpAddress::v4(10, 0, 0, 2), 80, 1}};
    config.groups = {group};
    const auto settle = [&] { roster.settle(machine.clock.now_unix_ms(), [](std::uint32_t) { return 1; }); };
    const auto state = [&] { return roster.find({"blue", abi::IpAddress::v4(10, 0, 0, 1), 80})->status.state; };
    ASSERT_TRUE(roster.apply(config, machine.clock.now_unix_ms()));
    ASSERT_TRUE(roster.drain(abi::IpAddress::v4(10, 0, 0, 1), 80, std::nullopt, true, machine.clock.now_unix_ms(),
                             {std::chrono::minutes(10), abi::TrackedFlows::reset}));
    settle();
    machine.pass(60'000);
    machine.wall += jump;
    settle();
    EXPECT_EQ(state(), abi::TargetState::draining);
    roster.shift_times(machine.clock.take_jump());
    settle();
    EXPECT_EQ(state(), abi::TargetState::draining);
    EXPECT_EQ(roster.next_deadline(machine.clock.now_unix_ms()), machine.clock.now_unix_ms() + 540'000);
    machine.pass(539'999);
    settle();
    EXPECT_EQ(state(), abi::TargetState::draining);
    machine.pass(1);
    settle();
    EXPECT_EQ(state(), abi::TargetState::unused);
  }
}

}  // namespace
}  // namespace lb::cp
