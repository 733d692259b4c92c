#include "cp/snapshot/decide.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace lb::cp {
namespace {

using abi::TargetState;
using abi::TrackedFlows;
using namespace std::chrono_literals;

constexpr std::int64_t kNow = 1'000'000;

TargetGroup tcp_group() {
  TargetGroup group;
  group.name = "blue";
  group.health_check.interval = 5s;
  return group;
}

TargetFacts healthy() {
  return {.health = Health::healthy};
}
TargetFacts unhealthy(std::int64_t since = kNow) {
  return {.health = Health::unhealthy, .failure = StateReason::failed_health_checks, .unhealthy_since_unix_ms = since};
}
TargetFacts leaving(std::int64_t ends) {
  return {.health = Health::healthy, .leaving = true, .drain_ends_unix_ms = ends};
}

TargetDecision only(const TargetGroup& group, const std::vector<TargetFacts>& targets, std::int64_t now = kNow) {
  return decide(group, {}, targets, now).targets.front();
}

TEST(Decide, InitialTargetTakesNoNewFlowsBesideAHealthyOne) {
  const TargetFacts fresh;
  EXPECT_EQ(only(tcp_group(), {fresh, healthy()}),
            (TargetDecision{TargetState::initial, StateReason::registration_in_progress, 0, TrackedFlows::keep}));
  const TargetFacts failed_once{.failure = StateReason::timeout};
  EXPECT_EQ(only(tcp_group(), {failed_once, healthy()}).reason, StateReason::initial_health_checking);
}

TEST(Decide, GroupOfInitialTargetsFailsOpenToThem) {
  const std::vector<TargetFacts> targets{{}, {.weight = 7}};
  const GroupDecision decided = decide(tcp_group(), {}, targets, kNow);
  EXPECT_TRUE(decided.fail_open);
  EXPECT_EQ(decided.targets[0].weight, 1U);
  EXPECT_EQ(decided.targets[1].weight, 7U);
}

TEST(Decide, AllUnhealthyFailsOpenAndNobodyIsReset) {
  const std::vector<TargetFacts> targets{unhealthy(0), unhealthy(0), {.weight = 0, .health = Health::unhealthy}};
  const GroupDecision decided = decide(tcp_group(), {}, targets, kNow);
  EXPECT_TRUE(decided.fail_open);
  EXPECT_EQ(decided.targets[0].weight, 1U);
  EXPECT_EQ(decided.targets[2].weight, 0U);
  for (const TargetDecision& target : decided.targets) {
    EXPECT_EQ(target.state, TargetState::unhealthy);
    EXPECT_EQ(target.tracked, TrackedFlows::keep);
  }
}

TEST(Decide, FailOpenByCountAndByPercentage) {
  const std::vector<TargetFacts> targets{healthy(), healthy(), unhealthy(), unhealthy()};
  TargetGroup group = tcp_group();
  EXPECT_FALSE(decide(group, {}, targets, kNow).fail_open);
  group.minimum_healthy_count = 3;
  EXPECT_TRUE(decide(group, {}, targets, kNow).fail_open);
  group.minimum_healthy_count = 1;
  group.minimum_healthy_percentage = 50;
  EXPECT_FALSE(decide(group, {}, targets, kNow).fail_open);
  group.minimum_healthy_percentage = 51;
  EXPECT_TRUE(decide(group, {}, targets, kNow).fail_open);
}

TEST(Decide, DrainedAndZeroWeightTargetsDoNotCountForFailOpen) {
  TargetGroup group = tcp_group();
  group.minimum_healthy_percentage = 100;
  const TargetFacts zero{.weight = 0, .health = Health::unhealthy};
  const std::vector<TargetFacts> targets{healthy(), leaving(kNow + 1), zero};
  EXPECT_FALSE(decide(group, {}, targets, kNow).fail_open);
}

TEST(Decide, UnhealthyTcpTargetLosesNewFlowsAtOnceAndIsResetOneIntervalLater) {
  const std::vector<TargetFacts> targets{unhealthy(kNow), healthy()};
  const GroupDecision at_once = decide(tcp_group(), {}, targets, kNow);
  EXPECT_EQ(at_once.targets[0],
            (TargetDecision{TargetState::unhealthy, StateReason::failed_health_checks, 0, TrackedFlows::keep}));
  EXPECT_EQ(at_once.next_unix_ms, kNow + 5000);
  const GroupDecision later = decide(tcp_group(), {}, targets, at_once.next_unix_ms);
  EXPECT_EQ(later.targets[0].tracked, TrackedFlows::reset);
  EXPECT_EQ(later.next_unix_ms, kNever);
}

TEST(Decide, ResetWaitsOneIntervalAfterFailOpenEnds) {
  const std::vector<TargetFacts> targets{unhealthy(0), healthy()};
  const GroupDecision recovered = decide(tcp_group(), {.was_fail_open = true}, targets, kNow);
  EXPECT_EQ(recovered.recovered_unix_ms, kNow);
  EXPECT_EQ(recovered.targets[0].tracked, TrackedFlows::keep);
  const GroupDecision later = decide(tcp_group(), {.recovered_unix_ms = kNow}, targets, kNow + 5000);
  EXPECT_EQ(later.targets[0].tracked, TrackedFlows::reset);
}

TEST(Decide, UdpFlowsOfAnUnhealthyTargetAreRehashed) {
  TargetGroup group = tcp_group();
  group.protocol = ListenerProtocol::udp;
  EXPECT_EQ(only(group, {unhealthy(), healthy()}).tracked, TrackedFlows::rehash);
}

TEST(Decide, DrainingIntervalKeepsFlowsOfAnUnhealthyTargetUntilItEnds) {
  TargetGroup group = tcp_group();
  group.terminate_on_unhealthy = false;
  group.unhealthy_draining_interval = 30s;
  const std::vector<TargetFacts> targets{unhealthy(kNow), healthy()};
  const GroupDecision during = decide(group, {}, targets, kNow + 29'999);
  EXPECT_EQ(during.targets[0].state, TargetState::unhealthy_draining);
  EXPECT_EQ(during.targets[0].tracked, TrackedFlows::keep);
  EXPECT_EQ(during.targets[0].weight, 0U);
  const GroupDecision after = decide(group, {}, targets, during.next_unix_ms);
  EXPECT_EQ(after.targets[0].state, TargetState::unhealthy);
  EXPECT_EQ(after.targets[0].tracked, TrackedFlows::rehash);
}

TEST(Decide, LeavingTargetKeepsItsFlowsUntilTheDelayEnds) {
  TargetGroup group = tcp_group();
  const std::vector<TargetFacts> targets{leaving(kNow + 300), healthy()};
  const GroupDecision during = decide(group, {}, targets, kNow + 299);
  EXPECT_EQ(during.targets[0],
            (TargetDecision{TargetState::draining, StateReason::deregistration_in_progress, 0, TrackedFlows::keep}));
  EXPECT_EQ(during.next_unix_ms, kNow + 300);
  EXPECT_EQ(only(group, targets, kNow + 300),
            (TargetDecision{TargetState::unused, StateReason::not_registered, 0, TrackedFlows::keep}));
  group.after_deregistration = abi::TrackedFlows::reset;
  EXPECT_EQ(only(group, targets, kNow + 300).tracked, TrackedFlows::reset);
}

TEST(Decide, WhatTheDrainSaysComesBeforeTheGroupsAttribute) {
  TargetGroup group = tcp_group();
  group.after_deregistration = abi::TrackedFlows::reset;
  std::vector<TargetFacts> targets{leaving(kNow), healthy()};
  targets[0].drain_then = TrackedFlows::rehash;
  EXPECT_EQ(only(group, targets, kNow).tracked, TrackedFlows::rehash);
  targets[0].drain_then = TrackedFlows::keep;
  EXPECT_EQ(only(group, targets, kNow).tracked, TrackedFlows::keep);
}

TEST(Decide, LeavingTargetIsNotResetWhileItsGroupIsFailOpen) {
  TargetGroup group = tcp_group();
  group.after_deregistration = abi::TrackedFlows::reset;
  EXPECT_EQ(only(group, {leaving(kNow), unhealthy()}).tracked, TrackedFlows::keep);
}

TEST(Decide, TargetsWithoutHealthCheckAreUnavailableButInRotation) {
  TargetFacts unprobed;
  unprobed.probed = false;
  EXPECT_EQ(only(tcp_group(), {unprobed}),
            (TargetDecision{TargetState::unavailable, StateReason::health_check_disabled, 1, TrackedFlows::keep}));
  EXPECT_FALSE(decide(tcp_group(), {}, std::vector{unprobed}, kNow).fail_open);
}

TEST(Decide, TargetThatCannotBeProbedKeepsWhatItHad) {
  TargetFacts serves = healthy();
  serves.not_asked = true;
  const TargetFacts fresh{.not_asked = true};
  const GroupDecision decided = decide(tcp_group(), {}, std::vector<TargetFacts>{serves, fresh}, kNow);
  EXPECT_FALSE(decided.fail_open);
  EXPECT_EQ(decided.targets[0],
            (TargetDecision{TargetState::unavailable, StateReason::internal_error, 1, TrackedFlows::keep}));
  EXPECT_EQ(decided.targets[1],
            (TargetDecision{TargetState::unavailable, StateReason::internal_error, 0, TrackedFlows::keep}));
}

TEST(Decide, GroupWithoutListenerIsUnused) {
  const std::vector<TargetFacts> targets{unhealthy()};
  const GroupDecision decided = decide(tcp_group(), {.in_use = false}, targets, kNow);
  EXPECT_EQ(decided.targets[0], (TargetDecision{TargetState::unused, StateReason::not_in_use, 0, TrackedFlows::keep}));
  EXPECT_FALSE(decided.fail_open);
}

TEST(Decide, InvalidTargetGetsNothing) {
  TargetFacts invalid = healthy();
  invalid.invalid = true;
  EXPECT_EQ(only(tcp_group(), {invalid, healthy()}),
            (TargetDecision{TargetState::unused, StateReason::invalid_target, 0, TrackedFlows::rehash}));
}

RC_GTEST_PROP(DecideProperty, TrafficIsNeverWithoutATargetWhereOneIsRegistered, ()) {
  TargetGroup group = tcp_group();
  group.minimum_healthy_count = *rc::gen::inRange<std::uint32_t>(1, 5);
  group.minimum_healthy_percentage = *rc::gen::inRange<std::uint32_t>(0, 101);
  group.protocol = *rc::gen::element(ListenerProtocol::tcp, ListenerProtocol::udp, ListenerProtocol::tcp_udp);
  group.terminate_on_unhealthy = *rc::gen::arbitrary<bool>();
  std::vector<TargetFacts> targets(*rc::gen::inRange<std::size_t>(1, 8));
  bool registered = false;
  for (TargetFacts& target : targets) {
    target.weight = *rc::gen::inRange<std::uint32_t>(0, 3);
    target.health = *rc::gen::element(Health::initial, Health::healthy, Health::unhealthy);
    target.leaving = *rc::gen::arbitrary<bool>();
    target.drain_ends_unix_ms = *rc::gen::inRange<std::int64_t>(0, 2 * kNow);
    target.unhealthy_since_unix_ms = *rc::gen::inRange<std::int64_t>(0, kNow);
    registered |= target.weight > 0 && !target.leaving;
  }
  const GroupDecision decided = decide(group, {}, targets, kNow);
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    total += decided.targets[i].weight;
    RC_ASSERT(decided.targets[i].weight == 0 || decided.targets[i].weight == targets[i].weight);
    if (targets[i].leaving) RC_ASSERT(decided.targets[i].weight == 0);
    if (decided.fail_open) RC_ASSERT(decided.targets[i].tracked == TrackedFlows::keep);
    if (decided.targets[i].weight > 0) RC_ASSERT(decided.targets[i].tracked == TrackedFlows::keep);
  }
  RC_ASSERT((total > 0) == registered);
  RC_ASSERT(decided.next_unix_ms > kNow);
}

TEST(RemovalLimit, AtMostATenthOfALargeGroupTimesOutWithinTenSeconds) {
  RemovalLimit limit;
  int removed = 0;
  for (int i = 0; i < 30; ++i) removed += limit.allow(30, StateReason::timeout, 0, kNow + i) ? 1 : 0;
  EXPECT_EQ(removed, 3);
  EXPECT_FALSE(limit.allow(30, StateReason::timeout, 0, kNow + 9'999));
  EXPECT_TRUE(limit.allow(30, StateReason::timeout, 0, kNow + 10'000));
}

TEST(RemovalLimit, SmallGroupsAndOtherReasonsAreNotLimited) {
  RemovalLimit limit;
  for (int i = 0; i < 19; ++i) EXPECT_TRUE(limit.allow(19, StateReason::timeout, 0, kNow));
  for (int i = 0; i < 30; ++i) EXPECT_TRUE(limit.allow(30, StateReason::failed_health_checks, 0, kNow));
}

TEST(RemovalLimit, SuccessInAnotherGroupLiftsIt) {
  RemovalLimit limit;
  for (int i = 0; i < 30; ++i) EXPECT_TRUE(limit.allow(30, StateReason::timeout, kNow - 1, kNow));
  EXPECT_FALSE(limit.allow(30, StateReason::timeout, kNow - 10'000, kNow));
}

TEST(Decide, SlowStartGrowsTheShareInEqualSteps) {
  TargetGroup group = tcp_group();
  group.slow_start = 64s;
  TargetFacts late = healthy();
  late.ramp_from_unix_ms = kNow;
  const auto at = [&](std::int64_t after_ms) { return decide(group, {}, std::vector{late, healthy()}, kNow + after_ms); };
  EXPECT_EQ(at(0).targets[0].ramp, 1U);
  EXPECT_EQ(at(0).next_unix_ms, kNow + 1000);
  EXPECT_EQ(at(999).targets[0].ramp, 1U);
  EXPECT_EQ(at(1000).targets[0].ramp, 2U);
  EXPECT_EQ(at(32'000).targets[0].ramp, 33U);
  EXPECT_EQ(at(63'000).targets[0].ramp, kRampSteps);
  EXPECT_EQ(at(63'000).next_unix_ms, kNever);
  EXPECT_EQ(at(0).targets[1].ramp, kRampSteps);  // the one that was there before
  EXPECT_EQ(at(0).targets[0].weight, late.weight);
}

TEST(Decide, FailOpenHasNoSlowStart) {
  TargetGroup group = tcp_group();
  group.slow_start = 64s;
  TargetFacts late = healthy();
  late.ramp_from_unix_ms = kNow;
  group.minimum_healthy_count = 2;
  EXPECT_EQ(only(group, {late, unhealthy()}).ramp, kRampSteps);
}

TEST(Decide, FlowsOfARemovedTargetAreLeftResetOrRehashedAsConfigured) {
  for (const TrackedFlows then : {TrackedFlows::keep, TrackedFlows::reset, TrackedFlows::rehash}) {
    TargetGroup group = tcp_group();
    group.after_deregistration = then;
    EXPECT_EQ(only(group, {leaving(kNow + 1), healthy()}).tracked, TrackedFlows::keep);
    EXPECT_EQ(only(group, {leaving(kNow), healthy()}).tracked, then);
  }
}

TEST(RemovalLimit, ItsShareIsTheOperators) {
  RemovalLimit limit;
  int removed = 0;
  for (int i = 0; i < 30; ++i) removed += limit.allow(30, StateReason::timeout, 0, kNow, 50) ? 1 : 0;
  EXPECT_EQ(removed, 15);
}

}  // namespace
}  // namespace lb::cp
