#include "dp/lb/flow_table.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <unordered_map>

#include "dp/lb/flow_ops.h"
#include "tests/unit/lb/world.h"

namespace lb {
namespace {

constexpr NodeSecret kSecret{7};

// One group with the default timeouts and 100 targets.
std::shared_ptr<const Snapshot> make_snapshot() {
  test::World world;
  world.add_vip(abi::IpAddress::v4(192, 0, 2, 1));
  const auto group = world.add_group(abi::ForwardingMode::ipip);
  for (std::uint8_t i = 0; i < 100; ++i) world.add_target(group, abi::IpAddress::v4(10, 0, 0, i));
  world.add_listener(0, abi::Protocol::tcp, 80, 80, {{group, 1}});
  return test::make_snapshot(world);
}

net::FlowKey key_of(std::uint32_t n) {
  net::FlowKey key;
  key.source = abi::IpAddress::v4(static_cast<std::uint8_t>(n >> 24), static_cast<std::uint8_t>(n >> 16),
                                  static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n));
  key.destination = abi::IpAddress::v4(192, 0, 2, 1);
  key.source_port = 1000;
  key.destination_port = 80;
  key.protocol = 6;
  return key;
}

// The table as the packet path uses it, with its insertion order of preference.
struct Bench {
  explicit Bench(std::uint64_t lines, std::shared_ptr<const Snapshot> with = make_snapshot())
      : snapshot(std::move(with)), memory(lines), target_flows(128), table(memory, target_flows, kSecret) {}

  FlowSlot find_flow(std::uint32_t n) {
    const Hash128 hash = flow_hash(table.hash_keys(), key_of(n));
    return find(table.state(), first_line(hash, memory.size()), fingerprint_of(hash));
  }
  bool insert(std::uint32_t n, std::uint32_t target, FlowState state, std::uint64_t tick) {
    const Hash128 hash = flow_hash(table.hash_keys(), key_of(n));
    const NewFlow flow{first_line(hash, memory.size()), fingerprint_of(hash), make_meta(target, state), tick & kTickMask};
    for (const std::uint64_t line : {flow.first, other_line(flow.first, flow.fingerprint, memory.size())}) {
      if (const std::uint32_t free = match(memory[line], 0); free != 0) {
        place(table.state(), flow, line, lowest_bit(free));
        return true;
      }
    }
    return insert_crowded(table.state(), *snapshot, flow, other_line(flow.first, flow.fingerprint, memory.size()), changes);
  }
  // What must hold between any two operations.
  void check() {
    std::uint64_t flows = 0;
    std::vector<std::uint32_t> by_target(128);
    std::vector<std::uint32_t> overflow(memory.size());
    for (std::uint64_t n = 0; n < memory.size(); ++n) {
      EXPECT_EQ(memory[n].sequence % 2, 0);
      for (std::uint32_t i = 0; i < abi::kFlowsPerLine; ++i) {
        if (memory[n].key[i] == 0) continue;
        ++flows;
        ++by_target[meta_target(memory[n].meta[i])];
        if (memory[n].meta[i] & kSecondLine) ++overflow[other_line(n, memory[n].key[i], memory.size())];
      }
    }
    EXPECT_EQ(flows, table.flows());
    EXPECT_EQ(by_target, target_flows);
    for (std::uint64_t n = 0; n < memory.size(); ++n) EXPECT_EQ(memory[n].overflow, overflow[n]) << n;
  }

  std::shared_ptr<const Snapshot> snapshot;
  std::vector<abi::FlowLine> memory;
  std::vector<std::uint32_t> target_flows;
  FlowTable table;
  FlowChanges changes;
};

TEST(FlowTable, TheOtherLineOfTheOtherLineIsTheFirst) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 10000; ++round) {
    const std::uint64_t lines = random() % 1000 + 2;
    const std::uint64_t line = random() % lines;
    const std::uint64_t fingerprint = random();
    const std::uint64_t other = other_line(line, fingerprint, lines);
    ASSERT_LT(other, lines);
    ASSERT_EQ(other_line(other, fingerprint, lines), line);
  }
}

