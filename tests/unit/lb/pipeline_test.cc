#include "dp/lb/pipeline.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/unit/lb/lab.h"

namespace lb::test {
namespace {

TEST(Pipeline, TheFirstPacketIsNewTheNextIsAHitOnTheSameTarget) {
  Lab lab;
  Burst& burst = lab.send(client(1), net::kTcpSyn);
  EXPECT_EQ(burst.verdict[0], Verdict::tx);
  EXPECT_EQ(burst.flow[0], FlowResult::fresh);
  EXPECT_EQ(burst.listener[0], lab.tcp80);
  EXPECT_EQ(burst.group[0], lab.blue);
  EXPECT_EQ(burst.target[0], burst.slot[0] % 4);
  EXPECT_EQ(burst.out_port[0], 1);
  const std::uint32_t target = burst.target[0];
  lab.send(client(1), net::kTcpAck);
  EXPECT_EQ(burst.flow[0], FlowResult::hit);
  EXPECT_EQ(burst.target[0], target);
  EXPECT_EQ(burst.slot[0], abi::kNoIndex);
  EXPECT_EQ(lab.entry(client(1))->state, FlowState::assumed);
  EXPECT_EQ(lab.counter(Counter::flow_new), 1U);
  EXPECT_EQ(lab.counter(Counter::flow_hits), 1U);
  EXPECT_EQ(lab.listener_stats[lab.tcp80].packets, 2U);
  EXPECT_EQ(lab.listener_stats[lab.tcp80].bytes, 2U * 54);
  EXPECT_EQ(lab.listener_stats[lab.tcp80].new_flows, 1U);
  lab.check_accounting();
}

TEST(Pipeline, PacketsOfOneNewFlowInOneBurstShareItsEntry) {
  Lab lab;
  lab.packets.clear();
  lab.packets.add(client(1), {.tcp_flags = net::kTcpSyn});
  for (int i = 0; i < 5; ++i) lab.packets.add(client(1));
  lab.run();
  EXPECT_EQ(lab.packets.burst.flow[0], FlowResult::fresh);
  for (std::uint32_t i = 1; i < 6; ++i) EXPECT_EQ(lab.packets.burst.flow[i], FlowResult::hit);
  EXPECT_EQ(lab.table.flows(), 1U);
  lab.check_accounting();
}

TEST(Pipeline, EncapsulatesInAllFourFamilyCombinations) {
  Lab lab;
  // 4in4
  lab.send(client(1));
  auto out = lab.packets.frame(0);
  ASSERT_EQ(out.size(), 54U + 20);
  EXPECT_EQ(out[14], 0x45);
  EXPECT_EQ(out[14 + 9], 4);
  EXPECT_EQ(net::checksum_fold(net::ipv4_header_sum(out.data() + 14)), 0xffff);
  EXPECT_EQ(net::checksum_fold(net::ipv4_header_sum(out.data() + 34)), 0xffff);
  EXPECT_EQ(out[34 + 8], 63);    // inner TTL one less (RFC 2003)
  EXPECT_EQ(out[14 + 12], 100);  // source from the tunnel prefix
  EXPECT_EQ(out[14 + 19], lab.packets.burst.target[0]);
  // 6in4
  lab.send(client6(1));
  out = lab.packets.frame(0);
  ASSERT_EQ(out.size(), 74U + 20);
  EXPECT_EQ(out[14 + 9], 41);
  // 4in6
  lab.send(client(1, 1500));
  out = lab.packets.frame(0);
  ASSERT_EQ(out.size(), 54U + 40);
  EXPECT_EQ(out[14] >> 4, 6);
  EXPECT_EQ(out[14 + 6], 4);
  EXPECT_EQ(out[14 + 8], 0xfc);
  // 6in6
  lab.world.listeners[lab.six80].groups[0].group = lab.violet;
  lab.apply();
  lab.send(client6(2));
  out = lab.packets.frame(0);
  ASSERT_EQ(out.size(), 74U + 40);
  EXPECT_EQ(out[14 + 6], 41);
  lab.check_accounting();
}

TEST(Pipeline, L2dsrChangesNothingButTheMacs) {
  Lab lab;
  std::vector<std::uint8_t> before(128);
  before.resize(test::write_frame(before.data(), client(1, 90)));
  lab.send(client(1, 90));
  const auto out = lab.packets.frame(0);
  ASSERT_EQ(out.size(), before.size());
  EXPECT_TRUE(std::equal(out.begin() + 12, out.end(), before.begin() + 12));
  EXPECT_TRUE(std::equal(out.begin(), out.begin() + 6, lab.target(lab.packets.burst.target[0]).next_hop_mac.begin()));
}

TEST(Pipeline, WhatIsNotForAListenerIsPuntedOrDroppedByName) {
  Lab lab;
  net::FlowKey elsewhere = client(1);
  elsewhere.destination = abi::IpAddress::v4(192, 0, 2, 99);
  EXPECT_EQ(lab.send(elsewhere).verdict[0], Verdict::punt);
  EXPECT_EQ(lab.send(client(1, 81)).reason[0], DropReason::no_listener);
  EXPECT_EQ(lab.send(client(1, 80, abi::Protocol::udp)).reason[0], DropReason::no_listener);
  EXPECT_EQ(lab.send(client(1, 2001)).reason[0], DropReason::no_listener);
  EXPECT_EQ(lab.send(client(1, 2000)).verdict[0], Verdict::tx);
  EXPECT_EQ(lab.send(client(1), FrameOptions{.ttl = 1}).reason[0], DropReason::ttl_expired);
  net::FlowKey land = client(1);
  land.source = kVip4;
  EXPECT_EQ(lab.send(land).reason[0], DropReason::land);
  std::vector<std::uint8_t> arp(60, 0);
  arp[12] = 8;
  arp[13] = 6;
  lab.packets.clear();
  lab.packets.add(arp);
  std::vector<std::uint8_t> icmp(128);
  icmp.resize(test::write_frame(icmp.data(), client(1)));
  icmp[14 + 9] = 1;
  store(icmp.data() + 24, std::uint16_t{0});
  store(icmp.data() + 24, net::checksum_finish(net::ipv4_header_sum(icmp.data() + 14)));
  lab.packets.add(icmp);
  std::vector<std::uint8_t> gre = icmp;
  gre[14 + 9] = 47;
  store(gre.data() + 24, std::uint16_t{0});
  store(gre.data() + 24, net::checksum_finish(net::ipv4_header_sum(gre.data() + 14)));
  lab.packets.add(gre);
  lab.packets.add(std::vector<std::uint8_t>(10, 0));
  lab.run();
  EXPECT_EQ(lab.packets.burst.verdict[0], Verdict::punt);
  EXPECT_EQ(lab.packets.burst.verdict[1], Verdict::punt);
  EXPECT_EQ(lab.packets.burst.reason[2], DropReason::no_listener);
  EXPECT_EQ(lab.packets.burst.reason[3], DropReason::truncated);
  lab.check_accounting();
}

TEST(Pipeline, WithoutAKernelWhatWouldBePuntedIsDroppedByName) {
  Lab lab;
  Pipeline alone(
      {.flows = &lab.table, .stats = &lab.stats, .listener_stats = lab.listener_stats.data(), .punt_enabled = false});
  net::FlowKey elsewhere = client(1);
  elsewhere.destination = abi::IpAddress::v4(192, 0, 2, 99);
  lab.packets.clear();
  lab.packets.add(elsewhere);
  lab.packets.add(std::vector<std::uint8_t>(60, 0));
  alone.process(*lab.snapshot, lab.packets.burst, lab.now_ns);
  EXPECT_EQ(lab.packets.burst.reason[0], DropReason::punt_failed);
  EXPECT_EQ(lab.packets.burst.reason[1], DropReason::not_ip);
  lab.check_accounting();
}

TEST(Pipeline, SharesOfWeightedGroupsAreKept) {
  Lab lab(4096);
  lab.world.listeners[lab.tcp80].groups[0] = {lab.blue, 3};
  lab.world.listeners[lab.tcp80].groups[1] = {lab.green, 4};
  lab.world.listeners[lab.tcp80].group_count = 2;
  lab.world.listeners[lab.tcp80].total_weight = 4;
  lab.apply();
  std::map<std::uint32_t, int> flows;
  for (std::uint16_t port = 0; port < 8000; ++port) ++flows[lab.send(client(port)).group[0]];
  EXPECT_NEAR(flows[lab.blue], 6000, 200);
  EXPECT_NEAR(flows[lab.green], 2000, 200);
}

TEST(Pipeline, StickyClientsKeepTheirTarget) {
  Lab lab;
  lab.world.groups[lab.blue].stickiness = abi::Stickiness::source_ip;
  lab.apply();
  const std::uint32_t target = lab.send(client(1)).target[0];
  for (std::uint16_t port = 2; port < 50; ++port) EXPECT_EQ(lab.send(client(port)).target[0], target);
  net::FlowKey other = client(1);
  std::map<std::uint32_t, int> seen;
  for (std::uint8_t host = 0; host < 50; ++host) {
    other.source.bytes[15] = host;
    ++seen[lab.send(other).target[0]];
  }
  EXPECT_EQ(seen.size(), 4U);
}

// ---- fates

struct Fates : ::testing::Test {
  // An established flow; returns its target.
  std::uint32_t establish(const net::FlowKey& key) {
    lab.send(key, net::kTcpSyn);
    return lab.send(key, net::kTcpAck).target[0];
  }
  Lab lab;
  Burst& burst = lab.packets.burst;
};

TEST_F(Fates, TrackedFlowsStayWhenTheTableChanges) {
  const std::uint32_t target = establish(client(1));
  lab.world.add_target(lab.blue, abi::IpAddress::v4(10, 0, 0, 200));
  lab.world.groups[lab.blue].slot_count = 103;
  lab.apply();
  EXPECT_EQ(lab.send(client(1)).target[0], target);
  EXPECT_EQ(burst.flow[0], FlowResult::hit);
}

TEST_F(Fates, ADrainingTargetKeepsItsFlowsAndGetsNoNewOnes) {
  const std::uint32_t target = establish(client(1));
  lab.target(target).flags |= abi::kTargetNoNewFlows;
  lab.target(target).state = abi::TargetState::draining;
  lab.apply();
  EXPECT_EQ(lab.send(client(1)).target[0], target);
  EXPECT_EQ(lab.send(client(1), net::kTcpSyn).target[0], target) << "a SYN on a live entry keeps its target";
  for (std::uint16_t port = 100; port < 200; ++port) EXPECT_NE(lab.send(client(port), net::kTcpSyn).target[0], target);
  lab.send(client(1), net::kTcpFin | net::kTcpAck);
  EXPECT_EQ(burst.target[0], target) << "the download goes on after the client's FIN";
  EXPECT_EQ(lab.entry(client(1))->state, FlowState::closing);
  EXPECT_NE(lab.send(client(1), net::kTcpSyn).target[0], target) << "a SYN on a closing entry is picked again";
  EXPECT_EQ(burst.flow[0], FlowResult::fresh);
  lab.check_accounting();
}

TEST_F(Fates, FlowsOfATargetToBeResetAreResetAtBothEnds) {
  const std::uint32_t target = establish(client(1));
  lab.target(target).tracked = abi::TrackedFlows::reset;
  lab.target(target).flags |= abi::kTargetNoNewFlows;
  lab.target(target).state = abi::TargetState::unhealthy;
  lab.apply();
  lab.send(client(1));
  EXPECT_EQ(burst.verdict[0], Verdict::answer);
  EXPECT_EQ(burst.reason[0], DropReason::answered_rst);
  EXPECT_EQ(burst.out_port[0], burst.in_port[0]);
  const auto answer = lab.packets.frame(0);
  const auto to_client = parsed(answer);
  EXPECT_EQ(to_client.tcp_flags & net::kTcpRst, net::kTcpRst);
  EXPECT_EQ(to_client.key.destination, client(1).source);
  EXPECT_EQ(load_be32(answer.data() + to_client.l4_offset + net::kTcpSequenceAt), 0x2000U);
  ASSERT_EQ(lab.extra.frames.size(), 1U);
  EXPECT_EQ(lab.extra.ports[0], 1);
  EXPECT_EQ(lab.extra.frames[0][14 + 9], 4) << "the target's reset is encapsulated as its packets are";
  EXPECT_EQ(load_be32(lab.extra.frames[0].data() + 34 + 20 + net::kTcpSequenceAt), 0x1000U);
  EXPECT_EQ(lab.counter(Counter::originated_rst), 2U);
  EXPECT_EQ(lab.counter(Counter::flow_reset), 1U);
  EXPECT_EQ(lab.send(client(1)).reason[0], DropReason::answered_rst) << "again for later packets";
  EXPECT_EQ(lab.counter(Counter::flow_reset), 1U);
  EXPECT_EQ(lab.send(client(1), net::kTcpRst).verdict[0], Verdict::tx) << "a reset is never answered with a reset";
  EXPECT_NE(lab.send(client(1), net::kTcpSyn).target[0], target);
  EXPECT_EQ(burst.flow[0], FlowResult::fresh);
  lab.check_accounting();
}

TEST_F(Fates, ResetsAreRateLimited) {
  Pipeline limited(
      {.flows = &lab.table, .stats = &lab.stats, .listener_stats = lab.listener_stats.data(), .resets_per_second = 20});
  for (std::uint16_t port = 0; port < 10; ++port) establish(client(port));
  for (std::uint32_t id = 0; id < 4; ++id) lab.target(id).tracked = abi::TrackedFlows::reset;
  lab.apply();
  lab.packets.clear();
  for (std::uint16_t port = 0; port < 10; ++port) lab.packets.add(client(port));
  limited.process(*lab.snapshot, burst, lab.now_ns);
  EXPECT_EQ(lab.dropped(DropReason::answered_rst), 2U);
  EXPECT_EQ(lab.dropped(DropReason::reset_rate_limited), 8U);
  lab.check_accounting();
}

TEST_F(Fates, FlowsToBeRehashedGoByThePresentTable) {
  const std::uint32_t target = establish(client(1));
  lab.target(target).tracked = abi::TrackedFlows::rehash;
  lab.target(target).flags |= abi::kTargetNoNewFlows;
  lab.apply();
  lab.send(client(1));
  EXPECT_EQ(burst.verdict[0], Verdict::tx);
  EXPECT_NE(burst.target[0], target);
  EXPECT_EQ(lab.counter(Counter::flow_rehashed), 1U);
  const std::uint32_t now = burst.target[0];
  lab.target(target).tracked = abi::TrackedFlows::keep;
  lab.apply();
  EXPECT_EQ(lab.send(client(1)).target[0], now);
  EXPECT_EQ(burst.flow[0], FlowResult::hit);
  lab.check_accounting();
}

TEST_F(Fates, UdpFlowsOfATargetToBeResetAreRehashed) {
  const auto key = client(1, 53, abi::Protocol::udp);
  lab.send(key);
  const std::uint32_t target = lab.send(key).target[0];
  EXPECT_EQ(lab.entry(key)->state, FlowState::udp);
  lab.target(target).tracked = abi::TrackedFlows::reset;
  lab.target(target).flags |= abi::kTargetNoNewFlows;
  lab.apply();
  EXPECT_NE(lab.send(key).target[0], target);
  EXPECT_EQ(burst.verdict[0], Verdict::tx);
}

TEST_F(Fates, ATargetThatIsGoneIsNeverUsed) {
  const std::uint32_t target = establish(client(1));
  lab.target(target).flags = 0;
  lab.apply();
  EXPECT_NE(lab.send(client(1)).target[0], target);
  EXPECT_EQ(burst.flow[0], FlowResult::fresh);
  EXPECT_EQ(lab.target_flows[target], 0U);
}

TEST_F(Fates, ATargetOfAnotherListenersGroupIsNeverUsed) {
  const std::uint32_t target = establish(client(1));
  lab.world.listeners[lab.tcp80].groups[0].group = lab.green;
  lab.apply();
  EXPECT_NE(lab.send(client(1)).target[0], target);
  EXPECT_EQ(burst.group[0], lab.green);
}

TEST_F(Fates, ALatePacketIsResetOnceAndThenTakenForNew) {
  establish(client(1));
  lab.now_ns += 351 * kSecond;
  lab.sweep();
  EXPECT_EQ(lab.send(client(1)).reason[0], DropReason::answered_rst);
  EXPECT_EQ(lab.counter(Counter::flow_expired), 1U);
  EXPECT_EQ(lab.send(client(1)).verdict[0], Verdict::tx);
  EXPECT_EQ(burst.flow[0], FlowResult::fresh);
  lab.check_accounting();
}

TEST_F(Fates, ASynOnAnExpiredEntryIsANewFlow) {
  establish(client(1));
  lab.now_ns += 351 * kSecond;
  EXPECT_EQ(lab.send(client(1), net::kTcpSyn).verdict[0], Verdict::tx);
  EXPECT_EQ(burst.flow[0], FlowResult::fresh);
}

TEST_F(Fates, AFlowThatTalksNeverExpires) {
  const std::uint32_t target = establish(client(1));
  for (int i = 0; i < 100; ++i) {
    lab.now_ns += 349 * kSecond;
    lab.sweep();
    EXPECT_EQ(lab.send(client(1)).target[0], target);
    EXPECT_EQ(burst.flow[0], FlowResult::hit);
  }
}

TEST_F(Fates, AUdpFlowExpiresAndTheNextPacketIsANewOne) {
  const auto key = client(1, 53, abi::Protocol::udp);
  lab.send(key);
  lab.send(key);
  lab.now_ns += 119 * kSecond;
  EXPECT_EQ(lab.send(key).flow[0], FlowResult::hit);
  lab.now_ns += 121 * kSecond;
  EXPECT_EQ(lab.send(key).flow[0], FlowResult::fresh);
}

TEST_F(Fates, TheSweepTakesOutWhatIsOverAndNothingElse) {
  establish(client(1));
  lab.send(client(2), net::kTcpSyn);
  establish(client(3));
  lab.send(client(3), net::kTcpRst);
  EXPECT_EQ(lab.entry(client(3))->state, FlowState::short_lived);
  lab.now_ns += 9 * kSecond;
  lab.sweep();
  EXPECT_EQ(lab.table.flows(), 3U);
  lab.now_ns += 2 * kSecond;
  lab.sweep();
  EXPECT_FALSE(lab.entry(client(3))) << "10 s after the client's reset";
  lab.now_ns += 20 * kSecond;
  lab.sweep();
  EXPECT_FALSE(lab.entry(client(2))) << "30 s after a SYN alone";
  EXPECT_TRUE(lab.entry(client(1)));
  lab.now_ns += 700 * kSecond;
  lab.sweep();
  EXPECT_EQ(lab.table.flows(), 0U);
  lab.check_accounting();
}

TEST_F(Fates, TheSweepFreesTheIdsOfTargetsThatAreGone) {
  const std::uint32_t target = establish(client(1));
  lab.target(target).flags = 0;
  lab.apply();
  lab.now_ns += 10 * kSecond;
  lab.sweep();
  EXPECT_EQ(lab.target_flows[target], 0U);
  EXPECT_EQ(lab.table.flows(), 0U);
}

TEST_F(Fates, ADrainingListenerServesItsFlowsAndNoOthers) {
  const std::uint32_t target = establish(client(1));
  lab.world.listeners[lab.tcp80].draining = 1;
  lab.apply();
  EXPECT_EQ(lab.send(client(1)).target[0], target);
  EXPECT_EQ(lab.send(client(2)).reason[0], DropReason::listener_draining);
  EXPECT_EQ(lab.send(client(2), net::kTcpSyn).reason[0], DropReason::listener_draining);
}

TEST_F(Fates, WithoutTargetsNextHopOrTunnelSourceAPacketIsDroppedByName) {
  for (std::uint32_t id = 0; id < 4; ++id) lab.target(id).flags = abi::kTargetLive;
  lab.apply();
  EXPECT_EQ(lab.send(client(1)).reason[0], DropReason::next_hop_unresolved);
  EXPECT_EQ(lab.table.flows(), 0U);
  for (std::uint32_t id = 0; id < 4; ++id) lab.target(id).flags = abi::kTargetLive | abi::kTargetNoNewFlows;
  lab.apply();
  EXPECT_EQ(lab.send(client(1)).reason[0], DropReason::no_target);
  for (std::uint32_t id = 0; id < 4; ++id) lab.target(id).flags = abi::kTargetLive | abi::kTargetResolved;
  lab.world.tunnel_v4.present = 0;
  lab.apply();
  EXPECT_EQ(lab.send(client(1)).reason[0], DropReason::no_tunnel_source);
  lab.check_accounting();
}

TEST_F(Fates, APacketTooBigIsAnsweredIfItMayNotBeFragmented) {
  for (auto& target : lab.world.targets) target.mtu_bytes = 1500;
  lab.apply();
  EXPECT_EQ(lab.send(client(1), FrameOptions{.payload_bytes = 1440}).verdict[0], Verdict::tx);  // 1480 + 20
  lab.send(client(1), FrameOptions{.payload_bytes = 1441});
  EXPECT_EQ(burst.verdict[0], Verdict::answer);
  EXPECT_EQ(burst.reason[0], DropReason::answered_icmp);
  const auto answer = lab.packets.frame(0);
  EXPECT_EQ(answer[34], 3);
  EXPECT_EQ(answer[35], 4);
  EXPECT_EQ(load_be16(answer.data() + 40), 1480);
  lab.send(client(1), FrameOptions{.payload_bytes = 1441, .dont_fragment = false});
  EXPECT_EQ(burst.reason[0], DropReason::too_big);
  EXPECT_EQ(lab.send(client6(1), FrameOptions{.payload_bytes = 1430}).reason[0], DropReason::answered_icmp);
  EXPECT_EQ(lab.counter(Counter::originated_icmp), 2U);
  lab.check_accounting();
}

TEST(Pipeline, AFullTableForwardsByHashAndCounts) {
  Lab lab(2);
  std::map<std::uint16_t, std::uint32_t> first;
  for (std::uint16_t port = 0; port < 100; ++port) {
    lab.send(client(port), net::kTcpSyn);
    first[port] = lab.send(client(port)).target[0];
  }
  EXPECT_EQ(lab.table.flows(), 10U);
  EXPECT_GT(lab.counter(Counter::flow_untracked), 100U);
  for (std::uint16_t port = 0; port < 100; ++port) EXPECT_EQ(lab.send(client(port)).target[0], first[port]);
  EXPECT_EQ(lab.packets.burst.verdict[0], Verdict::tx);
  lab.check_accounting();
}

TEST(Pipeline, ASynFloodCostsNoProvenFlowItsEntry) {
  Lab lab(64);
  for (std::uint16_t port = 0; port < 200; ++port) {
    lab.send(client(port), net::kTcpSyn);
    lab.send(client(port));
  }
  for (std::uint32_t n = 0; n < 20'000; ++n) {
    net::FlowKey key = client(static_cast<std::uint16_t>(n));
    key.source = abi::IpAddress::v4(203, 0, 113, static_cast<std::uint8_t>(n >> 8));
    lab.send(key, net::kTcpSyn);
  }
  for (std::uint16_t port = 0; port < 200; ++port) EXPECT_EQ(lab.send(client(port)).flow[0], FlowResult::hit) << port;
  EXPECT_GT(lab.counter(Counter::flow_evicted), 0U);
  lab.check_accounting();
}

}  // namespace
}  // namespace lb::test
