#include "dp/lb/ways_back.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace lb
