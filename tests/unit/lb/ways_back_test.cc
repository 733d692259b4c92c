#include "dp/lb/ways_back.h"

#include <gtest/gtest.h>

#include <vector>

namespace lb {
namespace {

constexpr abi::IpAddress kClient = abi::IpAddress::v4(203, 0, 113, 5);

WayBack way(std::uint8_t last, std::uint16_t vlan = 0) {
  return {.neighbour = {2, 0, 0, 0, 0, last}, .own = {2, 0, 0, 0, 1, 1}, .vlan = vlan, .own_port = 1, .used = 1};
}

TEST(WaysBack, GivesBackWhatItLearned) {
  WaysBack ways;
  const std::uint32_t one = ways.learn(kClient, way(1), 0, 10);
  const std::uint32_t two = ways.learn(kClient, way(2, 7), one, 10);
  ASSERT_NE(one, 0U);
  ASSERT_NE(two, one);
  EXPECT_EQ(ways.at(kClient, one), way(1));
  EXPECT_EQ(ways.at(kClient, two), way(2, 7));
  EXPECT_EQ(ways.at(kClient, 0).used, 0);
  EXPECT_EQ(ways.at(kClient, 127).used, 0);
  EXPECT_EQ(ways.at(kClient, 128).used, 0);
}

TEST(WaysBack, KnowsAWayAgain) {
  WaysBack ways;
  const std::uint32_t one = ways.learn(kClient, way(1), 0, 10);
  const std::uint32_t two = ways.learn(kClient, way(2), 0, 10);
  EXPECT_EQ(ways.learn(kClient, way(1), two, 11), one);
  EXPECT_EQ(ways.learn(kClient, way(1), one, 11), one);
}

TEST(WaysBack, FullGivesNoWayUntilOneHasRestedLongerThanAnyFlow) {
  WaysBack ways;
  for (std::uint8_t n = 1; n < WaysBack::kWays; ++n) ASSERT_NE(ways.learn(kClient, way(n), 0, 100), 0U);
  EXPECT_EQ(ways.learn(kClient, way(200), 0, 100 + 14'400), 0U);
  for (std::uint8_t n = 2; n < WaysBack::kWays; ++n) ways.learn(kClient, way(n), 0, 14'000);
  const std::uint32_t number = ways.learn(kClient, way(200), 0, 100 + 14'401);
  EXPECT_EQ(ways.at(kClient, number), way(200));
}

TEST(WaysBack, MemoryOfAnEarlierRunKeepsTheWays) {
  abi::NatWays memory;
  const std::uint32_t number = WaysBack(&memory).learn(kClient, way(1), 0, 10);
  EXPECT_EQ(WaysBack(&memory).at(kClient, number), way(1));
  EXPECT_EQ(WaysBack(&memory).learn(kClient, way(1), 0, 20), number);
}

TEST(WaysBack, AWayOverAPortThatIsAnotherNowIsShutAndItsNumberIsNotGivenOut) {
  const abi::MacAddress other{2, 0, 0, 0, 9, 9};
  const std::vector<std::vector<abi::MacAddress>> changed{{other}, {other, other}};
  for (const auto& ports : changed) {
    abi::NatWays memory;
    const std::uint32_t number = WaysBack(&memory).learn(kClient, way(1), 0, 10);
    shut_strange_ways(memory, ports);
    EXPECT_EQ(WaysBack(&memory).at(kClient, number).used, 0);
    EXPECT_NE(WaysBack(&memory).learn(kClient, way(2), number, 11), number);
  }
  abi::NatWays memory;
  const std::uint32_t number = WaysBack(&memory).learn(kClient, way(1), 0, 10);
  shut_strange_ways(memory, std::vector<abi::MacAddress>{other, way(1).own});
  EXPECT_EQ(WaysBack(&memory).at(kClient, number), way(1));
}

TEST(WaysBack, WorkersThatShareTheirFlowsShareTheirWays) {
  abi::NatWays one;
  abi::NatWays two;
  const std::uint32_t same = WaysBack(&one).learn(kClient, way(1), 0, 10);
  ASSERT_EQ(WaysBack(&two).learn(kClient, way(1), 0, 10), same);
  const std::uint32_t clash = WaysBack(&one).learn(kClient, way(2), 0, 10);
  ASSERT_EQ(WaysBack(&two).learn(kClient, way(3), 0, 10), clash);
  const std::uint32_t lone = WaysBack(&two).learn(kClient, way(4), 0, 10);
  abi::NatWays merged;
  const std::vector<const abi::NatWays*> from{&one, &two};
  const std::vector<abi::NatWays*> to{&merged};
  merge_ways(from, to);
  WaysBack ways(&merged);
  EXPECT_EQ(ways.at(kClient, same), way(1));
  EXPECT_EQ(ways.at(kClient, clash).used, 0) << "the number meant two ways";
  EXPECT_EQ(ways.at(kClient, lone), way(4));
  EXPECT_GT(ways.learn(kClient, way(5), 0, 20), lone);
}

}  // namespace
}  // namespace lb
