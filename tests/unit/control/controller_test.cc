// The control loop without a data plane: what it decides and keeps. With one: tests/e2e.
#include "cp/control/controller.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace lb::cp {
namespace {

using namespace std::chrono_literals;

std::string config(const std::string& targets) {
  return R"(version: 1
seed: 1
vips: [{name: web, address: 192.0.2.10}]
listeners: [{name: web-80, vip: web, protocol: TCP, port: 80, target_groups: [{name: blue}]}]
target_groups:
  - {name: blue, protocol: TCP, port: 80, health_check: {protocol: NONE}, targets: [)" +
         targets + "]}\n";
}

class ControllerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "lb-control-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    home_ = ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    ASSERT_EQ(unshare(CLONE_NEWNET), 0) << "needs root";  // lb-cp would keep the host's neighbours
    start();
  }
  void TearDown() override {
    controller_.reset();
    EXPECT_EQ(setns(home_, CLONE_NEWNET), 0);
    close(home_);
    std::filesystem::remove_all(directory_);
  }
  void start(const std::string& file = "") {
    controller_.reset();
    auto opened = Controller::open({file, directory_ / "state", directory_ / "dp.sock"});
    if (!opened) throw std::runtime_error(opened.error());  // fails the test at once
    controller_ = std::move(*opened);
    controller_->start();
  }
  ApplyOutcome apply(const std::string& text) { return controller_->apply(text, "test.yaml", 0ms); }
  // Targets of the one group as "address state".
  std::vector<std::string> targets() {
    std::vector<std::string> rows;
    const auto live = controller_->live();
    for (const LiveGroup& group : live->groups) {
      for (const LiveTarget& target : group.targets) {
        rows.push_back(format_address(target.key.address) + " " + std::string(to_string(target.status.state)));
      }
    }
    return rows;
  }

  int home_ = -1;
  std::filesystem::path directory_;
  std::unique_ptr<Controller> controller_;
};

TEST_F(ControllerTest, AppliedConfigurationIsKeptAndSaysThatNobodyForwardsByItYet) {
  const ApplyOutcome outcome = apply(config("{address: 10.9.9.1}, {address: 10.9.9.2}"));
  EXPECT_TRUE(outcome.violations.empty());
  EXPECT_FALSE(outcome.changes.empty());
  EXPECT_FALSE(outcome.active);
  EXPECT_NE(outcome.note.find("is kept and published when lb-dp is there"), std::string::npos) << outcome.note;
  EXPECT_EQ(controller_->diff(config("{address: 10.9.9.1}"), "x").changes.size(), 1U);
  EXPECT_TRUE(controller_->diff(config("{address: 10.9.9.2}, {address: 10.9.9.1}"), "x").changes.empty());
}

TEST_F(ControllerTest, WrongConfigurationChangesNothing) {
  apply(config("{address: 10.9.9.1}"));
  const ApplyOutcome outcome = apply(config("{address: 10.9.9.256}"));
  ASSERT_EQ(outcome.violations.size(), 1U);
  EXPECT_EQ(outcome.violations[0].file, "test.yaml");
  EXPECT_EQ(outcome.violations[0].line, 6U);
  EXPECT_TRUE(controller_->diff(config("{address: 10.9.9.1}"), "x").changes.empty());
}

TEST_F(ControllerTest, StateSurvivesARestart) {
  apply(config("{address: 10.9.9.1}, {address: 10.9.9.2}, {address: 10.9.9.3}"));
  ASSERT_TRUE(controller_->drain(*parse_address("10.9.9.2"), 80, std::nullopt, true));
  apply(config("{address: 10.9.9.1}, {address: 10.9.9.2}"));
  const auto before = controller_->live();
  const std::vector<std::string> rows{"10.9.9.1 unavailable", "10.9.9.2 draining", "10.9.9.3 draining"};
  EXPECT_EQ(targets(), rows);
  start();
  EXPECT_EQ(targets(), rows);
  const auto after = controller_->live();
  EXPECT_GT(after->generation.epoch, before->generation.epoch);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(after->groups[0].targets[i].status.id, before->groups[0].targets[i].status.id);
}

TEST_F(ControllerTest, FileOfTheCommandLineWinsAtStartAndIsReadAgainOnReload) {
  apply(config("{address: 10.9.9.1}"));
  const std::string file = directory_ / "lb.yaml";
  std::ofstream(file) << config("{address: 10.9.9.7}");
  start(file);
  EXPECT_TRUE(controller_->diff(config("{address: 10.9.9.7}"), "x").changes.empty());
  std::ofstream(file) << config("{address: 10.9.9.8}");
  controller_->reload();
  EXPECT_TRUE(controller_->diff(config("{address: 10.9.9.8}"), "x").changes.empty());
  std::ofstream(file) << "version: 9\n";
  controller_->reload();
  EXPECT_TRUE(controller_->diff(config("{address: 10.9.9.8}"), "x").changes.empty());
  const auto live = controller_->live();
  EXPECT_NE(std::ranges::find(live->events, "refused", &Event::new_state), live->events.end());
}

TEST_F(ControllerTest, ViolationsOfTheFileAtStartAreNamed) {
  controller_.reset();
  const std::string file = directory_ / "bad.yaml";
  std::ofstream(file) << "version: 1\nseed: x\n";
  const auto opened = Controller::open({file, directory_ / "other", directory_ / "dp.sock"});
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().find(file + ":2: seed: "), std::string::npos) << opened.error();
}

}  // namespace
}  // namespace lb::cp
