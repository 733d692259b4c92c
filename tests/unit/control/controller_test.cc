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
#include <iterator>
#include <stdexcept>

#include "cp/control/history.h"

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
  ApplyOutcome apply(const std::string& text, bool force = true) {
    return controller_->apply(text, "test.yaml", {.timeout = 0ms, .force = force});
  }
  std::vector<std::string> events(const std::string& object) {
    std::vector<std::string> found;
    const auto live = controller_->live();  // outlives the loop
    for (const Event& event : live->events) {
      if (event.object == object) found.push_back(event.new_state + ": " + event.detail);
    }
    return found;
  }
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
  ASSERT_TRUE(controller_->drain(*parse_address_port("10.9.9.2:80"), std::nullopt, {}));
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

TEST_F(ControllerTest, DrainIsOnDiskWhenItIsToldAsDone) {
  apply(config("{address: 10.9.9.1}, {address: 10.9.9.2}"));
  ASSERT_TRUE(controller_->drain(*parse_address_port("10.9.9.2:80"), std::nullopt, {}));
  std::string text;
  for (const char* file : {"state/state.json", "state/state.journal"}) {
    std::ifstream state(directory_ / file);
    text.append(std::istreambuf_iterator<char>(state), {});
  }
  EXPECT_NE(text.find("\"drained\":true"), std::string::npos);
}

TEST_F(ControllerTest, DrainsTermsAndTheFreezeOutliveARestart) {
  apply(config("{address: 10.9.9.1}, {address: 10.9.9.2}"));
  ASSERT_TRUE(controller_->drain(*parse_address_port("10.9.9.2:80"), std::nullopt, {900s, abi::TrackedFlows::reset}));
  EXPECT_FALSE(controller_->freeze_health(true, "switch replaced"));
  const std::int64_t ends = controller_->live()->groups[0].targets[1].status.drain_ends_unix_ms;
  start();
  const auto live = controller_->live();
  EXPECT_EQ(live->groups[0].targets[1].status.drain_ends_unix_ms, ends);
  EXPECT_EQ(live->groups[0].targets[1].drain_then, abi::TrackedFlows::reset);
  EXPECT_EQ(live->freeze.note, "switch replaced");
  EXPECT_EQ(events("health"), std::vector<std::string>{"frozen: switch replaced"}) << "said anew";
  EXPECT_TRUE(controller_->freeze_health(false, ""));
  EXPECT_FALSE(controller_->freeze_health(false, "")) << "twice is once";
  start();
  EXPECT_FALSE(controller_->live()->freeze.frozen());
}

TEST_F(ControllerTest, WhyByAnEarlierConfigurationIsOfThatOne) {
  apply(config("{address: 10.9.9.1}"));
  const auto first = controller_->history()[0];
  apply(config("{address: 10.9.9.2}"));
  const auto address_of = [](const ExplainedConfig& explained) {
    for (const abi::Target& target : explained.context.snapshot->targets()) {
      if ((target.flags & abi::kTargetLive) != 0 && target.weight > 0) return format_address(target.address);
    }
    return std::string("none");
  };
  const auto earlier = controller_->explain_by({first.number, {}});
  ASSERT_TRUE(earlier) << earlier.error();
  EXPECT_EQ(address_of(*earlier), "10.9.9.1");
  EXPECT_EQ(earlier->record.number, first.number);
  const auto at = controller_->explain_by({0, first.generation});
  ASSERT_TRUE(at) << at.error();
  EXPECT_EQ(at->record.number, first.number);
  EXPECT_EQ(address_of(*controller_->explain_by({0, abi::Generation{first.generation.epoch + 9, 1}})), "10.9.9.2");
  EXPECT_NE(controller_->explain_by({77, {}}).error().find("no configuration 77"), std::string::npos);
  EXPECT_FALSE(controller_->explain_by({0, abi::Generation{0, 0}}));
}

