#include "cp/explain/plan.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

namespace lb::cp::explain {
namespace {

constexpr std::int64_t kNow = 1'000'000;

Config config(const std::vector<std::pair<int, std::uint32_t>>& targets, const std::string& group = "blue") {
  Config config;
  config.seed = 1;
  config.vips = {{"web", abi::IpAddress::v4(192, 0, 2, 10)}};
  config.listeners = {{.name = "web-80", .vip = "web", .first_port = 80, .last_port = 80, .groups = {{group, 1}}}};
  TargetGroup blue{.name = group, .port = 80, .table_size = 1021, .deregistration_delay = std::chrono::seconds(60)};
  for (const auto& [number, weight] : targets)
    blue.targets.push_back({abi::IpAddress::v4(10, 0, 0, static_cast<std::uint8_t>(number)), 80, weight});
  config.groups = {blue};
  return config;
}

// A roster whose targets are all healthy, and its flows: 100 for target 1, 200 for target 2, ….
class PlanTest : public ::testing::Test {
 protected:
  void start(const Config& config) {
    ASSERT_TRUE(roster_.apply(config, kNow));
    for (const auto& [name, group] : roster_.groups()) {
      std::vector<TargetKey> keys;
      for (const auto& [key, target] : group.targets) {
        keys.push_back(key);
        flows_[target.status.id] = 100U * key.address.bytes[15];
      }
      for (const TargetKey& key : keys) roster_.set_health(key, Health::healthy, StateReason::none, "", kNow);
    }
    roster_.settle(kNow, [](std::uint32_t) { return 0; });
    auto compiled = compiler_.compile(roster_.snapshot({1, 1}));
    ASSERT_TRUE(compiled) << compiled.error();
    before_ = std::move(*compiled);
  }

  Plan plan(const Config& config) {
    PlanInput input{.before = before_, .roster = roster_, .after = roster_, .generation = {1, 2}, .now_unix_ms = kNow};
    EXPECT_TRUE(input.after.apply(config, kNow));
    input.flows_known = true;
    input.flows_of = [flows = flows_](std::uint32_t id) -> std::optional<std::uint64_t> {
      const auto at = flows.find(id);
      return at == flows.end() ? std::nullopt : std::optional(at->second);
    };
    auto plan = make_plan(std::move(input));
    EXPECT_TRUE(plan) << plan.error();
    return std::move(*plan);
  }

  Roster roster_;
  Compiler compiler_;
  std::optional<CompiledSnapshot> before_;
  std::map<std::uint32_t, std::uint64_t> flows_;
};

TEST_F(PlanTest, WhatIsInForceMovesNothing) {
  start(config({{1, 1}, {2, 1}}));
  const Plan same = plan(config({{1, 1}, {2, 1}}));
  EXPECT_TRUE(same.groups.empty());
  EXPECT_EQ(same.flows.stay, 300U);
  EXPECT_EQ(same.snapshot_bytes_before, same.snapshot_bytes_after);
}

TEST_F(PlanTest, AddedTargetTakesItsShareAndNoTrackedFlow) {
  start(config({{1, 1}, {2, 1}}));
  const Plan more = plan(config({{1, 1}, {2, 1}, {3, 2}}));
  ASSERT_EQ(more.groups.size(), 1U);
  const PlannedGroup& group = more.groups[0];
  ASSERT_EQ(group.targets.size(), 3U);
  const PlannedTarget& fresh = group.targets[2];
  EXPECT_EQ(fresh.change, "add");
  EXPECT_NEAR(fresh.share_after, 0.5, 0.01);
  EXPECT_EQ(fresh.flows, 0U);
  EXPECT_GE(group.slots_moved, fresh.slots_gained);
  EXPECT_LT(group.slots_moved, 1021U * 6 / 10) << "few slots of the others move";
  EXPECT_EQ(more.flows.stay, 300U);
  EXPECT_EQ(more.flows.drain + more.flows.move + more.flows.reset, 0U);
  ASSERT_EQ(more.notes.size(), 1U);
  EXPECT_EQ(more.notes[0], "1 new targets are taken to become healthy");
}

TEST_F(PlanTest, SlotsThatAreLostAreThoseThatAreGained) {
  start(config({{1, 1}, {2, 1}, {3, 1}}));
  const Plan changed = plan(config({{1, 1}, {2, 5}, {3, 1}}));
  std::uint32_t gained = 0;
  std::uint32_t lost = 0;
  for (const PlannedTarget& target : changed.groups[0].targets) {
    gained += target.slots_gained;
    lost += target.slots_lost;
  }
  EXPECT_EQ(gained, lost);
  EXPECT_EQ(gained, changed.groups[0].slots_moved);
  EXPECT_EQ(changed.groups[0].targets[1].change, "change");
}

TEST_F(PlanTest, FlowsOfARemovedTargetDrainThenStayOrAreReset) {
  start(config({{1, 1}, {2, 1}, {3, 1}}));
  const Plan left = plan(config({{1, 1}, {3, 1}}));
  const PlannedTarget& gone = left.groups[0].targets[1];
  EXPECT_EQ(gone.change, "remove");
  EXPECT_EQ(to_string(gone.fate), "drain");
  EXPECT_EQ(gone.drain_ms, 60'000);
  EXPECT_EQ(gone.share_after, 0);
  EXPECT_EQ(left.flows.drain, 200U);
  EXPECT_EQ(left.flows.stay, 400U);

  Config at_once = config({{1, 1}, {3, 1}});
  at_once.groups[0].deregistration_delay = std::chrono::seconds(0);
  at_once.groups[0].after_deregistration = abi::TrackedFlows::reset;
  EXPECT_EQ(plan(at_once).flows.reset, 200U);
}

TEST_F(PlanTest, FlowsOfAGroupThatItsListenerGivesUpDrainAndAreThenPickedAnew) {
  start(config({{1, 1}, {2, 1}}));
  Config green = config({{3, 1}}, "green");
  green.groups.push_back(config({{1, 1}, {2, 1}}).groups[0]);
  const Plan switched = plan(green);
  EXPECT_EQ(switched.flows.drain, 300U);
  ASSERT_EQ(switched.groups.size(), 2U);
  EXPECT_EQ(switched.groups[0].targets[0].then, "rehash");
  EXPECT_EQ(switched.groups[1].change, "add");
}

TEST_F(PlanTest, WithoutASnapshotInForceEverythingIsNew) {
  const Plan first = plan(config({{1, 1}, {2, 3}}));
  ASSERT_EQ(first.groups.size(), 1U);
  EXPECT_EQ(first.groups[0].slots_moved, 1021U);
  EXPECT_EQ(first.snapshot_bytes_before, 0U);
  EXPECT_GT(first.sent_bytes, 1021U * 2);
}

}  // namespace
}  // namespace lb::cp::explain
