// What operators do beside configurations: drains, frozen health.
#include "tests/unit/cli/lbctl_fixture.h"

namespace lb::cli {
namespace {

TEST_F(LbctlTest, DrainSaysWhenAndWhatThen) {
  const Outcome drained = lbctl({"drain", "10.77.2.2:80", "--deadline", "10m", "--then", "reset"});
  EXPECT_EQ(drained.code, kExitOk) << drained.err;
  EXPECT_EQ(operations_.drain_terms.deadline, std::chrono::minutes(10));
  EXPECT_EQ(operations_.drain_terms.then, abi::TrackedFlows::reset);
  EXPECT_EQ(lbctl({"drain", "10.77.2.2:80"}).code, kExitOk);
  EXPECT_EQ(operations_.drain_terms.deadline, std::nullopt) << "the group's";
  for (const char* bad : {"10x", "-1", "25h", "m", "1 0"})
    EXPECT_EQ(lbctl({"drain", "10.77.2.2:80", "--deadline=" + std::string(bad)}).code, kExitError) << bad;
  EXPECT_EQ(lbctl({"drain", "10.77.2.2:80", "--then", "explode"}).code, kExitError);
}

TEST_F(LbctlTest, DrainThatIsOverSaysWhatBecomesOfTheFlows) {
  cp::LiveTarget& target = operations_.state.groups[0].targets[0];
  target.status.drain_ends_unix_ms = 4'000'000'000'000;
  target.drain_then = abi::TrackedFlows::reset;
  between_rounds_ = [&] { target.status.state = abi::TargetState::unused; };
  const Outcome outcome = lbctl({"drain", "10.77.2.2:80", "--wait"}, "", false, 9);
  EXPECT_NE(outcome.out.find("the delay is over: 41 flows are reset with their next packet\n"), std::string::npos)
      << outcome.out;
}

TEST_F(LbctlTest, FreezeAndUnfreezeAreSaidEverywhere) {
  EXPECT_NE(lbctl({"freeze", "--note", "switch replaced"}).out.find("health is frozen since"), std::string::npos);
  EXPECT_NE(lbctl({"get", "targets"}).out.find("(switch replaced): lbctl unfreeze"), std::string::npos);
  EXPECT_NE(lbctl({"get", "target-groups"}).out.find("health is frozen"), std::string::npos);
  EXPECT_NE(lbctl({"version"}).out.find("frozen since"), std::string::npos);
  EXPECT_NE(lbctl({"doctor", "-o", "wide"}).out.find("look  health"), std::string::npos);
  EXPECT_EQ(lbctl({"unfreeze"}).out, "health is unfrozen\n");
  EXPECT_EQ(lbctl({"unfreeze"}).out, "health was not frozen\n");
  EXPECT_EQ(lbctl({"get", "targets"}).out.find("frozen"), std::string::npos);
}

}  // namespace
}  // namespace lb::cli
