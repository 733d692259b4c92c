#include "cp/control/health_book.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace lb::cp {
namespace {

constexpr std::int64_t kNow = 1'000'000;

abi::IpAddress address(int n) {
  return abi::IpAddress::v4(10, 0, 0, static_cast<std::uint8_t>(n));
}

// Groups blue and green, both in use, with the same targets and the same checks but thresholds of their own.
Config two_groups(int targets) {
  Config config;
  config.vips.push_back({"web", abi::IpAddress::v4(192, 0, 2, 10)});
  for (const char* name : {"blue", "green"}) {
    TargetGroup group;
    group.name = name;
    for (int n = 1; n <= targets; ++n) group.targets.push_back({address(n), 80, 1});
    config.groups.push_back(group);
  }
  config.groups[1].health_check.unhealthy_threshold = 3;
  config.listeners.push_back({"web-80", "web", ListenerProtocol::tcp, 80, 80, {{"blue", 1}, {"green", 1}}});
  return config;
}

struct World {
  Roster roster;
  HealthBook book;

  std::vector<ProbeSpec> apply(const Config& config) {
    EXPECT_TRUE(roster.apply(config, kNow));
    return book.plan(roster);
  }
  bool take(const ProbeSpec& spec, ProbeVerdict verdict, std::int64_t now = kNow) {
    return book.take(spec, {verdict, "words", {}}, roster, now);
  }
  Health health(const char* group, int n) { return roster.find({group, address(n), 80})->health; }
};

TEST(HealthBook, GroupsThatCheckTheSameWayShareAProbeAndKeepTheirThresholds) {
  World world;
  const auto specs = world.apply(two_groups(1));
  ASSERT_EQ(specs.size(), 1U);
  EXPECT_TRUE(world.take(specs[0], ProbeVerdict::ok));
  EXPECT_EQ(world.health("green", 1), Health::healthy);
  world.take(specs[0], ProbeVerdict::failed);
  EXPECT_TRUE(world.take(specs[0], ProbeVerdict::failed));
  EXPECT_EQ(world.health("blue", 1), Health::unhealthy);
  EXPECT_EQ(world.health("green", 1), Health::healthy);
  EXPECT_TRUE(world.take(specs[0], ProbeVerdict::failed));
  EXPECT_EQ(world.health("green", 1), Health::unhealthy);
  EXPECT_EQ(world.roster.find({"green", address(1), 80})->status.detail, "words");
}

TEST(HealthBook, UnusedGroupsUncheckedGroupsAndRemovedTargetsAreNotProbed) {
  World world;
  Config config = two_groups(2);
  config.groups[1].health_check.protocol = ProbeProtocol::none;
  EXPECT_EQ(world.apply(config).size(), 2U);
  config.groups[0].targets.pop_back();
  const auto specs = world.apply(config);
  ASSERT_EQ(specs.size(), 1U);
  EXPECT_EQ(specs[0].address, address(1));
  config.listeners.clear();
  EXPECT_TRUE(world.apply(config).empty());
}

TEST(HealthBook, CheckPortPathAndMatcherAreTheProbes) {
  World world;
  Config config = two_groups(1);
  HealthCheck& check = config.groups[1].health_check;
  check.protocol = ProbeProtocol::http;
  check.port = 8081;
  check.path = "/up";
  check.matcher = {{200, 204}};
  const auto specs = world.apply(config);
  const auto http = std::ranges::find(specs, ProbeProtocol::http, &ProbeSpec::protocol);
  ASSERT_NE(http, specs.end());
  EXPECT_EQ(http->port, 8081);
  EXPECT_EQ(http->path, "/up");
  EXPECT_EQ(http->matcher, "200-204");
}

TEST(HealthBook, CountsSurviveAChangeOfConfiguration) {
  World world;
  auto specs = world.apply(two_groups(1));
  world.take(specs[0], ProbeVerdict::ok);
  world.take(specs[0], ProbeVerdict::failed);
  specs = world.apply(two_groups(2));
  world.take(specs[0], ProbeVerdict::failed);
  EXPECT_EQ(world.health("blue", 1), Health::unhealthy);
}

TEST(HealthBook, AfterARestartATargetKeepsItsStateUntilProbesSayOtherwise) {
  World old;
  const ProbeSpec spec = old.apply(two_groups(2))[0];
  for (int i = 0; i < 3; ++i) old.take(spec, ProbeVerdict::failed);  // the first target; nothing is known of the second
  World fresh;
  fresh.roster.restore(old.roster.memory());
  ASSERT_EQ(fresh.apply(two_groups(2))[0], spec);
  EXPECT_EQ(fresh.health("blue", 1), Health::unhealthy);
  EXPECT_EQ(fresh.health("blue", 2), Health::initial);
  for (int i = 1; i <= 5; ++i) {  // healthy_threshold
    EXPECT_EQ(fresh.health("blue", 1), Health::unhealthy) << i;
    fresh.take(spec, ProbeVerdict::ok);
  }
  EXPECT_EQ(fresh.health("blue", 1), Health::healthy);
}

TEST(HealthBook, WhileFrozenProbesAreShownAndNothingIsCounted) {
  World world;
  const ProbeSpec spec = world.apply(two_groups(1))[0];
  world.take(spec, ProbeVerdict::ok);
  const Health before = world.health("blue", 1);
  for (int i = 0; i < 9; ++i) world.book.show(spec, {ProbeVerdict::failed, "refused", {}}, world.roster);
  EXPECT_EQ(world.health("blue", 1), before);
  EXPECT_EQ(world.roster.find({"blue", address(1), 80})->status.detail, "refused");
  world.take(spec, ProbeVerdict::failed);
  EXPECT_EQ(world.health("blue", 1), before) << "a thaw begins where the freeze did";
}

TEST(HealthBook, MassTimeoutIsHeldBackUntilAnotherGroupAnswers) {
  World world;
  Config config = two_groups(20);
  config.groups[1].targets = {{address(99), 80, 1}};
  const auto specs = world.apply(config);
  for (const ProbeSpec& spec : specs) world.take(spec, ProbeVerdict::ok, kNow - 60'000);
  const auto unhealthy = [&] {
    int count = 0;
    for (int n = 1; n <= 20; ++n) count += world.health("blue", n) == Health::unhealthy ? 1 : 0;
    return count;
  };
  const auto time_out = [&] {
    for (const ProbeSpec& spec : specs) {
      if (spec.address != address(99)) world.take(spec, ProbeVerdict::timeout);
    }
  };
  for (int round = 0; round < 3; ++round) time_out();
  EXPECT_EQ(unhealthy(), 2);
  const auto control = std::ranges::find(specs, address(99), &ProbeSpec::address);
  world.take(*control, ProbeVerdict::ok);
  time_out();
  EXPECT_EQ(unhealthy(), 20);
}

TEST(HealthBook, WhoFailsAgainSoonHasToProveItselfForLonger) {
  World world;
  const ProbeSpec spec = world.apply(two_groups(1))[0];
  std::int64_t now = kNow;
  const auto fall = [&] {
    for (int i = 0; i < 2; ++i) world.take(spec, ProbeVerdict::failed, now += 1000);
    EXPECT_EQ(world.health("blue", 1), Health::unhealthy);
  };
  const auto successes_until_healthy = [&] {
    int count = 0;
    while (world.health("blue", 1) != Health::healthy && count < 100) {
      world.take(spec, ProbeVerdict::ok, now += 1000);
      ++count;
    }
    return count;
  };
  world.take(spec, ProbeVerdict::ok, now);
  for (const int wanted : {5, 10, 20, 40, 40}) {
    fall();
    EXPECT_EQ(successes_until_healthy(), wanted);
  }
  now += kFlapWindowMs;
  fall();
  EXPECT_EQ(successes_until_healthy(), 5);
}

TEST(HealthBook, FlapDampingCanBeSwitchedOff) {
  World world;
  Config config = two_groups(1);
  for (TargetGroup& group : config.groups) group.health_check.flap_damping = false;
  const ProbeSpec spec = world.apply(config)[0];
  world.take(spec, ProbeVerdict::ok);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 2; ++i) world.take(spec, ProbeVerdict::failed);
    for (int i = 0; i < 4; ++i) world.take(spec, ProbeVerdict::ok);
    EXPECT_EQ(world.health("blue", 1), Health::unhealthy);
    world.take(spec, ProbeVerdict::ok);
    EXPECT_EQ(world.health("blue", 1), Health::healthy);
  }
}