TEST_F(ControllerTest, FileOfTheCommandLineWinsAtStartAndIsReadAgainOnReload) {
  apply(config("{address: 10.9.9.1}"));
  const std::string file = directory_ / "lb.yaml";
  std::ofstream(file) << config("{address: 10.9.9.7}");
  start(file);
  EXPECT_TRUE(controller_->diff(config("{address: 10.9.9.7}"), "x").changes.empty());
  std::ofstream(file) << config("{address: 10.9.9.7}, {address: 10.9.9.8}");
  controller_->reload();
  EXPECT_TRUE(controller_->diff(config("{address: 10.9.9.7}, {address: 10.9.9.8}"), "x").changes.empty());
  EXPECT_EQ(controller_->history()[0].cause, "SIGHUP");
  std::ofstream(file) << "version: 9\n";
  controller_->reload();
  std::ofstream(file) << config("{address: 10.9.9.7}");
  controller_->reload();  // half of the targets: a file cut short would do that
  EXPECT_TRUE(controller_->diff(config("{address: 10.9.9.7}, {address: 10.9.9.8}"), "x").changes.empty());
  EXPECT_NE(events("config")[0].find("it removes 1 of 2 targets, more than 10 %"), std::string::npos) << events("config")[0];
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

std::string many(int targets) {
  std::string list;
  for (int i = 0; i < targets; ++i)
    list += (i == 0 ? "{address: 10.9.8." : ", {address: 10.9.8.") + std::to_string(i + 1) + "}";
  return config(list);
}

TEST_F(ControllerTest, MoreThanATenthOfTheTargetsGoesOnlyByForce) {
  apply(many(20));
  EXPECT_EQ(apply(many(18), false).refused, "");
  const ApplyOutcome outcome = apply(many(16), false);
  EXPECT_EQ(outcome.refused, "it removes 2 of 18 targets, more than 10 %");
  EXPECT_EQ(outcome.changes.size(), 2U) << "what it would have done is shown";
  EXPECT_TRUE(controller_->diff(many(18), "x").changes.empty());
  EXPECT_EQ(apply("version: 1\nseed: 1\n", false).refused, "it removes 1 of 1 VIPs, more than 10 %");
  EXPECT_EQ(apply(many(16), true).refused, "");
  EXPECT_TRUE(controller_->diff(many(16), "x").changes.empty());
}

TEST_F(ControllerTest, ApplierWhoLookedBeforeTheLastChangeIsRefused) {
  const ApplyOutcome first = apply(many(3));
  const auto fenced = [&](const std::string& text, abi::Generation generation) {
    return controller_->apply(text, "b.yaml", {.timeout = 0ms, .force = true, .if_generation = generation});
  };
  const abi::Generation seen = controller_->history()[0].generation;
  EXPECT_EQ(fenced(many(4), seen).refused, "");
  const std::string refused = fenced(many(5), seen).refused;
  EXPECT_NE(refused.find("configuration 2 (apply, b.yaml) came into force with generation "), std::string::npos) << refused;
  EXPECT_TRUE(controller_->diff(many(4), "x").changes.empty());
  EXPECT_NE(fenced(many(5), {seen.epoch + 7, 1}).refused.find("there is no generation"), std::string::npos);
  EXPECT_EQ(fenced(many(5), controller_->history()[0].generation).refused, "");
}

TEST_F(ControllerTest, LastTenConfigurationsAreKeptAcrossRestartsAndCanBeBroughtBack) {
  for (int i = 1; i <= 12; ++i) apply(many(i));
  start();
  std::vector<ConfigRecord> history = controller_->history();
  ASSERT_EQ(history.size(), kMaxHistory);
  EXPECT_EQ(history.front().number, 12U);
  EXPECT_EQ(history.back().number, 3U);
  EXPECT_EQ(controller_->config_text(0)->text, many(12));
  EXPECT_EQ(controller_->config_text(5)->text, many(5));
  EXPECT_EQ(controller_->config_text(2).error(), "no configuration 2; the history has 3 to 12");
  EXPECT_EQ(controller_->rollback(5, {})->refused, "it removes 7 of 12 targets, more than 10 %");
  const auto outcome = controller_->rollback(5, {.force = true});
  ASSERT_TRUE(outcome) << outcome.error();
  EXPECT_EQ(outcome->changes.size(), 7U);
  EXPECT_TRUE(controller_->diff(many(5), "x").changes.empty());
  history = controller_->history();
  EXPECT_EQ(history[0].number, 13U);
  EXPECT_EQ(history[0].cause, "rollback to 5");
  EXPECT_EQ(history[0].file, "test.yaml");
  EXPECT_FALSE(controller_->rollback(99, {}));
}

TEST_F(ControllerTest, CommentsAreGivenBackByExportWithoutANewGeneration) {
  apply(many(2));
  const auto before = controller_->live()->generation;
  const ApplyOutcome outcome = apply("# ours\n" + many(2));
  EXPECT_TRUE(outcome.changes.empty());
  EXPECT_EQ(controller_->live()->generation, before);
  EXPECT_EQ(controller_->config_text(0)->text, "# ours\n" + many(2));
  start();
  EXPECT_EQ(controller_->config_text(0)->text, "# ours\n" + many(2));
}

TEST_F(ControllerTest, BrokenHistoryFileIsSetAsideAndTheOthersStay) {
  for (int i = 1; i <= 4; ++i) apply(many(i));
  controller_.reset();
  const std::filesystem::path folder = directory_ / "state/history";
  std::filesystem::resize_file(folder / "2.yaml", std::filesystem::file_size(folder / "2.yaml") - 3);
  std::filesystem::remove(folder / "4.yaml");  // as if power had gone before it was written
  start();
  std::vector<std::uint64_t> numbers;
  for (const ConfigRecord& record : controller_->history()) numbers.push_back(record.number);
  EXPECT_EQ(numbers, (std::vector<std::uint64_t>{4, 3, 1}));
  EXPECT_EQ(controller_->config_text(4)->text, many(4));
  EXPECT_TRUE(std::filesystem::exists(folder / "2.yaml.corrupt"));
  EXPECT_NE(events("history")[0].find("2.yaml is corrupt: its checksum is wrong"), std::string::npos)
      << events("history")[0];
}

TEST_F(ControllerTest, SingleChangesGoTheWayOfAFile) {
  apply(config("{address: 10.9.9.1}"));
  const auto edit = [&](const Edit& change) { return controller_->edit(change, {.timeout = 0ms}); };
  const auto target = [](EditAction action, const char* address, std::optional<std::uint32_t> weight = {}) {
    return TargetEdit{action, "blue", address, weight};
  };
  EXPECT_EQ(edit(target(EditAction::add, "10.9.9.2:80", 7)).changes.size(), 1U);
  EXPECT_TRUE(controller_->diff(config("{address: 10.9.9.1}, {address: 10.9.9.2, weight: 7}"), "x").changes.empty());
  EXPECT_EQ(edit(target(EditAction::set, "10.9.9.2:80", 9)).changes[0].new_value, "9");
  EXPECT_EQ(edit(target(EditAction::remove, "10.9.9.1:80")).refused, "");
  EXPECT_TRUE(controller_->diff(config("{address: 10.9.9.2, weight: 9}"), "x").changes.empty());
  const ApplyOutcome wrong = edit(target(EditAction::add, "10.9.9.2:80"));
  ASSERT_EQ(wrong.violations.size(), 1U);
  EXPECT_EQ(wrong.violations[0].field, "target");
  const ApplyOutcome family = edit(target(EditAction::add, "127.0.0.1:80"));
  ASSERT_EQ(family.violations.size(), 1U) << "a change is judged like a file";
  EXPECT_EQ(controller_->history()[0].cause, "target remove blue 10.9.9.1:80");
}

}  // namespace
}  // namespace lb::cp
