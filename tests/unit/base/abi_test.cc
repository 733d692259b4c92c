#include <gtest/gtest.h>

#include "dp/abi/fingerprint.h"

namespace lb::abi {
namespace {

TEST(Abi, CounterNamesAreUnique) {
  for (std::size_t i = 0; i < kCounterCount; ++i) {
    for (std::size_t j = i + 1; j < kCounterCount; ++j) EXPECT_NE(kCounters[i].name, kCounters[j].name);
  }
}

TEST(Abi, DropReasonsMapToTheirCounters) {
  EXPECT_EQ(drop_counter(DropReason::truncated), Counter::drop_truncated);
  EXPECT_EQ(drop_counter(DropReason::tx_full), Counter::drop_tx_full);
  EXPECT_EQ(to_string(DropReason::no_listener), "no_listener");
  EXPECT_EQ(to_string(DropReason::none), "");
}

// The contract of this build, written down: a change of any struct of dp/abi must come with a raised version and a new
// number here, so that it is never silent.
TEST(Abi, FingerprintsAreThoseOfTheirVersions) {
  EXPECT_EQ(kSnapshotVersion, 1U);
  EXPECT_EQ(snapshot_fingerprint(), 0x213ea15f9d72f50cU);
  EXPECT_EQ(kRegionVersion, 2U);
  EXPECT_EQ(region_fingerprint(), 0x4238de9697a169faU);
}

}  // namespace
}  // namespace lb::abi
