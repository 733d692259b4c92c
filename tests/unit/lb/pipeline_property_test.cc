// What holds for any packets in any state of the world.
#include <gtest/gtest.h>

#include <random>

#include "dp/lb/explain_flow.h"
#include "tests/unit/lb/lab.h"

namespace lb::test {
namespace {

std::vector<std::uint8_t> random_frame(std::mt19937_64& random) {
  net::FlowKey key = random() % 4 == 0 ? client6(static_cast<std::uint16_t>(random() % 40))
                                       : client(static_cast<std::uint16_t>(random() % 40));
  const std::array<std::uint16_t, 6> ports = {80, 90, 53, 1000, 1999, 81};
  key.destination_port = ports[random() % ports.size()];
  if (random() % 4 == 0) key.protocol = 17;
  if (random() % 50 == 0) key.destination.bytes[15] ^= 1;
  const std::array<std::uint8_t, 6> flags = {
      net::kTcpSyn, net::kTcpAck, net::kTcpAck, net::kTcpAck | 8, net::kTcpFin | net::kTcpAck, net::kTcpRst};
  FrameOptions options{.tcp_flags = flags[random() % flags.size()],
                       .payload_bytes = random() % 20 == 0 ? 1600U : static_cast<std::uint32_t>(random() % 100),
                       .ttl = static_cast<std::uint8_t>(random() % 30 == 0 ? 1 : 64),
                       .dont_fragment = random() % 2 == 0};
  std::vector<std::uint8_t> frame(2000);
  frame.resize(test::write_frame(frame.data(), key, options));
  if (random() % 10 == 0) frame.resize(random() % (frame.size() + 1));
  for (std::uint64_t n = random() % 20 == 0 ? random() % 4 : 0; n > 0 && !frame.empty(); --n) {
    frame[random() % std::min<std::size_t>(frame.size(), 60)] = static_cast<std::uint8_t>(random());
  }
  return frame;
}

void disturb(Lab& lab, std::mt19937_64& random) {
  abi::Target& target = lab.world.targets[random() % lab.world.targets.size()];
  switch (random() % 5) {
    case 0: target.tracked = static_cast<abi::TrackedFlows>(random() % 3); break;
    case 1: target.flags ^= abi::kTargetNoNewFlows; break;
    case 2: target.flags ^= abi::kTargetResolved; break;
    case 3: target.flags ^= abi::kTargetLive; break;
    default: target.state = static_cast<abi::TargetState>(random() % abi::kTargetStateCount);
  }
  lab.apply();
}

TEST(PipelineProperty, EveryPacketEndsOnceAndEveryBuildAgreesBitForBit) {
  std::vector<std::unique_ptr<Lab>> labs;
  for (const Kernel* kernel : kernels()) {
    if (kernel->supported()) labs.push_back(std::make_unique<Lab>(12, *kernel));
  }
  for (std::uint64_t round = 0; round < 3000; ++round) {
    for (auto& lab : labs) {
      std::mt19937_64 random(round);  // the same for every lab
      lab->now_ns += random() % (3 * kSecond);
      if (random() % 40 == 0) lab->now_ns += random() % (800 * kSecond);
      if (random() % 10 == 0) disturb(*lab, random);
      lab->packets.clear();
      for (std::uint64_t n = random() % (kBurst + 1); n > 0; --n) lab->packets.add(random_frame(random));
      lab->run();
      if (random() % 5 == 0) lab->pipeline->age(*lab->snapshot, 3, lab->now_ns);
    }
    Lab& one = *labs[0];
    one.check_accounting();
    for (auto& lab : labs) {
      ASSERT_EQ(lab->packets.burst.verdict, one.packets.burst.verdict);
      ASSERT_EQ(lab->packets.burst.reason, one.packets.burst.reason);
      ASSERT_EQ(lab->packets.burst.target, one.packets.burst.target);
      ASSERT_EQ(lab->packets.burst.flow, one.packets.burst.flow);
      for (std::uint32_t i = 0; i < one.packets.burst.count; ++i) ASSERT_EQ(lab->packets.frame(i), one.packets.frame(i));
      ASSERT_EQ(lab->stats.counters, one.stats.counters);
      ASSERT_EQ(lab->extra.frames, one.extra.frames);
      ASSERT_EQ(std::memcmp(lab->memory.data(), one.memory.data(), one.memory.size() * sizeof(abi::FlowLine)), 0);
    }
  }
  // The run has met what it was to test.
  for (const Counter c :
       {Counter::flow_hits, Counter::flow_new, Counter::flow_untracked, Counter::flow_evicted, Counter::flow_expired,
        Counter::flow_rehashed, Counter::flow_reset, Counter::flow_moved_lines, Counter::originated_rst,
        Counter::originated_icmp, Counter::punted_packets, Counter::drop_no_target, Counter::drop_truncated,
        Counter::drop_ttl_expired, Counter::drop_next_hop_unresolved}) {
    EXPECT_GT(labs[0]->counter(c), 0U) << abi::kCounters[static_cast<std::size_t>(c)].name;
  }
}

// What explain_flow says before a packet is what the pipeline then does.
TEST(PipelineProperty, ExplainFlowSaysWhatThePipelineDoes) {
  Lab lab;
  std::mt19937_64 random(11);
  for (int round = 0; round < 20'000; ++round) {
    if (random() % 30 == 0) disturb(lab, random);
    if (random() % 50 == 0) lab.now_ns += random() % (400 * kSecond);
    net::FlowKey key = random() % 4 == 0 ? client6(static_cast<std::uint16_t>(random() % 100))
                                         : client(static_cast<std::uint16_t>(random() % 100));
    const std::array<std::uint16_t, 4> ports = {80, 90, 53, 1500};
    key.destination_port = ports[random() % ports.size()];
    if (random() % 4 == 0) key.protocol = 17;
    const std::array<std::uint8_t, 4> all_flags = {net::kTcpSyn, net::kTcpAck, net::kTcpFin | net::kTcpAck, net::kTcpRst};
    const std::uint8_t flags = all_flags[random() % all_flags.size()];
    const FlowDecision said = explain_flow(*lab.snapshot, key, lab.entry(key), &kSecret, flags);
    const Burst& burst = lab.send(key, flags);
    ASSERT_EQ(burst.verdict[0], said.verdict) << round;
    ASSERT_EQ(burst.reason[0], said.reason) << round;
    ASSERT_EQ(burst.listener[0], said.listener);
    ASSERT_EQ(burst.group[0], said.group);
    ASSERT_EQ(burst.target[0], said.target);
    if (said.verdict != Verdict::tx) continue;
    ASSERT_EQ(burst.flow[0], said.flow);
    if (said.outer_source && said.outer_source->is_v4()) {
      ASSERT_EQ(std::memcmp(lab.packets.frame(0).data() + 26, said.outer_source->bytes.data() + 12, 4), 0);
    }
  }
}

}  // namespace
}  // namespace lb::test
