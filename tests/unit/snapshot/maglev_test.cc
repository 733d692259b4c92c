#include "cp/snapshot/maglev.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "cp/snapshot/decide.h"

namespace lb::cp {
namespace {

std::vector<std::uint16_t> build(const std::vector<MaglevTarget>& targets, std::uint32_t slot_count,
                                 std::uint64_t seed = 1) {
  std::vector<std::uint16_t> slots(slot_count, 0xffff);
  build_maglev(targets, seed, slots);
  return slots;
}

std::vector<MaglevTarget> make_targets(std::size_t count, std::uint32_t highest_weight, std::uint32_t seed) {
  std::mt19937_64 random(seed);
  std::vector<MaglevTarget> targets(count);
  for (MaglevTarget& target : targets) target = {random(), static_cast<std::uint32_t>(random() % highest_weight) + 1};
  std::sort(targets.begin(), targets.end());
  return targets;
}

TEST(Maglev, IsTable1OfThePaper) {
  const std::vector<MaglevWalk> walks{{3, 4}, {0, 2}, {3, 1}};
  std::vector<std::uint16_t> slots(7);
  fill_maglev(walks, maglev_quotas(std::vector<std::uint32_t>{1, 1, 1}, 7), slots);
  EXPECT_EQ(slots, (std::vector<std::uint16_t>{1, 0, 1, 0, 2, 2, 0}));
  // After B1 is removed: B0 B0 B0 B0 B2 B2 B2.
  fill_maglev(std::vector<MaglevWalk>{{3, 4}, {3, 1}}, maglev_quotas(std::vector<std::uint32_t>{1, 1}, 7), slots);
  EXPECT_EQ(slots, (std::vector<std::uint16_t>{0, 0, 0, 0, 1, 1, 1}));
}

// The algorithm as the paper writes it: permutations in full, turns one after the other.
std::vector<std::uint16_t> by_the_book(const std::vector<MaglevWalk>& walks, const std::vector<std::uint32_t>& quotas,
                                       std::uint32_t slot_count) {
  std::vector<std::uint16_t> slots(slot_count, 0xffff);
  std::vector<std::uint64_t> next(walks.size());
  std::vector<std::uint32_t> taken(walks.size());
  const std::uint64_t rounds = *std::max_element(quotas.begin(), quotas.end());
  for (std::uint64_t round = 1; round <= rounds; ++round) {
    for (std::size_t target = 0; target < walks.size(); ++target) {
      while (taken[target] * rounds < quotas[target] * round) {  // one turn at most: no quota is above `rounds`
        std::uint64_t slot = 0;
        do {
          slot = (walks[target].offset + next[target]++ * walks[target].skip) % slot_count;
        } while (slots[slot] != 0xffff);
        slots[slot] = static_cast<std::uint16_t>(target);
        ++taken[target];
      }
    }
  }
  return slots;
}

RC_GTEST_PROP(Maglev, IsWhatThePapersAlgorithmGives, ()) {
  const auto slot_count = *rc::gen::elementOf(std::vector<std::uint32_t>{7, 11, 1009, 8191});
  const auto weights =
      *rc::gen::nonEmpty(rc::gen::container<std::vector<std::uint32_t>>(rc::gen::inRange<std::uint32_t>(1, 1000)));
  std::vector<MaglevWalk> walks;
  for (std::size_t i = 0; i < weights.size(); ++i)
    walks.push_back(maglev_walk(*rc::gen::arbitrary<std::uint64_t>(), 1, slot_count));
  const auto quotas = maglev_quotas(weights, slot_count);
  std::vector<std::uint16_t> slots(slot_count);
  fill_maglev(walks, quotas, slots);
  RC_ASSERT(slots == by_the_book(walks, quotas, slot_count));
}

RC_GTEST_PROP(Maglev, IsFullAndEveryShareIsItsQuota, ()) {
  const auto slot_count = *rc::gen::elementOf(std::vector<std::uint32_t>{7, 101, 1009, 65537});
  const auto weights = *rc::gen::resize(
      300, rc::gen::nonEmpty(rc::gen::container<std::vector<std::uint32_t>>(rc::gen::inRange<std::uint32_t>(1, 65536))));
  std::vector<MaglevTarget> targets;
  for (std::size_t i = 0; i < weights.size(); ++i) targets.push_back({i * 7919, weights[i]});
  const auto quotas = maglev_quotas(weights, slot_count);
  std::vector<std::uint32_t> taken(weights.size());
  for (const std::uint16_t slot : build(targets, slot_count)) {
    RC_ASSERT(slot < targets.size());
    ++taken[slot];
  }
  RC_ASSERT(taken == quotas);
}

RC_GTEST_PROP(Maglev, SharesAreExactToTwoSlotsOrOnePercent, ()) {
  const auto slot_count = *rc::gen::elementOf(std::vector<std::uint32_t>{1009, 65537});
  const auto weights = *rc::gen::resize(
      400, rc::gen::nonEmpty(rc::gen::container<std::vector<std::uint32_t>>(rc::gen::inRange<std::uint32_t>(1, 101))));
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const auto quotas = maglev_quotas(weights, slot_count);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double exact = slot_count * weights[i] / total;
    if (weights.size() <= slot_count) RC_ASSERT(quotas[i] >= 1U);
    if (*std::min_element(weights.begin(), weights.end()) * slot_count >= total) {
      RC_ASSERT(std::abs(quotas[i] - exact) <= std::max(2.0, exact / 100));
    }
  }
}

TEST(Maglev, APositiveWeightHasASlotWhereTheSizeAllows) {
  std::vector<std::uint32_t> weights(100, 1);
  weights.push_back(65535);
  EXPECT_EQ(maglev_quotas(weights, 101), std::vector<std::uint32_t>(101, 1));
  auto quotas = maglev_quotas(weights, 1009);
  EXPECT_EQ(quotas.back(), 909U);
  EXPECT_EQ(quotas.front(), 1U);
  quotas = maglev_quotas(std::vector<std::uint32_t>(9, 5), 7);
  EXPECT_EQ(quotas, (std::vector<std::uint32_t>{1, 1, 1, 1, 1, 1, 1, 0, 0})) << "more targets than slots: the first ones";
}

TEST(Maglev, DependsOnSeedIdentityAndWeightAlone) {
  const auto targets = make_targets(50, 10, 1);
  const auto slots = build(targets, 1009);
  EXPECT_EQ(build(targets, 1009), slots);
  EXPECT_NE(build(targets, 1009, 2), slots);
  auto heavier = targets;
  heavier[3].weight += 5;
  EXPECT_NE(build(heavier, 1009), slots);
  EXPECT_EQ(maglev_hash(targets, slots), maglev_hash(targets, build(targets, 1009)));
  EXPECT_NE(maglev_hash(targets, slots), maglev_hash(targets, build(targets, 1009, 2)));
  auto swapped = slots;
  const auto other = std::find_if(swapped.begin(), swapped.end(), [&](std::uint16_t slot) { return slot != swapped[0]; });
  std::swap(swapped[0], *other);
  EXPECT_NE(maglev_hash(targets, swapped), maglev_hash(targets, slots));
}

// Written down: every build, node and year has this table.
TEST(Maglev, BytesAreTheSameInEveryBuild) {
  const TargetKey key{"blue", abi::IpAddress::v4(10, 0, 0, 1), 80};
  EXPECT_EQ(target_identity(key), 2075404847135107503U);
  EXPECT_NE(target_identity({"blu", key.address, 80}), target_identity({"blue", key.address, 80}));
  EXPECT_NE(target_identity({"blue", key.address, 81}), target_identity(key));
  const auto targets = make_targets(5, 3, 1);
  EXPECT_EQ(maglev_hash(targets, build(targets, 65537)), 11827659674329859669U);
}

// Removing one target moves its own slots and few others. Bounds: about twice what was measured (0.2–0.6 %).
TEST(Maglev, RemovingATargetMovesFewOfTheOthersSlots) {
  for (const auto& [count, highest_weight, most] :
       {std::tuple(10, 1, 0.01), {100, 1, 0.013}, {1000, 1, 0.013}, {100, 100, 0.02}}) {
    const auto before = make_targets(static_cast<std::size_t>(count), static_cast<std::uint32_t>(highest_weight), 5);
    const auto slots = build(before, 65537);
    double moved = 0;
    constexpr int kTries = 8;
    for (int i = 0; i < kTries; ++i) {
      const auto removed = static_cast<std::size_t>(i) * before.size() / kTries;
      auto after = before;
      after.erase(after.begin() + static_cast<std::ptrdiff_t>(removed));
      const auto new_slots = build(after, 65537);
      for (std::size_t s = 0; s < slots.size(); ++s) {
        moved += slots[s] != removed && before[slots[s]] != after[new_slots[s]];
      }
    }
    const double share = moved / kTries / 65537;
    EXPECT_LT(share, most) << count << " targets, weights to " << highest_weight;
    RecordProperty("moved_" + std::to_string(count) + "_" + std::to_string(highest_weight), std::to_string(share));
  }
}

// Slow start: a target's weight grows by equal steps while the others keep theirs, kRampSteps times over. Each step moves
// about what the target gains with it; the table with all of its weight is the one that it has without a ramp.
TEST(Maglev, AStepOfASlowStartMovesFewSlots) {
  const auto whole = make_targets(10, 1, 9);
  auto ramping = whole;
  for (MaglevTarget& target : ramping) target.weight *= kRampSteps;
  EXPECT_EQ(build(ramping, 65537), build(whole, 65537));
  std::vector<std::uint16_t> before;
  double most = 0;
  for (std::uint32_t step = 1; step <= kRampSteps; ++step) {
    ramping[4].weight = step;
    const auto slots = build(ramping, 65537);
    std::size_t moved = 0;
    for (std::size_t s = 0; s < before.size(); ++s) moved += slots[s] != before[s] ? 1U : 0U;
    most = std::max(most, static_cast<double>(moved) / 65537);
    before = slots;
  }
  EXPECT_LT(most, 0.01);
  RecordProperty("most_moved_at_a_step", std::to_string(most));
}

}  // namespace
}  // namespace lb::cp
