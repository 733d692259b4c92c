#include "dp/lb/flow_census.h"

#include <gtest/gtest.h>

#include <vector>

#include "dp/lb/flow_ops.h"

namespace lb {
namespace {

void set(abi::FlowLine& line, std::size_t i, std::uint32_t target, FlowState state, std::uint64_t tick) {
  line.key[i] = 0xabcdef0000 | tick;
  line.meta[i] = make_meta(target, state);
}

TEST(FlowCensus, CountsByTargetStateAndIdleTime) {
  std::vector<abi::FlowLine> lines(4);
  set(lines[0], 0, 7, FlowState::assumed, 1000);
  set(lines[0], 4, 7, FlowState::assumed, 1000 - 40);   // 10 s
  set(lines[1], 2, 7, FlowState::closing, 1000 - 241);  // above 60 s
  set(lines[3], 1, 9, FlowState::udp, 1000 - 5);
  FlowCensus census;
  take_census(census, lines, 1, 1000 * kTickNs);
  EXPECT_EQ(census.lines, 4U);
  EXPECT_EQ(census.lines_read, 4U);
  ASSERT_EQ(census.counts.size(), 3U);
  const FlowCount& assumed = census.counts[{7, FlowState::assumed}];
  EXPECT_EQ(assumed.flows, 2U);
  EXPECT_EQ(assumed.idle, (std::array<std::uint64_t, 4>{1, 1, 0, 0}));
  EXPECT_EQ((census.counts[{7, FlowState::closing}].idle[3]), 1U);
  EXPECT_EQ((census.counts[{9, FlowState::udp}].idle[1]), 1U);
}

TEST(FlowCensus, SampleReadsEveryNthLineOfEachTable) {
  std::vector<abi::FlowLine> lines(100);
  for (abi::FlowLine& line : lines) set(line, 0, 1, FlowState::udp, 10);
  FlowCensus census;
  take_census(census, lines, 10, 10 * kTickNs);
  take_census(census, lines, 10, 10 * kTickNs);
  EXPECT_EQ(census.lines, 200U);
  EXPECT_EQ(census.lines_read, 20U);
  EXPECT_EQ((census.counts[{1, FlowState::udp}].flows), 20U);
}

}  // namespace
}  // namespace lb