TEST(HealthBook, EchoProbesAreSharedWhateverThePort) {
  World world;
  Config config = two_groups(1);
  for (TargetGroup& group : config.groups) group.health_check.protocol = ProbeProtocol::icmp;
  config.groups[1].targets[0].port = 81;
  EXPECT_EQ(world.apply(config).size(), 1U);
}

TEST(HealthBook, TargetsInTroubleAreProbedSoonerWhereTheirAnswersComeThroughLb) {
  World world;
  Config config = two_groups(2);
  config.groups[0].mode = abi::ForwardingMode::nat;
  config.groups[0].health_check.path = "/blue";
  config.groups[0].health_check.protocol = ProbeProtocol::http;
  world.apply(config);
  world.roster.settle(kNow, [](std::uint32_t) { return 0; });
  std::map<std::uint32_t, std::uint32_t> troubles;
  const auto troubled = [&] { return world.book.troubled([&](std::uint32_t id) { return troubles[id]; }); };
  const auto id_of = [&](const char* group, int n) { return world.roster.find({group, address(n), 80})->status.id; };
  troubles[id_of("blue", 1)] = 7;  // before lb-cp began to look
  EXPECT_TRUE(troubled().empty());
  EXPECT_TRUE(troubled().empty());
  troubles[id_of("blue", 2)] = 1;
  troubles[id_of("green", 1)] = 1;  // one-way mode: nothing counts there
  const auto specs = troubled();
  ASSERT_EQ(specs.size(), 1U);
  EXPECT_EQ(specs[0].address, address(2));
  EXPECT_EQ(specs[0].path, "/blue");
  EXPECT_TRUE(troubled().empty());
  world.apply(config);  // a new plan forgets nothing
  EXPECT_TRUE(troubled().empty());
  troubles[id_of("blue", 1)] = 8;
  EXPECT_EQ(troubled().size(), 1U);
}

