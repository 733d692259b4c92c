// A disk that is full or cannot be written: configurations come into force all the same, lb-cp says what is not stored, and
// what was stored last is whole.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "cp/control/controller.h"
#include "cp/control/state_file.h"

namespace lb::cp {
namespace {

using namespace std::chrono_literals;

std::string config(int targets) {
  std::string text = R"(version: 1
seed: 1
vips: [{name: web, address: 192.0.2.10}]
listeners: [{name: web-80, vip: web, protocol: TCP, port: 80, target_groups: [{name: blue}]}]
target_groups:
  - {name: blue, protocol: TCP, port: 80, table_size: 251, health_check: {protocol: NONE}, targets: [)";
  for (int n = 1; n <= targets; ++n)
    text += (n == 1 ? "" : ", ") + std::string("{address: 10.9.9.") + std::to_string(n) + "}";
  return text + "]}\n";
}

// The state folder is a small file system of its own, in namespaces of the test's thread.
class DiskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "lb-disk-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    std::filesystem::create_directories(directory_ / "state");
    thread_ = std::thread([this] { run(); });
    thread_.join();
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void run() {
    ASSERT_EQ(unshare(CLONE_NEWNET | CLONE_NEWNS), 0) << "needs root";
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    ASSERT_EQ(mount("tmpfs", (directory_ / "state").c_str(), "tmpfs", 0, "size=256k"), 0);
    auto opened = Controller::open({"", directory_ / "state", directory_ / "dp.sock"});
    ASSERT_TRUE(opened) << opened.error();
    controller_ = std::move(*opened);
    controller_->start();
    scenario();
    controller_.reset();
    umount2((directory_ / "state").c_str(), MNT_DETACH);
  }
  virtual void scenario() = 0;

  void apply(int targets) {
    const ApplyOutcome outcome = controller_->apply(config(targets), "test.yaml", {.timeout = 0ms, .force = true});
    EXPECT_TRUE(outcome.violations.empty() && outcome.refused.empty());
    EXPECT_EQ(controller_->live()->groups.at(0).targets.size(), static_cast<std::size_t>(targets)) << "in force";
  }
  // What was said last of the state on disk, once it is `wanted`.
  std::string wait_for(const std::string& wanted) {
    for (int i = 0; i < 2000; ++i) {
      const auto live = controller_->live();
      for (const Event& event : live->events) {
        if (event.object != "state") continue;
        if (event.new_state == wanted) return event.detail;
        break;
      }
      std::this_thread::sleep_for(10ms);
    }
    return "it was never " + wanted;
  }
  std::string stored() const {
    std::ifstream file(directory_ / "state/state.json");
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const auto state = decode_state(text);
    return state ? state->config_text : state.error();
  }

  std::filesystem::path directory_;
  std::unique_ptr<Controller> controller_;
  std::thread thread_;
};

class FullDiskTest : public DiskTest {
  void scenario() override {
    apply(2);
    controller_->drain(*parse_address_port("10.9.9.1:80"), std::nullopt, {});  // returns when the disk has it
    EXPECT_EQ(stored(), config(2));
    std::ofstream filler(directory_ / "state/filler", std::ios::binary);
    const std::string page(4096, 'x');
    while (filler.write(page.data(), 4096).flush()) continue;
    apply(3);
    EXPECT_NE(wait_for("not stored").find("No space left on device"), std::string::npos);
    EXPECT_EQ(stored(), config(2)) << "the last good one";
    filler.close();
    std::filesystem::remove(directory_ / "state/filler");
    apply(4);
    EXPECT_EQ(wait_for("stored"), "");
    EXPECT_EQ(stored(), config(4));
  }
};
TEST_F(FullDiskTest, LastGoodStateStaysAndItIsSaid) {}

class ReadOnlyDiskTest : public DiskTest {
  void scenario() override {
    apply(2);
    controller_->drain(*parse_address_port("10.9.9.1:80"), std::nullopt, {});
    const std::string state = directory_ / "state";
    // The same folder, mounted over itself for reading: lb-cp's lock is open for writing below.
    ASSERT_EQ(mount(state.c_str(), state.c_str(), nullptr, MS_BIND, nullptr), 0);
    ASSERT_EQ(mount(nullptr, state.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr), 0);
    apply(3);
    EXPECT_NE(wait_for("not stored").find("Read-only file system"), std::string::npos);
    EXPECT_EQ(stored(), config(2));
    ASSERT_EQ(umount2(state.c_str(), MNT_DETACH), 0);
    apply(4);
    EXPECT_EQ(wait_for("stored"), "");
    EXPECT_EQ(stored(), config(4));
  }
};
TEST_F(ReadOnlyDiskTest, LastGoodStateStaysAndItIsSaid) {}

}  // namespace
}  // namespace lb::cp