TEST(FlowTable, HoldsSevenEighthsOfItsCapacityAndMore) {
  Bench bench(FlowTable::lines_for(100'000));
  std::uint32_t held = 0;
  while (bench.insert(held, held % 100, FlowState::assumed, 1)) ++held;
  EXPECT_GE(held, 100'000U);
  EXPECT_GE(held, bench.table.capacity() * 90 / 100);
  for (std::uint32_t n = 0; n < held; ++n) {
    const FlowSlot slot = bench.find_flow(n);
    ASSERT_NE(slot.line, nullptr) << n;
    ASSERT_EQ(meta_target(slot.line->meta[slot.index]), n % 100);
  }
  bench.check();
}

// Against a plain map: whatever the map holds and the table has not given up on purpose is found with its target; nothing
// else is found.
TEST(FlowTable, BehavesLikeAMapUnderRandomOperations) {
  for (const std::uint64_t lines : {2ULL, 3ULL, 64ULL, 1000ULL}) {
    Bench bench(lines);
    std::mt19937_64 random(lines);
    std::unordered_map<std::uint32_t, std::uint32_t> model;
    const auto keys = static_cast<std::uint32_t>(lines * abi::kFlowsPerLine * 3 / 2);
    for (int step = 0; step < 50'000; ++step) {
      const auto n = static_cast<std::uint32_t>(random() % keys);
      const auto target = static_cast<std::uint32_t>(random() % 100);
      const FlowSlot slot = bench.find_flow(n);
      ASSERT_EQ(slot.line != nullptr, model.count(n) == 1) << lines << " " << step;
      if (slot.line != nullptr) {
        ASSERT_EQ(meta_target(slot.line->meta[slot.index]), model[n]);
      }
      switch (random() % 3) {
        case 0:
          if (slot.line == nullptr && bench.insert(n, target, FlowState::assumed, 1)) model[n] = target;
          break;
        case 1:
          if (slot.line != nullptr && random() % 2) {
            erase(bench.table.state(), slot);
            model.erase(n);
          }
          break;
        default:
          if (slot.line == nullptr) break;
          repoint(bench.table.state(), slot, target, FlowState::closing, 1);
          model[n] = target;
      }
    }
    EXPECT_EQ(bench.changes.evicted + bench.changes.expired, 0U);
    EXPECT_EQ(bench.table.flows(), model.size());
    bench.check();
  }
}

TEST(FlowTable, AFullTableGivesUpUnprovenFlowsFirstAndProvenOnesNever) {
  Bench bench(64);
  for (std::uint32_t n = 0; n < 250; ++n) ASSERT_TRUE(bench.insert(n, 1, FlowState::assumed, 1));
  for (std::uint32_t n = 1000; n < 21'000; ++n) bench.insert(n, 2, FlowState::fresh, 1 + n / 1000);
  for (std::uint32_t n = 0; n < 250; ++n) EXPECT_NE(bench.find_flow(n).line, nullptr) << n;
  EXPECT_GT(bench.changes.evicted, 10'000U);
  EXPECT_EQ(bench.target_flows[1], 250U);
  bench.check();
}

TEST(FlowTable, AnExpiredFlowMakesRoomForANewOne) {
  Bench bench(2);
  std::uint32_t held = 0;
  while (bench.insert(held, 1, FlowState::assumed, 1)) ++held;
  EXPECT_EQ(held, 10U);
  EXPECT_FALSE(bench.insert(held, 2, FlowState::assumed, 350 * 4));
  EXPECT_TRUE(bench.insert(held, 2, FlowState::assumed, 1 + 350 * 4));
  EXPECT_EQ(bench.changes.expired, 1U);
  bench.check();
}

TEST(FlowTable, CountsAfreshWhenItIsMadeOnLinesThatAreInUse) {
  Bench bench(100);
  for (std::uint32_t n = 0; n < 450; ++n) ASSERT_TRUE(bench.insert(n, n % 7, FlowState::assumed, 5));
  const std::vector<std::uint32_t> before = bench.target_flows;
  bench.memory[3].sequence += 1;  // a crash in the middle of a write
  bench.memory[4].overflow = 77;
  bench.memory[5].meta[0] |= 0xf00000;  // a state no build has
  const bool had = bench.memory[5].key[0] != 0;
  const FlowTable again(bench.memory, bench.target_flows, kSecret);
  EXPECT_EQ(again.flows(), had ? 449U : 450U);
  for (std::uint32_t n = 0; n < 450; ++n) {
    const auto seen = FlowTable::peek(bench.memory, kSecret, key_of(n), 6 * kTickNs);
    if (seen) {
      EXPECT_EQ(seen->target, n % 7);
      EXPECT_EQ(seen->idle_ns, kTickNs);
    }
  }
}

TEST(FlowTable, ReattachKeepsEntriesByIdentityAndDropsTheRest) {
  Bench bench(100);
  for (std::uint32_t n = 0; n < 300; ++n) ASSERT_TRUE(bench.insert(n, n % 3, FlowState::assumed, 5));
  // Old ids 0, 1 stood for what are 42 and 17 now; 2 is gone.
  const std::vector<std::uint64_t> directory = {0x1000 + 42, 0x1000 + 17, 0xdead};
  const Reattached result = reattach(bench.memory, directory, *bench.snapshot);
  EXPECT_EQ(result.kept, 200U);
  EXPECT_EQ(result.dropped, 100U);
  const FlowTable again(bench.memory, bench.target_flows, kSecret);
  EXPECT_EQ(again.flows(), 200U);
  EXPECT_EQ(bench.target_flows[42], 100U);
  EXPECT_EQ(bench.target_flows[17], 100U);
  EXPECT_EQ(FlowTable::peek(bench.memory, kSecret, key_of(0), 0)->target, 42U);
  EXPECT_FALSE(FlowTable::peek(bench.memory, kSecret, key_of(2), 0));
}

// Three workers' flows to any number of workers: each worker finds every flow, whatever queue it comes on.
TEST(FlowTable, RehomedFlowsAreFoundByEveryWorker) {
  constexpr std::uint32_t kFlows = 150;
  std::vector<std::unique_ptr<Bench>> old;
  std::vector<std::span<const abi::FlowLine>> from;
  for (std::uint32_t w = 0; w < 3; ++w) {
    old.push_back(std::make_unique<Bench>(200));
    from.emplace_back(old.back()->memory);
    for (std::uint32_t n = 0; n < kFlows; ++n) ASSERT_TRUE(old[w]->insert(w * kFlows + n, n % 100, FlowState::assumed, 5));
  }
  for (const std::size_t workers : {1U, 2U, 5U}) {
    std::vector<std::vector<abi::FlowLine>> memory(workers, std::vector<abi::FlowLine>(from[0].size()));
    std::vector<std::span<abi::FlowLine>> to(memory.begin(), memory.end());
    const Rehomed result = rehome(from, to);
    EXPECT_EQ(result.kept, 3 * kFlows);
    EXPECT_EQ(result.no_room, 0U);
    EXPECT_EQ(result.copies, (workers - 1) * 3 * kFlows);
    for (const std::span<abi::FlowLine> lines : to) {
      EXPECT_EQ(FlowTable(lines, {}, kSecret).flows(), 3 * kFlows);
      for (std::uint32_t n = 0; n < 3 * kFlows; ++n) {
        const auto found = FlowTable::peek(lines, kSecret, key_of(n), 5 * kTickNs);
        ASSERT_TRUE(found);
        EXPECT_EQ(found->target, n % kFlows % 100);
      }
    }
  }
}

TEST(FlowTable, RehomingKeepsTheYoungerOfTwoEntriesOfOneFlow) {
  Bench first(20);
  Bench second(20);
  ASSERT_TRUE(first.insert(1, 10, FlowState::assumed, 9));
  ASSERT_TRUE(second.insert(1, 20, FlowState::assumed, 8));
  const std::vector<std::span<const abi::FlowLine>> from{first.memory, second.memory};
  std::vector<abi::FlowLine> memory(first.memory.size());
  const std::vector<std::span<abi::FlowLine>> to{memory};
  EXPECT_EQ(rehome(from, to).kept, 1U);
  EXPECT_EQ(FlowTable::peek(memory, kSecret, key_of(1), 9 * kTickNs)->target, 10U);
}

TEST(FlowTable, RehomingWithoutRoomKeepsProvenFlowsAndCountsTheRest) {
  Bench first(20);
  Bench second(20);
  const auto capacity = static_cast<std::uint32_t>(first.table.capacity());
  std::uint32_t proven = 0;
  std::uint32_t fresh = 0;
  for (std::uint32_t n = 0; n < capacity * 3 / 4; ++n) {
    fresh += first.insert(n, 1, FlowState::fresh, 5) ? 1 : 0;
    proven += second.insert(1000 + n, 2, FlowState::assumed, 5) ? 1 : 0;
  }
  const std::vector<std::span<const abi::FlowLine>> from{first.memory, second.memory};
  std::vector<abi::FlowLine> memory(first.memory.size());
  const std::vector<std::span<abi::FlowLine>> to{memory};
  const Rehomed result = rehome(from, to);
  EXPECT_EQ(result.kept + result.no_room, proven + fresh);
  EXPECT_GT(result.no_room, 0U);
  std::uint32_t found = 0;
  for (std::uint32_t n = 0; n < capacity; ++n)
    found += FlowTable::peek(memory, kSecret, key_of(1000 + n), 5 * kTickNs) ? 1 : 0;
  EXPECT_EQ(found, proven);
}

// Flows below kStable stay; the rest come and go around them, and make them move. A reader must never see a wrong target,
// and never miss a flow that stays.
TEST(FlowTable, PeekIsRightWhileTheOwnerWrites) {
  constexpr std::uint32_t kStable = 300;
  Bench bench(100);
  for (std::uint32_t n = 0; n < kStable; ++n) ASSERT_TRUE(bench.insert(n, n % 100, FlowState::assumed, 1));
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> wrong{0};
  std::atomic<std::uint64_t> missed{0};
  std::thread reader([&] {
    const HashKeys keys = make_hash_keys(kSecret);
    for (std::uint32_t n = 0; !stop.load(std::memory_order_relaxed); n = (n + 1) % (kStable + 200)) {
      const auto seen = FlowTable::peek(bench.memory, keys, key_of(n), kTickNs);
      if (seen && seen->target != n % 100) ++wrong;
      if (!seen && n < kStable) ++missed;
    }
  });
  std::mt19937_64 random(3);
  for (int step = 0; step < 300'000; ++step) {
    const auto n = kStable + static_cast<std::uint32_t>(random() % 250);
    const FlowSlot slot = bench.find_flow(n);
    if (slot.line != nullptr)
      erase(bench.table.state(), slot);
    else
      bench.insert(n, n % 100, FlowState::assumed, 1);
  }
  stop = true;
  reader.join();
  EXPECT_EQ(wrong, 0U);
  EXPECT_EQ(missed, 0U);
  EXPECT_GT(bench.changes.moved, 0U);
  bench.check();
}

}  // namespace
}  // namespace lb
