// Algorithms beside Maglev, through the packet path.
#include "dp/lb/algorithm.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/unit/lb/lab.h"

namespace lb::test {
namespace {

class AlgorithmTest : public ::testing::Test {
 protected:
  void use(abi::Algorithm algorithm, std::vector<std::uint16_t> weights = {1, 1, 1, 1}) {
    abi::TargetGroup& group = lab.world.groups[lab.blue];
    group.algorithm = algorithm;
    for (std::size_t i = 0; i < weights.size(); ++i) lab.world.targets[i].weight = weights[i];
    lab.apply();
  }
  std::uint32_t open(std::uint16_t n) { return lab.send(client(n), net::kTcpSyn).target[0]; }

  Lab lab;
};

TEST_F(AlgorithmTest, RoundRobinTakesTurnsAndKeepsTheChoice) {
  use(abi::Algorithm::round_robin);
  std::vector<std::uint32_t> chosen;
  for (std::uint16_t n = 0; n < 8; ++n) chosen.push_back(open(n));
  EXPECT_EQ(chosen, (std::vector<std::uint32_t>{0, 1, 2, 3, 0, 1, 2, 3}));
  for (std::uint16_t n = 0; n < 8; ++n) EXPECT_EQ(lab.send(client(n), net::kTcpAck).target[0], chosen[n]);
}

TEST_F(AlgorithmTest, RoundRobinFollowsWeights) {
  use(abi::Algorithm::round_robin, {2, 1, 1, 3});
  std::map<std::uint32_t, int> counts;
  for (std::uint16_t n = 0; n < 70; ++n) ++counts[open(n)];
  EXPECT_EQ(counts, (std::map<std::uint32_t, int>{{0, 20}, {1, 10}, {2, 10}, {3, 30}}));
}

TEST_F(AlgorithmTest, LeastConnectionsFillsWhoHasFewest) {
  use(abi::Algorithm::least_connections);
  std::map<std::uint32_t, int> counts;
  for (std::uint16_t n = 0; n < 40; ++n) ++counts[open(n)];
  for (std::uint32_t target = 0; target < 4; ++target) EXPECT_EQ(counts[target], 10) << target;
}

TEST_F(AlgorithmTest, LeastConnectionsFollowsWeights) {
  use(abi::Algorithm::least_connections, {3, 1, 1, 1});
  std::map<std::uint32_t, int> counts;
  for (std::uint16_t n = 0; n < 60; ++n) ++counts[open(n)];
  EXPECT_EQ(counts, (std::map<std::uint32_t, int>{{0, 30}, {1, 10}, {2, 10}, {3, 10}}));
}

TEST_F(AlgorithmTest, PacketInTheMiddleOfAFlowGoesByMaglev) {
  std::map<std::uint16_t, std::uint32_t> by_maglev;
  for (std::uint16_t n = 0; n < 32; ++n) by_maglev[n] = lab.send(client(n), net::kTcpAck).target[0];
  Lab other;
  other.world.groups[other.blue].algorithm = abi::Algorithm::round_robin;
  other.apply();
  for (std::uint16_t n = 0; n < 32; ++n) EXPECT_EQ(other.send(client(n), net::kTcpAck).target[0], by_maglev[n]);
}

}  // namespace
}  // namespace lb::test
