#include "cp/stats/stats_reader.h"

#include <gtest/gtest.h>

namespace lb::cp {
namespace {

// Memory of one lb-dp instance: two workers, four counter indexes, three target ids.
struct Instance {
  std::array<abi::WorkerStats, 2> workers{};
  std::array<std::array<abi::ListenerStats, 4>, 2> listeners{};
  std::array<std::array<std::uint32_t, 3>, 2> flows{};
  std::array<std::array<std::uint32_t, 3>, 2> troubles{};

  StatsView view() {
    StatsView view;
    for (std::size_t i = 0; i < workers.size(); ++i) {
      view.workers.push_back({&workers[i], listeners[i], flows[i], troubles[i]});
    }
    return view;
  }
};

constexpr auto kRx = static_cast<std::size_t>(abi::Counter::rx_packets);
constexpr auto kNoListener = static_cast<std::size_t>(abi::Counter::drop_no_listener);

TEST(StatsReader, SumsWorkers) {
  Instance instance;
  instance.workers[0].counters[kRx] = 3;
  instance.workers[1].counters[kRx] = 4;
  instance.workers[1].counters[kNoListener] = 1;
  StatsReader reader;
  reader.attach(instance.view(), 1);
  EXPECT_EQ(reader.totals()[kRx], 7U);
  EXPECT_EQ(reader.totals()[kNoListener], 1U);
}

TEST(StatsReader, CountersGoOnAcrossRestartsOfTheDataPlane) {
  Instance first;
  Instance second;
  StatsReader reader;
  reader.attach(first.view(), 1);
  first.workers[0].counters[kRx] = 1000;
  first.listeners[1][2].packets = 50;
  reader.detach();
  EXPECT_EQ(reader.totals()[kRx], 1000U);
  second.workers[0].counters[kRx] = 7;
  second.listeners[0][2].packets = 5;
  reader.attach(second.view(), 2);
  EXPECT_EQ(reader.totals()[kRx], 1007U);
  EXPECT_EQ(reader.workers()[0].counters[kRx], 1007U);
  EXPECT_EQ(reader.listener(2).packets, 55U);
}

TEST(StatsReader, ReconnectToTheSameInstanceCountsNothingTwice) {
  Instance instance;
  instance.workers[0].counters[kRx] = 10;
  StatsReader reader;
  reader.attach(instance.view(), 1);
  reader.detach();
  reader.attach(instance.view(), 1);
  EXPECT_EQ(reader.totals()[kRx], 10U);
}

TEST(StatsReader, ListenerCountsBothOfItsProtocolsFromItsStart) {
  Instance instance;
  StatsReader reader;
  reader.attach(instance.view(), 1);
  instance.listeners[0][2].new_flows = 2;
  instance.listeners[1][3].new_flows = 3;
  instance.listeners[0][0].new_flows = 100;
  EXPECT_EQ(reader.listener(2).new_flows, 5U);
  reader.start_listener(2);
  EXPECT_EQ(reader.listener(2).new_flows, 0U);
  instance.listeners[0][2].new_flows = 9;
  EXPECT_EQ(reader.listener(2).new_flows, 7U);
  EXPECT_EQ(reader.listener(0).new_flows, 100U);
}

TEST(StatsReader, FlowsOfATargetAreUnknownWhileTheDataPlaneIsAway) {
  Instance instance;
  instance.flows[0][1] = 4;
  instance.flows[1][1] = 5;
  StatsReader reader;
  EXPECT_EQ(reader.target_flows(1), std::nullopt);
  reader.attach(instance.view(), 1);
  EXPECT_EQ(reader.target_flows(1), 9U);
  EXPECT_EQ(reader.target_flows(3), std::nullopt);
  reader.detach();
  EXPECT_EQ(reader.target_flows(1), std::nullopt);
}

TEST(StatsReader, TroublesOfATargetAreThoseOfAllWorkers) {
  Instance instance;
  instance.troubles[0][1] = 4;
  instance.troubles[1][1] = 5;
  StatsReader reader;
  EXPECT_EQ(reader.target_troubles(1), 0U);
  reader.attach(instance.view(), 1);
  EXPECT_EQ(reader.target_troubles(1), 9U);
  EXPECT_EQ(reader.target_troubles(3), 0U);
  reader.detach();
  EXPECT_EQ(reader.target_troubles(1), 0U);
}

TEST(StatsReader, WorkerRowsShowGenerationFlowsAndLoad) {
  Instance instance;
  instance.workers[1].generation_epoch = 2;
  instance.workers[1].generation_n = 8;
  instance.workers[1].flows = 11;
  instance.workers[1].flow_capacity = 100;
  instance.workers[1].busy_tsc = 25;
  instance.workers[1].total_tsc = 100;
  instance.workers[1].lcore = 3;
  StatsReader reader;
  reader.attach(instance.view(), 1);
  const LiveWorker row = reader.workers().at(1);
  EXPECT_EQ(row.generation, (abi::Generation{2, 8}));
  EXPECT_EQ(row.flows, 11U);
  EXPECT_EQ(row.flow_capacity, 100U);
  EXPECT_EQ(row.lcore, 3U);
  EXPECT_DOUBLE_EQ(row.busy, 0.25);
  EXPECT_DOUBLE_EQ(reader.workers().at(0).busy, 0);
}

}  // namespace
}  // namespace lb::cp
