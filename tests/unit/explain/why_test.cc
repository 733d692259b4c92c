// `why` against the packet path itself: what it says about a flow is what Pipeline::process then does with its next packet.
#include "cp/explain/why.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <map>
#include <string>

#include "cp/explain/counters.h"
#include "tests/unit/explain/why_lab.h"

namespace lb::cp::explain {
namespace {

std::map<std::string, int> g_seen;  // what the random flows met

// In [low, high), evenly from the first case on: rapidcheck's own ranges start small.
std::uint32_t any_of(std::uint32_t low, std::uint32_t high) {
  return *rc::gen::resize(rc::kNominalSize, rc::gen::inRange(low, high));
}

// Two VIPs, a listener on a port and one on a range for each protocol, up to three groups of up to four targets.
test::World random_world() {
  test::World world;
  const std::uint32_t v4 = world.add_vip(address("192.0.2.10"));
  const std::uint32_t v6 = world.add_vip(address("2001:db8::10"));
  const auto group_count = any_of(1, 4);
  std::vector<std::pair<std::uint32_t, std::uint32_t>> shares;
  for (std::uint32_t g = 0; g < group_count; ++g) {
    const auto mode = *rc::gen::element(abi::ForwardingMode::l2dsr, abi::ForwardingMode::ipip, abi::ForwardingMode::gue,
                                        abi::ForwardingMode::gre);
    const auto stickiness = static_cast<abi::Stickiness>(any_of(0, 4));
    const std::uint32_t group = world.add_group(mode, 13, stickiness);
    const auto targets = any_of(0, 5);
    for (std::uint32_t t = 0; t < targets; ++t) {
      const auto last = static_cast<std::uint8_t>(10 * g + t + 1);
      const bool over_v6 = mode != abi::ForwardingMode::l2dsr && *rc::gen::arbitrary<bool>();
      world.add_target(group, over_v6 ? abi::IpAddress{{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last}}
                                      : abi::IpAddress::v4(10, 77, 2, last));
    }
    shares.emplace_back(group, any_of(0, 3));
  }
  for (const std::uint32_t vip : {v4, v6}) {
    world.add_listener(vip, abi::Protocol::tcp, 80, 80, shares);
    world.add_listener(vip, abi::Protocol::tcp, 8000, 8999, {shares.front()});
    world.add_listener(vip, abi::Protocol::udp, 0, 65535, shares);
  }
  if (any_of(0, 4) == 0) world.tunnel_v6.present = 0;
  return world;
}

// What lb-cp may change between two generations.
void change(test::World& world) {
  world.generation.n++;
  for (abi::Target& target : world.targets) {
    switch (any_of(0, 7)) {
      case 0:
        target.state = abi::TargetState::draining;
        target.flags |= abi::kTargetNoNewFlows;
        break;
      case 1:
        target.state = abi::TargetState::unhealthy;
        target.flags |= abi::kTargetNoNewFlows;
        target.tracked = *rc::gen::element(abi::TrackedFlows::keep, abi::TrackedFlows::reset, abi::TrackedFlows::rehash);
        break;
      case 2: target.flags = 0; break;
      case 3: target.flags &= static_cast<std::uint8_t>(~abi::kTargetResolved); break;
      default: break;
    }
  }
  for (abi::Listener& listener : world.listeners) {
    if (any_of(0, 6) == 0) listener.draining = 1;
  }
}

net::FlowKey random_flow() {
  const bool v6 = *rc::gen::arbitrary<bool>();
  const auto last = static_cast<std::uint8_t>(any_of(1, 3));
  const abi::IpAddress source = v6 ? abi::IpAddress{{0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, last}}
                                   : abi::IpAddress::v4(198, 51, 100, last);
  const auto protocol = *rc::gen::element(abi::Protocol::tcp, abi::Protocol::udp);
  const auto port = *rc::gen::element<std::uint16_t>(80, 8080, 53, 9999);
  const bool to_vip = any_of(0, 10) != 0;
  const abi::IpAddress destination =
      v6 ? address(to_vip ? "2001:db8::10" : "2001:db8::11") : address(to_vip ? "192.0.2.10" : "192.0.2.11");
  return flow(protocol, source, static_cast<std::uint16_t>(any_of(1000, 1002)), destination, port);
}

abi::IpAddress outer_source_of(const Burst& burst) {
  abi::IpAddress source = abi::IpAddress::v4(0, 0, 0, 0);
  const std::uint8_t* ip = burst.data[0] + 14;
  if (ip[0] >> 4 == 4) {
    std::copy_n(ip + 12, 4, source.bytes.begin() + 12);
  } else {
    std::copy_n(ip + 8, 16, source.bytes.begin());
  }
  return source;
}

void expect_agreement(const Snapshot& snapshot, const Worker& worker, const net::FlowKey& key, std::uint64_t now_ns) {
  Context context;
  context.snapshot = std::shared_ptr<const Snapshot>(std::shared_ptr<void>(), &snapshot);
  context.worker_tables = {worker.lines()};
  context.secret = kSecret;
  const Answer answer = why(context, key, now_ns);

  Worker copy(worker.lines());
  Frame frame = make_frame(key, answer.entry ? net::kTcpAck : net::kTcpSyn);
  const Burst burst = copy.send(snapshot, frame, now_ns);
  const Verdict verdict = burst.verdict[0];
  ++g_seen[answer.flow + " " + answer.verdict + " " + answer.reason];
  RC_ASSERT(answer.verdict == (verdict == Verdict::tx ? "tx" : verdict == Verdict::punt ? "punt" : "drop"));
  RC_ASSERT(answer.reason == abi::to_string(burst.reason[0]));
  RC_ASSERT(answer.listener.value_or(abi::kNoIndex) == burst.listener[0]);
  RC_ASSERT(!answer.explanation.empty());
  RC_ASSERT(!answer.steps.empty());
  const FlowResult result = burst.flow[0];
  RC_ASSERT(answer.flow == (result == FlowResult::hit ? "hit" : result == FlowResult::fresh ? "new" : "none"));
  if (verdict != Verdict::tx) return;
  RC_ASSERT(answer.group.value() == burst.group[0]);
  RC_ASSERT(answer.target.value() == burst.target[0]);
  if (result == FlowResult::fresh) RC_ASSERT(answer.slot.value() == burst.slot[0]);
  if (answer.outer_source) RC_ASSERT(*answer.outer_source == outer_source_of(burst));
  RC_ASSERT(answer.outer_source.has_value() == (snapshot.targets()[burst.target[0]].mode != abi::ForwardingMode::l2dsr));
  const bool elsewhere = result == FlowResult::hit && answer.slot_target && *answer.slot_target != burst.target[0];
  RC_ASSERT(answer.pinned_elsewhere == elsewhere);
  RC_ASSERT(answer.pinned_because.empty() != elsewhere);
}

const std::vector<std::uint8_t> kFlags = {net::kTcpSyn, net::kTcpAck, net::kTcpAck, net::kTcpAck | net::kTcpFin,
                                          net::kTcpRst};

void check_random_world() {
  test::World world = random_world();
  Worker worker;
  std::uint64_t now_ns = 1000 * kSecondNs;
  {
    const auto before = test::make_snapshot(world);
    const auto packets = any_of(0, 80);
    for (std::uint32_t i = 0; i < packets; ++i) {
      const auto flags = *rc::gen::elementOf(kFlags);
      Frame frame = make_frame(random_flow(), flags);
      worker.send(*before, frame, now_ns);
      now_ns += kSecondNs / 10;
    }
  }
  if (*rc::gen::arbitrary<bool>()) change(world);
  now_ns += *rc::gen::element<std::uint64_t>(0, 1, 20, 200, 400) * kSecondNs;
  const auto after = test::make_snapshot(world);
  for (int i = 0; i < 100; ++i) expect_agreement(*after, worker, random_flow(), now_ns);
}

TEST(Why, SaysWhatThePacketPathDoes) {
  g_seen.clear();
  EXPECT_TRUE(rc::check(check_random_world));
  // What the random flows never met would not have been checked.
  for (const char* fate : {"hit tx ", "new tx ", "none punt ", "hit drop answered_rst", "none drop no_listener",
                           "none drop no_target", "none drop listener_draining", "none drop next_hop_unresolved"}) {
    EXPECT_GT(g_seen[fate], 0) << fate;
  }
}

TEST_F(WhyTest, WithoutASnapshotNothingIsForwarded) {
  const Answer answer = why(Context{}, key_, kNow);
  EXPECT_EQ(answer.verdict, "drop");
  EXPECT_EQ(answer.reason, "no_snapshot");
  EXPECT_EQ(answer.flow, "none");
}

TEST_F(WhyTest, TheOuterHeaderOfATunnelIsShown) {
  world_.groups[blue_].mode = abi::ForwardingMode::gue;
  for (abi::Target& target : world_.targets) {
    target.mode = abi::ForwardingMode::gue;
    target.tunnel_word = 9886;
  }
  Worker worker;
  Answer answer = ask({&worker});
  EXPECT_NE(answer.steps.back().find("gue: outer source 100.64.0."), std::string::npos) << text_of(answer);
  EXPECT_NE(answer.steps.back().find(", UDP destination port 9886, UDP checksum 0, 32 bytes more"), std::string::npos);
  world_.groups[blue_].mode = abi::ForwardingMode::gre;
  for (abi::Target& target : world_.targets) {
    target.mode = abi::ForwardingMode::gre;
    target.tunnel_flags = abi::kTunnelKeyed;
  }
  answer = ask({&worker});
  EXPECT_NE(answer.steps.back().find(", key 9886, 28 bytes more"), std::string::npos) << text_of(answer);
}

TEST_F(WhyTest, NewFlowNamesSlotTargetNextHopAndOuterSource) {
  Worker worker;
  const Answer answer = ask({&worker});
  EXPECT_EQ(answer.verdict, "tx");
  EXPECT_EQ(answer.flow, "new");
  EXPECT_FALSE(answer.worker);
  ASSERT_TRUE(answer.slot && answer.target);
  EXPECT_EQ(answer.target, answer.slot_target);
  EXPECT_EQ(*answer.target, *answer.slot % 3);
  const std::string target = "10.77.2." + std::to_string(*answer.target + 1) + ":80";
  EXPECT_EQ(answer.next_hop, "02:00:00:00:00:0" + std::to_string(*answer.target) + " via eth1");
  EXPECT_EQ(answer.explanation, "No worker holds this flow. The next packet takes slot " + std::to_string(*answer.slot) +
                                    " of target group a, which belongs to " + target + ".");
  ASSERT_EQ(answer.steps.size(), 9U) << text_of(answer);
  EXPECT_EQ(answer.steps[0], "listener lookup: TCP 192.0.2.10:80 → listener n of VIP n");
  EXPECT_EQ(answer.steps[1], "guard: pass");
  EXPECT_EQ(answer.steps[2], "flow lookup, worker 0: no entry");
  EXPECT_EQ(answer.steps[3], "group by weight: a, weight 1 of 1");
  EXPECT_EQ(answer.steps[4].rfind("candidates: 10.77.2.1:80 42.9%, 10.77.2.2:80 28.6%", 0), 0U) << answer.steps[4];
  EXPECT_EQ(answer.candidates.size(), 3U);
  EXPECT_EQ(answer.guard, "pass");
  EXPECT_EQ(answer.steps[5], "slot: " + std::to_string(*answer.slot) + " of 7 → " + target);
  EXPECT_EQ(answer.steps[6], "target: " + target + " is healthy");
  EXPECT_EQ(answer.steps[7], "next hop: " + answer.next_hop + ", MTU 1600");
  EXPECT_EQ(answer.steps[8].rfind("ipip: outer source 100.64.0.", 0), 0U) << answer.steps[8];
  EXPECT_EQ("ipip: " + answer.outer_header, answer.steps[8]);
}

TEST_F(WhyTest, LiveFlowNamesTheWorkerThatHoldsIt) {
  Worker idle;
  Worker holder;
  const std::uint32_t target = establish(holder, 2);
  const Answer answer = ask({&idle, &holder});
  EXPECT_EQ(answer.flow, "hit");
  EXPECT_EQ(answer.worker, 1U);
  EXPECT_EQ(answer.target, target);
  EXPECT_EQ(answer.entry->state, FlowState::assumed);
  EXPECT_FALSE(answer.pinned_elsewhere);
  EXPECT_TRUE(mentions(answer, "Worker 1 holds this flow")) << answer.explanation;
}

TEST_F(WhyTest, OfSeveralWorkersTheOneThatSawTheFlowLastIsNamed) {
  Worker old;
  Worker recent;
  establish(old, 100);
  establish(recent, 3);
  EXPECT_EQ(ask({&old, &recent}).worker, 1U);
  EXPECT_EQ(ask({&recent, &old}).worker, 0U);
}

TEST_F(WhyTest, FlowOnADrainingTargetIsPinnedElsewhereBecauseOfTheDrain) {
  Worker worker;
  const std::uint32_t target = establish(worker, 1);
  world_.targets[target].state = abi::TargetState::draining;
  world_.targets[target].flags |= abi::kTargetNoNewFlows;
  const Answer answer = ask({&worker});
  EXPECT_EQ(answer.verdict, "tx");
  EXPECT_EQ(answer.target, target);
  EXPECT_TRUE(answer.pinned_elsewhere);
  EXPECT_EQ(answer.pinned_because, "drain");
  EXPECT_TRUE(mentions(answer, "is draining and keeps only the flows it has")) << answer.explanation;
}

TEST_F(WhyTest, FlowOnATargetOfWeightZeroIsPinnedElsewhereBecauseOfTheWeight) {
  Worker worker;
  const std::uint32_t target = establish(worker, 1);
  world_.targets[target].weight = 0;
  world_.targets[target].flags |= abi::kTargetNoNewFlows;
  const Answer answer = ask({&worker});
  EXPECT_TRUE(answer.pinned_elsewhere);
  EXPECT_EQ(answer.pinned_because, "weight");
}

TEST_F(WhyTest, FlowKeptOnAnUnhealthyTargetIsPinnedElsewhereBecauseOfItsHealth) {
  Worker worker;
  const std::uint32_t target = establish(worker, 1);
  world_.targets[target].state = abi::TargetState::unhealthy_draining;
  world_.targets[target].flags |= abi::kTargetNoNewFlows;
  const Answer answer = ask({&worker});
  EXPECT_EQ(answer.pinned_because, "health");
}

TEST_F(WhyTest, FlowWhoseSlotChangedHandsIsPinnedElsewhereBecauseOfTheNewTable) {
  Worker worker;
  const std::uint32_t target = establish(worker, 1);
  for (std::uint8_t i = 4; i <= 7; ++i) {  // as many targets as slots: another one stands in the flow's slot
    world_.add_target(blue_, abi::IpAddress::v4(10, 77, 2, i));
    const Answer answer = ask({&worker});
    EXPECT_EQ(answer.target, target);
    if (!answer.pinned_elsewhere) continue;
    EXPECT_EQ(answer.pinned_because, "new table");
    EXPECT_TRUE(mentions(answer, "table has changed since this flow began"));
    return;
  }
  FAIL() << "the slot never changed hands";
}

TEST_F(WhyTest, FlowOfAGroupWithoutWeightNowIsPinnedElsewhereBecauseOfTheGroupWeights) {
  Worker worker;
  establish(worker, 1);
  const std::uint32_t green = world_.add_group(abi::ForwardingMode::ipip, 7);
  world_.groups[green].name = kGreen;
  world_.add_target(green, abi::IpAddress::v4(10, 77, 3, 1));
  abi::Listener& listener = world_.listeners[0];
  listener.groups[0] = {blue_, 0};
  listener.groups[1] = {green, 1};
  listener.group_count = 2;
  listener.total_weight = 1;
  const Answer answer = ask({&worker});
  EXPECT_EQ(answer.pinned_because, "group weights");
  EXPECT_TRUE(mentions(answer, "give this tuple to group m")) << answer.explanation;
}

TEST_F(WhyTest, FlowOfAnUnhealthyTargetIsSaidToBeReset) {
  Worker worker;
  const std::uint32_t target = establish(worker, 1);
  world_.targets[target].state = abi::TargetState::unhealthy;
  world_.targets[target].tracked = abi::TrackedFlows::reset;
  world_.targets[target].flags |= abi::kTargetNoNewFlows;
  const Answer answer = ask({&worker});
  EXPECT_EQ(answer.verdict, "drop");
  EXPECT_EQ(answer.reason, "answered_rst");
  EXPECT_FALSE(answer.pinned_elsewhere);
  EXPECT_TRUE(mentions(answer, "is unhealthy")) << answer.explanation;
}

TEST_F(WhyTest, UnknownAddressesAndPortsAreSaidSo) {
  key_.destination_port = 81;
  Answer answer = ask();
  EXPECT_EQ(answer.reason, "no_listener");
  EXPECT_EQ(answer.steps.at(0), "listener lookup: no listener of VIP n takes TCP 192.0.2.10:81");
  key_.destination = address("192.0.2.99");
  answer = ask();
  EXPECT_EQ(answer.verdict, "punt");
  EXPECT_TRUE(mentions(answer, "no VIP"));
}

TEST_F(WhyTest, UnresolvedNextHopIsSaidSo) {
  for (abi::Target& target : world_.targets) target.flags &= static_cast<std::uint8_t>(~abi::kTargetResolved);
  const Answer answer = ask();
  EXPECT_EQ(answer.reason, "next_hop_unresolved");
  EXPECT_EQ(answer.next_hop, "unresolved");
  EXPECT_FALSE(answer.outer_source);
}

TEST_F(WhyTest, EmptyGroupIsSaidSo) {
  for (abi::Target& target : world_.targets) target.flags |= abi::kTargetNoNewFlows;
  const Answer answer = ask();
  EXPECT_EQ(answer.reason, "no_target");
  EXPECT_EQ(answer.group, blue_);
}

TEST_F(WhyTest, FailOpenIsSaidSo) {
  world_.groups[blue_].fail_open = 1;
  EXPECT_TRUE(mentions(ask(), "fail-open"));
}

TEST_F(WhyTest, AbsentDataPlaneIsSaidSo) {
  const Answer answer = ask();
  EXPECT_EQ(answer.steps.at(2), "flow lookup: lb-dp is away, so there is no flow table to look into");
}

TEST_F(WhyTest, ManyWorkersWithoutTheFlowAreSummedUp) {
  const Worker worker;
  const Answer answer = ask(std::vector<const Worker*>(20, &worker));
  EXPECT_EQ(answer.steps.at(2), "flow lookup: 20 workers have no entry");
}

TEST_F(WhyTest, TargetWithoutAPortOfItsOwnIsShownWithTheListeners) {
  for (abi::Target& target : world_.targets) target.port = 0;
  const Answer answer = ask();
  const std::string last = std::to_string(*answer.target + 1);
  EXPECT_EQ(target_text(snapshot_->targets()[*answer.target], key_), "10.77.2." + last + ":80");
}

TEST(Counters, WorkersWithoutCountersCountNothing) {
  const LiveWorker fresh;
  EXPECT_EQ(totals(fresh).dropped_packets, 0U);
  for (const DropTotal& drop : drops(std::span(&fresh, 1))) EXPECT_EQ(drop.packets, 0U);
}

}  // namespace
}  // namespace lb::cp::explain