TEST(HealthBook, TroublesAloneChangeNoHealth) {
  World world;
  Config config = two_groups(1);
  config.groups[0].mode = abi::ForwardingMode::nat;
  const auto specs = world.apply(config);
  world.take(specs[0], ProbeVerdict::ok);
  for (std::uint32_t n = 0; n < 100; ++n) world.book.troubled([&](std::uint32_t) { return n; });
  EXPECT_EQ(world.health("blue", 1), Health::healthy);
}

TEST(HealthBook, ProbeThatCannotBeMadeMakesItsTargetsUnavailableUntilTheNextOne) {
  World world;
  const ProbeSpec spec = world.apply(two_groups(1))[0];
  const auto settle = [&] { world.roster.settle(kNow, [](std::uint32_t) { return 0; }); };
  const auto status = [&] { return world.roster.find({"blue", address(1), 80})->status; };
  world.take(spec, ProbeVerdict::ok);
  settle();
  EXPECT_TRUE(world.take(spec, ProbeVerdict::not_asked));
  settle();
  EXPECT_EQ(status().state, abi::TargetState::unavailable);
  EXPECT_EQ(status().reason, StateReason::internal_error);
  EXPECT_EQ(status().detail, "words");
  EXPECT_FALSE(world.take(spec, ProbeVerdict::not_asked));
  EXPECT_TRUE(world.take(spec, ProbeVerdict::ok));
  settle();
  EXPECT_EQ(status().state, abi::TargetState::healthy);
  for (int i = 0; i < 2; ++i) world.take(spec, ProbeVerdict::failed);
  world.take(spec, ProbeVerdict::not_asked);
  settle();
  EXPECT_EQ(status().state, abi::TargetState::unhealthy);  // what is known stays
}

}  // namespace
}  // namespace lb::cp
