#include "cp/control/pool_watch.h"

#include <gtest/gtest.h>

namespace lb::cp {
namespace {

struct Watched {
  PoolWatch watch;
  std::vector<LiveWorker> workers;
  CounterTotals totals{};
  std::int64_t now_ms = 0;

  explicit Watched(std::uint32_t count) {
    for (std::uint32_t worker = 0; worker < count; ++worker)
      workers.push_back({.worker = worker, .flow_capacity = 1000, .snat_capacity = 500});
  }
  std::uint64_t& counter(abi::Counter counter) { return totals[static_cast<std::size_t>(counter)]; }
  // A second later: what is said, as "object: old → new".
  std::vector<std::string> look() {
    now_ms += 1000;
    std::vector<std::string> said;
    for (const Event& event : watch.look(workers, totals, now_ms))
      said.push_back(event.object + ": " + event.old_state + " → " + event.new_state);
    return said;
  }
};

using Said = std::vector<std::string>;

TEST(PoolWatch, AnEightyPercentFullTableIsToldOnceAndAgainWhenItHasEmptied) {
  Watched w(2);
  w.workers[1].flows = 799;
  EXPECT_EQ(w.look(), Said{});
  w.workers[1].flows = 800;
  EXPECT_EQ(w.look(), Said{"flow-table worker 1: free → nearly full"});
  w.workers[1].flows = 1000;
  EXPECT_EQ(w.look(), Said{});
  w.workers[1].flows = 700;  // neither: it does not flap
  EXPECT_EQ(w.look(), Said{});
  w.workers[1].flows = 699;
  EXPECT_EQ(w.look(), Said{"flow-table worker 1: nearly full → free"});
  w.workers[0].snat_ports = 400;
  EXPECT_EQ(w.look(), Said{"snat worker 0: free → nearly full"});
}

TEST(PoolWatch, ATableThatIsNotThereIsNotFull) {
  Watched w(1);
  w.workers[0].snat_capacity = 0;
  EXPECT_EQ(w.look(), Said{});
}

TEST(PoolWatch, WhatLacksRoomIsNamedOnceUntilItHasRestedForTenSeconds) {
  const std::pair<abi::Counter, const char*> pools[] = {
      {abi::Counter::snat_refused, "snat"},          {abi::Counter::flow_untracked, "flow-table"},
      {abi::Counter::flow_refused, "flow-table"},    {abi::Counter::drop_fragment_table_full, "fragments"},
      {abi::Counter::drop_no_way_back, "ways-back"}, {abi::Counter::drop_tx_full, "transmit-ring"}};
  for (const auto& [counter, object] : pools) {
    Watched w(1);
    EXPECT_EQ(w.look(), Said{});
    w.counter(counter) += 5;
    EXPECT_EQ(w.look(), Said{std::string(object) + ": free → exhausted"});
    w.counter(counter) += 5;
    EXPECT_EQ(w.look(), Said{});
    for (int second = 1; second < 10; ++second) EXPECT_EQ(w.look(), Said{});
    EXPECT_EQ(w.look(), Said{std::string(object) + ": exhausted → free"});
    EXPECT_EQ(w.look(), Said{});
  }
}

TEST(PoolWatch, WhatWasCountedBeforeOneLookedIsNoNews) {
  Watched w(1);
  w.counter(abi::Counter::snat_refused) = 1000;
  EXPECT_EQ(w.look(), Said{});
  w.watch.forget_counts();
  w.counter(abi::Counter::snat_refused) = 2000;
  EXPECT_EQ(w.look(), Said{});
  ++w.counter(abi::Counter::snat_refused);
  EXPECT_EQ(w.look(), Said{"snat: free → exhausted"});
}

}  // namespace
}  // namespace lb::cp
