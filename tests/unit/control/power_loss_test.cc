// State and history when the machine stops at any moment of writing them. A child that saves is killed at each of its system
// calls in turn; what it leaves is read as the next lb-cp would. And nothing takes its place before it is on the disk.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <vector>

#include "cp/control/history.h"
#include "cp/control/state_file.h"

namespace lb::cp {
namespace {

class PowerLossTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "lb-power-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  // Runs `work` in a child and ends it at the entry of its system call number `last` (from 0). Returns the calls it made;
  // `ended`: it came to its end before.
  static std::vector<long> run(const std::function<void()>& work, std::size_t last, bool& ended) {
    const pid_t child = fork();
    if (child == 0) {
      ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      raise(SIGSTOP);
      work();
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    std::vector<long> calls;
    bool entering = true;
    for (;;) {
      ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
      waitpid(child, &status, 0);
      if (WIFEXITED(status) || WIFSIGNALED(status)) {
        ended = true;
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        return calls;
      }
      if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
      if (entering) {
        user_regs_struct registers{};
        ptrace(PTRACE_GETREGS, child, nullptr, &registers);
        calls.push_back(static_cast<long>(registers.orig_rax));
        if (calls.size() > last) {
          kill(child, SIGKILL);
          waitpid(child, &status, 0);
          ended = false;
          return calls;
        }
      }
      entering = !entering;
    }
  }

  // Ends `work` at each of its calls; `check` looks at what is left.
  static std::vector<long> at_each_call(const std::function<void()>& prepare, const std::function<void()>& work,
                                        const std::function<void()>& check) {
    bool ended = false;
    std::vector<long> calls;
    for (std::size_t last = 0; !ended; ++last) {
      prepare();
      calls = run(work, last, ended);
      check();
    }
    EXPECT_GT(calls.size(), 5U);
    return calls;
  }

  // What takes the place of the old is on the disk before, and its name after.
  static void expect_synced(const std::vector<long>& calls) {
    const auto at = [&](long call, std::size_t from) {
      for (std::size_t i = from; i < calls.size(); ++i) {
        if (calls[i] == call) return i;
      }
      return calls.size();
    };
    const std::size_t written = at(SYS_write, 0);
    const std::size_t synced = at(SYS_fsync, written);
    const std::size_t renamed = at(SYS_rename, 0);
    ASSERT_LT(written, synced);
    ASSERT_LT(synced, renamed);
    std::size_t last_rename = renamed;
    for (std::size_t i = renamed; i < calls.size(); ++i) last_rename = calls[i] == SYS_rename ? i : last_rename;
    EXPECT_LT(at(SYS_fsync, last_rename), calls.size()) << "the folder";
  }

  std::filesystem::path directory_;
};

TEST_F(PowerLossTest, StateIsTheOldOneOrTheNewOneWhereverItIsCut) {
  const std::filesystem::path state = directory_ / "state";
  const auto encoded = [](std::uint64_t epoch) { return encode_state({.config_text = "version: 1\n", .epoch = epoch}); };
  std::uint64_t seen_old = 0;
  std::uint64_t seen_new = 0;
  const auto calls = at_each_call(
      [&] {
        std::filesystem::remove_all(state);
        auto file = StateFile::open(state);
        ASSERT_TRUE(file->save(encoded(6)));
        ASSERT_TRUE(file->save(encoded(7)));
      },
      [&] {
        auto file = StateFile::open(state);
        if (!file->save(encoded(8))) _exit(1);
      },
      [&] {
        auto file = StateFile::open(state);
        ASSERT_TRUE(file);
        const auto loaded = file->load();
        ASSERT_TRUE(loaded.state);
        EXPECT_TRUE(loaded.errors.empty());
        ++(loaded.state->epoch == 8 ? seen_new : seen_old);
        EXPECT_TRUE(loaded.state->epoch == 7 || loaded.state->epoch == 8) << loaded.state->epoch;
      });
  EXPECT_GT(seen_old, 0U);
  EXPECT_GT(seen_new, 0U);
  expect_synced(calls);
}

// Two drains, each on the disk before the next: what is read is what was there before, or the first, or both.
TEST_F(PowerLossTest, ChangesInTheJournalAreThereOnceTheyAreAcknowledgedWhereverItIsCut) {
  const std::filesystem::path state = directory_ / "state";
  const TargetKey first{"blue", abi::IpAddress::v4(10, 0, 0, 1), 80};
  const TargetKey second{"blue", abi::IpAddress::v4(10, 0, 0, 2), 80};
  const auto change_of = [](const TargetKey& key) {
    TargetRecord target{.key = key};
    target.status.drained_by_operator = true;
    const TargetRecord* const one = &target;
    return encode_change({&one, 1});
  };
  SavedState saved{.config_text = "version: 1\n"};
  GroupRecord group;
  group.config.name = "blue";
  for (const TargetKey& key : {first, second}) group.targets.emplace(key, TargetRecord{.key = key});
  saved.roster.groups.push_back(group);
  int acknowledged[2];
  ASSERT_EQ(pipe2(acknowledged, O_CLOEXEC | O_NONBLOCK), 0);
  std::array<int, 3> seen{};
  at_each_call(
      [&] {
        std::filesystem::remove_all(state);
        auto file = StateFile::open(state);
        ASSERT_TRUE(file->save(encode_state({.config_text = "before"})));
        ASSERT_TRUE(file->save(encode_state({.config_text = "before"})));
      },
      [&] {
        auto file = StateFile::open(state);
        if (!file->save(encode_state(saved))) _exit(1);
        for (const TargetKey& key : {first, second}) {
          if (!file->append(change_of(key)) || write(acknowledged[1], "x", 1) != 1) _exit(1);
        }
      },
      [&] {
        std::array<char, 8> told{};
        const ssize_t promised = std::max<ssize_t>(read(acknowledged[0], told.data(), told.size()), 0);
        auto file = StateFile::open(state);
        ASSERT_TRUE(file);
        const auto loaded = file->load();
        ASSERT_TRUE(loaded.state && loaded.errors.empty());
        if (loaded.state->config_text == "before") {
          EXPECT_EQ(promised, 0);
          return;
        }
        const auto& targets = loaded.state->roster.groups.at(0).targets;
        const bool one = targets.at(first).status.drained_by_operator;
        const bool two = targets.at(second).status.drained_by_operator;
        EXPECT_TRUE(one || !two) << "in their order";
        const std::size_t drained = (one ? 1U : 0U) + (two ? 1U : 0U);
        EXPECT_GE(drained, static_cast<std::size_t>(promised));
        ++seen[drained];
      });
  close(acknowledged[0]);
  close(acknowledged[1]);
  for (const int times : seen) EXPECT_GT(times, 0);
}

TEST_F(PowerLossTest, EveryConfigurationOfTheHistoryIsWholeWhereverItIsCut) {
  const std::filesystem::path state = directory_ / "state";
  const auto calls = at_each_call(
      [&] {
        std::filesystem::remove_all(state);
        std::filesystem::create_directories(state);
        const HistoryFolder folder(state);
        folder.load();
        for (std::uint64_t n = 1; n <= kMaxHistory; ++n)
          ASSERT_TRUE(folder.save({.number = n}, "text " + std::to_string(n)));
      },
      [&] {
        if (!HistoryFolder(state).save({.number = kMaxHistory + 1}, "text new")) _exit(1);
      },
      [&] {
        const HistoryFolder folder(state);
        const auto loaded = folder.load();
        EXPECT_TRUE(loaded.errors.empty());
        ASSERT_GE(loaded.records.size(), kMaxHistory);
        for (const ConfigRecord& record : loaded.records) EXPECT_TRUE(folder.read(record.number));
      });
  expect_synced(calls);
}

}  // namespace
}  // namespace lb::cp
