// Two workers and the flows they know of each other.
#include "dp/lb/rare.h"

#include "tests/unit/lb/lab.h"

namespace lb::test {
namespace {

// `here` has the lab's snapshot and looks into the tables of both; `lab` is the other worker.
struct TwoWorkers {
  TwoWorkers()
      : memory(1024),
        flows(64),
        table(memory, flows, kSecret),
        tables{lab.memory, memory},
        pipeline({.flows = &table,
                  .stats = &stats,
                  .listener_stats = lab.listener_stats.data(),
                  .extra = &lab.extra,
                  .tables = tables,
                  .worker = 1}) {}

  Burst& send(const net::FlowKey& key, std::uint8_t flags) {
    packets.clear();
    packets.add(key, FrameOptions{.tcp_flags = flags});
    pipeline.process(*lab.snapshot, packets.burst, lab.now_ns);
    return packets.burst;
  }
  // A flow that lab knows, on a target that the hash would not choose.
  std::uint32_t established(const net::FlowKey& key) {
    lab.send(key, net::kTcpSyn);
    lab.send(key, net::kTcpAck);
    const std::uint32_t target = lab.packets.burst.target[0];
    lab.target(target).flags |= abi::kTargetNoNewFlows;  // out of the slots; tracked flows stay
    lab.apply();
    return target;
  }
  std::uint64_t counter(Counter c) const { return stats.counters[static_cast<std::size_t>(c)]; }

  Lab lab;
  std::vector<abi::FlowLine> memory;
  std::vector<std::uint32_t> flows;
  FlowTable table;
  std::vector<std::span<const abi::FlowLine>> tables;
  abi::WorkerStats stats;
  Pipeline pipeline;
  BurstBuffers packets;
};

TEST(Rare, AMidFlowPacketOnAnotherWorkerGoesToItsFlowsTargetAndIsKnownThereFromNowOn) {
  TwoWorkers two;
  const std::uint32_t target = two.established(client(1));
  EXPECT_EQ(two.send(client(1), net::kTcpAck).target[0], target);
  EXPECT_EQ(two.packets.burst.flow[0], FlowResult::hit);
  EXPECT_EQ(two.counter(Counter::flow_adopted), 1U);
  EXPECT_EQ(two.counter(Counter::peer_looks), 1U);
  EXPECT_EQ(two.send(client(1), net::kTcpAck).target[0], target);
  EXPECT_EQ(two.counter(Counter::peer_looks), 1U);  // its own table knows it
  EXPECT_EQ(FlowTable::peek(two.memory, kSecret, client(1), two.lab.now_ns)->state, FlowState::assumed);
}

TEST(Rare, ASynDoesNotLookIntoOtherTables) {
  TwoWorkers two;
  two.established(client(1));
  two.send(client(1), net::kTcpSyn);
  EXPECT_EQ(two.counter(Counter::peer_looks), 0U);
}

TEST(Rare, ABurstOfStrayPacketsLooksNoMoreThanItsBudgetAllows) {
  TwoWorkers two;
  two.packets.clear();
  for (std::uint16_t port = 1; port <= kBurst; ++port)
    two.packets.add(client(port), FrameOptions{.tcp_flags = net::kTcpAck});
  two.pipeline.process(*two.lab.snapshot, two.packets.burst, two.lab.now_ns);
  EXPECT_EQ(two.counter(Counter::peer_looks), kPeerLooksPerBurst);
  EXPECT_EQ(two.counter(Counter::forwarded_packets), kBurst);
}

TEST(Rare, AFlowThatLivesOnAnotherWorkerIsNotResetForBeingLateHere) {
  TwoWorkers two;
  const std::uint32_t target = two.established(client(1));
  two.send(client(1), net::kTcpAck);
  two.lab.now_ns += 300 * kSecond;
  two.send(client(1), net::kTcpAck);
  two.lab.now_ns += 100 * kSecond;  // 400 s without a packet on the first worker, whose limit is 350 s
  const Burst& burst = [&]() -> const Burst& {
    two.lab.pipeline = std::make_unique<Pipeline>(PipelineOptions{.flows = &two.lab.table,
                                                                  .stats = &two.lab.stats,
                                                                  .listener_stats = two.lab.listener_stats.data(),
                                                                  .extra = &two.lab.extra,
                                                                  .tables = two.tables,
                                                                  .worker = 0});
    return two.lab.send(client(1), net::kTcpAck);
  }();
  EXPECT_EQ(burst.verdict[0], Verdict::tx);
  EXPECT_EQ(burst.target[0], target);
}

TEST(Rare, AFlowThatIsDeadOnEveryWorkerIsResetAsBefore) {
  TwoWorkers two;
  two.established(client(1));
  two.send(client(1), net::kTcpAck);
  two.lab.now_ns += 400 * kSecond;
  EXPECT_EQ(two.send(client(1), net::kTcpAck).reason[0], DropReason::answered_rst);
}

}  // namespace
}  // namespace lb::test
