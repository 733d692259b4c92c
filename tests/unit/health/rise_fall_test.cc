#include "cp/health/rise_fall.h"

#include <gtest/gtest.h>

#include <string_view>

namespace lb::cp {
namespace {

// Feeds a run of '+' (ok), 'x' (failed), 't' (timeout), 'm' (mismatch) with thresholds 3/2 and returns the health after each
// as a letter: i, h or u.
std::string run(RiseFall machine, std::string_view verdicts) {
  std::string health;
  for (const char c : verdicts) {
    const ProbeVerdict verdict = c == '+'   ? ProbeVerdict::ok
                                 : c == 'x' ? ProbeVerdict::failed
                                 : c == 't' ? ProbeVerdict::timeout
                                            : ProbeVerdict::response_code_mismatch;
    machine.observe(verdict, 3, 2);
    health += machine.health() == Health::initial ? 'i' : machine.health() == Health::healthy ? 'h' : 'u';
  }
  return health;
}

TEST(RiseFall, FirstSuccessMakesAnInitialTargetHealthy) {
  EXPECT_EQ(run(RiseFall{}, "+"), "h");
  EXPECT_EQ(run(RiseFall{}, "x+"), "ih");
}

TEST(RiseFall, InitialTargetIsUnhealthyAfterTheThresholdOfFailures) {
  EXPECT_EQ(run(RiseFall{}, "xx"), "iu");
}

TEST(RiseFall, HealthyTargetNeedsConsecutiveFailuresToFall) {
  EXPECT_EQ(run(RiseFall{Health::healthy}, "x+x+xx"), "hhhhhu");
}

TEST(RiseFall, FailuresOfDifferentKindsCountTogether) {
  EXPECT_EQ(run(RiseFall{Health::healthy}, "tm"), "hu");
}

TEST(RiseFall, UnhealthyTargetNeedsConsecutiveSuccessesToRise) {
  EXPECT_EQ(run(RiseFall{Health::unhealthy}, "++x+++"), "uuuuuh");
}

TEST(RiseFall, HeldChangeHappensAtTheNextFailureThatIsNotHeld) {
  RiseFall machine(Health::healthy);
  EXPECT_FALSE(machine.observe(ProbeVerdict::timeout, 3, 2));
  EXPECT_EQ(machine.after(ProbeVerdict::timeout, 3, 2), Health::unhealthy);
  EXPECT_FALSE(machine.observe(ProbeVerdict::timeout, 3, 2, true));
  EXPECT_EQ(machine.health(), Health::healthy);
  EXPECT_TRUE(machine.observe(ProbeVerdict::timeout, 3, 2));
  EXPECT_EQ(machine.health(), Health::unhealthy);
}

TEST(RiseFall, WhatCouldNotBeAskedIsNotCounted) {
  RiseFall health;
  EXPECT_FALSE(health.observe(ProbeVerdict::not_asked, 5, 2));
  EXPECT_EQ(health.health(), Health::initial);
  health.observe(ProbeVerdict::ok, 5, 2);
  health.observe(ProbeVerdict::failed, 5, 2);
  health.observe(ProbeVerdict::not_asked, 5, 2);
  EXPECT_EQ(health.health(), Health::healthy);
  EXPECT_TRUE(health.observe(ProbeVerdict::failed, 5, 2));
}

TEST(RiseFall, EachFailureHasItsReason) {
  EXPECT_EQ(reason_of(ProbeVerdict::ok), StateReason::none);
  EXPECT_EQ(reason_of(ProbeVerdict::failed), StateReason::failed_health_checks);
  EXPECT_EQ(reason_of(ProbeVerdict::timeout), StateReason::timeout);
  EXPECT_EQ(reason_of(ProbeVerdict::response_code_mismatch), StateReason::response_code_mismatch);
  EXPECT_EQ(reason_of(ProbeVerdict::not_asked), StateReason::internal_error);
}

}  // namespace
}  // namespace lb::cp
