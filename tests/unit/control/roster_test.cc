#include "cp/snapshot/roster.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "cp/snapshot/compile.h"

namespace lb::cp {
namespace {

using abi::TargetState;
using abi::TrackedFlows;
using namespace std::chrono_literals;

constexpr std::int64_t kNow = 1'000'000;

abi::IpAddress address(int n) {
  return abi::IpAddress::v4(10, 0, 0, static_cast<std::uint8_t>(n));
}
const abi::IpAddress kVip = abi::IpAddress::v4(192, 0, 2, 10);

Config config_of(const std::vector<int>& targets) {
  Config config;
  config.vips.push_back({"web", kVip});
  config.listeners.push_back({"web-80", "web", ListenerProtocol::tcp, 80, 80, {{"blue", 1}}});
  TargetGroup group;
  group.name = "blue";
  group.deregistration_delay = 10s;
  group.health_check.interval = 1s;
  for (const int n : targets) group.targets.push_back({address(n), 80, 1});
  config.groups.push_back(group);
  return config;
}

// A roster with flows by target id, time and generations.
struct World {
  Roster roster;
  std::int64_t now = kNow;
  std::map<std::uint32_t, std::uint64_t> flows;
  bool data_plane = true;
  std::uint64_t n = 0;

  bool settle() {
    return roster.settle(now, [this](std::uint32_t id) -> std::optional<std::uint64_t> {
      if (!data_plane) return std::nullopt;
      return flows[id];
    });
  }
  const SnapshotInput& compile() {
    settle();
    return roster.snapshot({1, ++n});
  }
  void activate() { roster.activated({1, n}); }
  void apply(const Config& config) { ASSERT_TRUE(roster.apply(config, now)); }
  void health(int target, Health health) {
    EXPECT_TRUE(roster.set_health({"blue", address(target), 80}, health, StateReason::failed_health_checks, "words", now));
  }
  [[nodiscard]] const TargetRecord& target(int n_) const { return *roster.find({"blue", address(n_), 80}); }
  // Lets time pass as the control loop would: to the next deadline, never beyond `until`.
  void run_until(std::int64_t until) {
    compile();
    for (;;) {
      const auto next = roster.next_deadline(now);
      if (!next || *next > until) break;
      ASSERT_GT(*next, now);
      now = *next;
      compile();
      activate();
    }
    now = until;
    compile();
    activate();
  }
};

const TargetInput& input_of(const SnapshotInput& input, int target) {
  return *std::ranges::find(input.groups.at(0).targets, address(target), [](const TargetInput& t) { return t.key.address; });
}

TEST(Roster, TargetsGetDenseIdsAndStartInitial) {
  World world;
  world.apply(config_of({1, 2, 3}));
  const SnapshotInput& input = world.compile();
  ASSERT_EQ(input.groups.size(), 1U);
  EXPECT_TRUE(input.groups[0].fail_open);
  std::vector<std::uint32_t> ids;
  for (const TargetInput& target : input.groups[0].targets) {
    ids.push_back(target.id);
    EXPECT_EQ(target.state, TargetState::initial);
    EXPECT_EQ(target.weight, 1U);
  }
  EXPECT_EQ(ids, (std::vector<std::uint32_t>{0, 1, 2}));
}

TEST(Roster, NothingHappenedMeansNoNewGeneration) {
  World world;
  world.apply(config_of({1, 2}));
  EXPECT_TRUE(world.settle());
  EXPECT_FALSE(world.settle());
  world.health(1, Health::healthy);
  EXPECT_TRUE(world.settle());
  world.health(1, Health::healthy);
  EXPECT_FALSE(world.settle());
}

TEST(Roster, FirstHealthyTargetTakesAllNewFlows) {
  World world;
  world.apply(config_of({1, 2}));
  world.settle();
  world.health(1, Health::healthy);
  const SnapshotInput& input = world.compile();
  EXPECT_EQ(input_of(input, 1).weight, 1U);
  EXPECT_EQ(input_of(input, 2).weight, 0U);
  EXPECT_FALSE(input.groups[0].fail_open);
}

TEST(Roster, EveryChangeOfStateIsAnEvent) {
  World world;
  world.apply(config_of({1}));
  world.settle();
  world.roster.take_events();
  world.health(1, Health::healthy);
  world.settle();
  const auto events = world.roster.take_events();
  const auto event = std::ranges::find(events, "target blue 10.0.0.1:80", &Event::object);
  ASSERT_NE(event, events.end());
  EXPECT_EQ(event->old_state, "initial");
  EXPECT_EQ(event->new_state, "healthy");
  EXPECT_EQ(event->detail, "words");
  EXPECT_EQ(event->unix_ms, kNow);
}

TEST(Roster, RemovedTargetDrainsThenGoesWhenItsFlowsAreGone) {
  World world;
  world.apply(config_of({1, 2}));
  world.compile();
  world.apply(config_of({1}));
  EXPECT_EQ(input_of(world.compile(), 2).state, TargetState::draining);
  EXPECT_EQ(input_of(world.compile(), 2).weight, 0U);
  world.flows[1] = 5;
  world.run_until(kNow + 60'000);
  EXPECT_EQ(world.target(2).status.state, TargetState::unused);
  EXPECT_EQ(world.target(2).status.reason, StateReason::not_registered);
  EXPECT_EQ(input_of(world.compile(), 2).tracked, TrackedFlows::keep);
  world.flows[1] = 0;
  world.run_until(world.now + 2'000);
  EXPECT_EQ(world.roster.find({"blue", address(2), 80}), nullptr);
}

TEST(Roster, IdIsReusedOnlyAfterWorkersMovedOnAndFlowsAreGone) {
  World world;
  Config config = config_of({1, 2});
  config.groups[0].deregistration_delay = 0s;
  world.apply(config);
  world.compile();
  world.activate();
  Config smaller = config_of({2});
  smaller.groups[0].deregistration_delay = 0s;
  world.apply(smaller);
  world.compile();  // without target 1, but nobody has moved to it yet
  ASSERT_EQ(world.roster.find({"blue", address(1), 80}), nullptr);
  Config third = smaller;
  third.groups[0].targets.push_back({address(3), 80, 1});
  world.apply(third);
  world.compile();
  EXPECT_EQ(world.target(3).status.id, 2U);
  world.flows[0] = 1;  // a slow worker has entered one more flow
  world.activate();
  world.settle();
  third.groups[0].targets.push_back({address(4), 80, 1});
  world.apply(third);
  EXPECT_EQ(world.target(4).status.id, 3U);
  world.flows[0] = 0;
  world.settle();
  third.groups[0].targets.push_back({address(5), 80, 1});
  world.apply(third);
  EXPECT_EQ(world.target(5).status.id, 0U);
}

TEST(Roster, RemovedTargetStaysWhileTheDataPlaneIsAway) {
  World world;
  world.apply(config_of({1, 2}));
  world.compile();
  world.data_plane = false;
  world.apply(config_of({1}));
  world.run_until(kNow + 20'000);
  EXPECT_NE(world.roster.find({"blue", address(2), 80}), nullptr);
}

TEST(Roster, DrainAndUndrain) {
  World world;
  world.apply(config_of({1, 2}));
  world.settle();
  world.health(1, Health::healthy);
  world.health(2, Health::healthy);
  world.settle();
  ASSERT_TRUE(world.roster.drain(address(1), 80, std::nullopt, true, world.now));
  EXPECT_EQ(input_of(world.compile(), 1).state, TargetState::draining);
  EXPECT_EQ(input_of(world.compile(), 1).weight, 0U);
  world.run_until(kNow + 10'000);
  EXPECT_EQ(world.target(1).status.state, TargetState::unused);
  EXPECT_EQ(world.target(1).status.reason, StateReason::not_registered);
  ASSERT_TRUE(world.roster.drain(address(1), 80, "blue", false, world.now));
  EXPECT_EQ(input_of(world.compile(), 1).state, TargetState::healthy);
  EXPECT_EQ(input_of(world.compile(), 1).weight, 1U);
}

TEST(Roster, DrainsOwnDeadlineAndEndAreKeptUntilUndrained) {
  World world;
  world.apply(config_of({1, 2}));
  world.settle();
  world.health(1, Health::healthy);
  world.health(2, Health::healthy);
  ASSERT_TRUE(world.roster.drain(address(1), 80, "blue", true, world.now, {3s, TrackedFlows::reset}));
  ASSERT_TRUE(world.roster.drain(address(1), 80, "blue", true, kNow + 1'000)) << "says nothing, changes nothing";
  World again;
  again.roster.restore(world.roster.memory());
  again.apply(config_of({1, 2}));
  again.run_until(kNow + 2'999);
  EXPECT_EQ(again.target(1).status.state, TargetState::draining);
  again.run_until(kNow + 3'000);
  EXPECT_EQ(again.target(1).status.state, TargetState::unused);
  EXPECT_EQ(input_of(again.compile(), 1).tracked, TrackedFlows::reset);
  ASSERT_TRUE(again.roster.drain(address(1), 80, "blue", true, again.now, {5s, TrackedFlows::rehash}));
  EXPECT_EQ(input_of(again.compile(), 1).state, TargetState::draining) << "a later deadline goes";
  again.run_until(kNow + 8'000);
  EXPECT_EQ(input_of(again.compile(), 1).tracked, TrackedFlows::rehash);
  ASSERT_TRUE(again.roster.drain(address(1), 80, "blue", false, again.now));
  ASSERT_TRUE(again.roster.drain(address(1), 80, "blue", true, again.now));
  EXPECT_EQ(again.target(1).status.drain_ends_unix_ms, kNow + 18'000) << "the group's delay";
  EXPECT_EQ(again.target(1).status.drain_then, std::nullopt);
}

TEST(Roster, DrainOfAnUnknownTargetNamesIt) {
  World world;
  world.apply(config_of({1}));
  EXPECT_EQ(world.roster.drain(address(9), 80, std::nullopt, true, kNow).error(), "no target 10.0.0.9:80");
  EXPECT_EQ(world.roster.drain(address(1), 80, "green", true, kNow).error(), "no target group \"green\"");
}

TEST(Roster, TargetThatComesBackBeforeItsDelayEndsKeepsIdAndHealth) {
  World world;
  world.apply(config_of({1, 2}));
  world.settle();
  world.health(2, Health::healthy);
  world.settle();
  const std::uint32_t id = world.target(2).status.id;
  world.apply(config_of({1}));
  world.settle();
  world.apply(config_of({1, 2}));
  world.settle();
  EXPECT_EQ(world.target(2).status.id, id);
  EXPECT_EQ(world.target(2).status.state, TargetState::healthy);
}

TEST(Roster, RemovedListenerDrainsAsLongAsItsGroup) {
  World world;
  world.apply(config_of({1}));
  world.compile();
  Config config = config_of({1});
  config.listeners.clear();
  config.vips.clear();
  world.apply(config);
  const SnapshotInput& input = world.compile();
  ASSERT_EQ(input.listeners.size(), 1U);
  EXPECT_TRUE(input.listeners[0].draining);
  ASSERT_EQ(input.vips.size(), 1U);
  EXPECT_EQ(input.vips[0].address, kVip);
  EXPECT_EQ(world.target(1).status.reason, StateReason::not_in_use);
  world.run_until(kNow + 9'999);
  EXPECT_EQ(world.compile().listeners.size(), 1U);
  world.run_until(kNow + 10'000);
  EXPECT_TRUE(world.compile().listeners.empty());
  EXPECT_TRUE(world.compile().vips.empty());
}

TEST(Roster, ListenerThatTakesTheSamePlaceReplacesTheRemovedOne) {
  World world;
  world.apply(config_of({1}));
  world.compile();
  Config config = config_of({1});
  config.listeners[0].name = "web-http";
  world.apply(config);
  const SnapshotInput& input = world.compile();
  ASSERT_EQ(input.listeners.size(), 1U);
  EXPECT_EQ(input.listeners[0].config.name, "web-http");
  EXPECT_EQ(input.listeners[0].counter_index, 2U) << "the old listener's counters are still being written";
}

TEST(Roster, PortChangeDrainsTheOldPort) {
  World world;
  world.apply(config_of({1}));
  world.compile();
  Config config = config_of({1});
  config.listeners[0].first_port = config.listeners[0].last_port = 8080;
  world.apply(config);
  const SnapshotInput& input = world.compile();
  ASSERT_EQ(input.listeners.size(), 2U);
  EXPECT_FALSE(input.listeners[0].draining);
  EXPECT_TRUE(input.listeners[1].draining);
  EXPECT_EQ(input.listeners[1].config.first_port, 80);
}

TEST(Roster, GroupTakenOffAListenerStaysWithWeightZeroUntilItsDelayEnds) {
  World world;
  Config config = config_of({1});
  TargetGroup green = config.groups[0];
  green.name = "green";
  green.targets = {{address(2), 80, 1}};
  config.groups.push_back(green);
  world.apply(config);
  world.compile();
  config.listeners[0].groups = {{"green", 1}};
  world.apply(config);
  const auto& shares = world.compile().listeners.at(0).config.groups;
  ASSERT_EQ(shares.size(), 2U);
  EXPECT_EQ(shares[0].name, "green");
  EXPECT_EQ(shares[1].name, "blue");
  EXPECT_EQ(shares[1].weight, 0U);
  EXPECT_EQ(world.target(1).status.reason, StateReason::not_in_use);
  world.run_until(kNow + 10'000);
  EXPECT_EQ(world.compile().listeners.at(0).config.groups.size(), 1U);
}

TEST(Roster, RemovedGroupDrainsAndGoes) {
  World world;
  world.apply(config_of({1}));
  world.compile();
  Config empty;
  world.apply(empty);
  const SnapshotInput& input = world.compile();
  ASSERT_EQ(input.groups.size(), 1U);
  EXPECT_EQ(input.groups[0].targets.at(0).state, TargetState::draining);
  ASSERT_EQ(input.listeners.size(), 1U);
  world.run_until(kNow + 30'000);
  EXPECT_TRUE(world.compile().groups.empty());
  EXPECT_TRUE(world.compile().listeners.empty());
  EXPECT_FALSE(world.roster.next_deadline(world.now).has_value());
}

TEST(Roster, TargetAtAVipOrAtThisHostIsInvalid) {
  World world;
  Config config = config_of({1});
  config.groups[0].targets.push_back({kVip, 80, 1});
  world.apply(config);
  world.roster.set_path(address(1), {}, true);
  world.settle();
  EXPECT_EQ(world.target(1).status.reason, StateReason::invalid_target);
  EXPECT_EQ(world.roster.find({"blue", kVip, 80})->status.reason, StateReason::invalid_target);
}

TEST(Roster, NextHopReachesTheSnapshot) {
  World world;
  world.apply(config_of({1, 2}));
  world.settle();
  const NextHop hop{.resolved = true, .interface = "eth0", .mac = {2, 0, 0, 0, 0, 1}};
  world.roster.set_path(address(1), hop, false);
  ASSERT_TRUE(world.settle());
  EXPECT_EQ(input_of(world.compile(), 1).next_hop, hop);
  EXPECT_FALSE(input_of(world.compile(), 2).next_hop.resolved);
}

// Rows of targets and groups, but for where the tables are: segments have numbers of their own in each compiler.
std::string rows_of(const CompiledSnapshot& snapshot) {
  const auto bytes = snapshot.root->bytes();
  const auto& root = *reinterpret_cast<const abi::Root*>(bytes.data());
  const auto text = [&](const abi::Table& table, std::size_t row) {
    return std::string(reinterpret_cast<const char*>(bytes.data()) + table.offset, table.count * row);
  };
  std::string groups = text(root.groups, sizeof(abi::TargetGroup));
  for (std::size_t i = 0; i < root.groups.count; ++i) {
    auto& group = reinterpret_cast<abi::TargetGroup*>(groups.data())[i];
    group.segment = 0;
    group.slots_offset = 0;
  }
  return text(root.targets, sizeof(abi::Target)) + text(root.group_targets, sizeof(std::uint32_t)) +
         text(root.ports, sizeof(abi::Port)) + groups;
}

TEST(Roster, WhatACompilerRemembersOfGroupsIsWhatANewOneMakes) {
  World world;
  Config config = config_of({1, 2, 3});
  for (const char* name : {"green", "red"}) {
    TargetGroup& group = config.groups.emplace_back(config.groups[0]);
    group.name = name;
    config.listeners[0].groups.push_back({name, 1});
  }
  Config smaller = config;
  smaller.groups[1].targets.pop_back();
  smaller.groups[2].tcp_idle_timeout = 400s;
  Compiler kept;
  std::string before;
  const auto agrees = [&](bool changes) {
    const SnapshotInput& input = world.compile();
    const auto remembered = kept.compile(input);
    const auto fresh = Compiler().compile(input);
    ASSERT_TRUE(remembered && fresh);
    const std::string rows = rows_of(*remembered);
    EXPECT_EQ(rows, rows_of(*fresh));
    EXPECT_EQ(rows != before, changes);
    before = rows;
  };
  world.apply(config);
  agrees(true);
  agrees(false);
  world.health(1, Health::healthy);
  agrees(true);
  for (const char* interface : {"eth1", "eth0"}) {
    world.roster.set_path(address(2), {.resolved = true, .interface = interface, .mac = {2}, .mtu_bytes = 1500}, false);
    agrees(true);
  }
  world.roster.set_path(address(3), {.resolved = true, .interface = "eth1", .mac = {2}, .mtu_bytes = 1500}, false);
  agrees(true);
  ASSERT_TRUE(world.roster.drain(address(2), 80, "green", true, world.now, {}));
  agrees(true);
  world.apply(smaller);
  agrees(true);
  world.now += 60'000;
  agrees(true);
  world.apply(config);
  agrees(true);
}

TEST(Roster, MemoryRestoresStatesDrainsAndIds) {
  World world;
  world.apply(config_of({1, 2, 3}));
  world.settle();
  world.health(1, Health::healthy);
  world.settle();
  ASSERT_TRUE(world.roster.drain(address(2), 80, std::nullopt, true, world.now));
  world.apply(config_of({1, 2}));
  world.compile();

  World again;
  again.roster.restore(world.roster.memory());
  again.now = kNow + 5'000;
  again.apply(config_of({1, 2}));
  again.compile();
  EXPECT_EQ(again.target(1).status.state, TargetState::healthy);
  EXPECT_EQ(again.target(2).status.state, TargetState::draining);
  EXPECT_EQ(again.target(2).status.drain_ends_unix_ms, kNow + 10'000);
  EXPECT_EQ(again.target(3).status.state, TargetState::draining);
  for (const int n : {1, 2, 3}) EXPECT_EQ(again.target(n).status.id, world.target(n).status.id);
  again.apply(config_of({1, 2, 4}));
  EXPECT_EQ(again.target(4).status.id, 3U);
}

TEST(IdAllocator, LowestFreeFirst) {
  IdAllocator ids(4);
  EXPECT_EQ(ids.take(), 0U);
  EXPECT_EQ(ids.take(), 1U);
  EXPECT_TRUE(ids.restore(3));
  EXPECT_FALSE(ids.restore(3));
  EXPECT_FALSE(ids.restore(4));
  ids.release(0);
  EXPECT_EQ(ids.take(), 0U);
  EXPECT_EQ(ids.take(), 2U);
  EXPECT_EQ(ids.take(), std::nullopt);
}

}  // namespace
}  // namespace lb::cp
