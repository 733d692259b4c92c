#include "cp/control/state_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace lb::cp {
namespace {

SavedState sample(const std::string& text) {
  Config config;
  config.vips.push_back({"web", abi::IpAddress::v4(192, 0, 2, 10)});
  config.listeners.push_back({"web-80", "web", ListenerProtocol::tcp_udp, 80, 90, {{"blue", 3}}});
  config.listeners[0].rate_limits = {{1, 2, 3, 4}, {5, 6, 7, 8}, RateAction::mark, 9, 24, 56};
  TargetGroup group;
  group.name = "blue";
  group.health_check.protocol = ProbeProtocol::http;
  group.health_check.matcher = {{200, 204}, {301, 301}};
  group.minimum_healthy_percentage = 50;
  group.targets = {{abi::IpAddress::v4(10, 0, 0, 1), 80, 2}, {*parse_address("2001:db8::1"), 81, 1}};
  config.groups.push_back(group);
  Roster roster;
  EXPECT_TRUE(roster.apply(config, 1000));
  roster.set_health({"blue", abi::IpAddress::v4(10, 0, 0, 1), 80}, Health::unhealthy, StateReason::timeout,
                    "words \"x\" \xff", 2000);
  EXPECT_TRUE(roster.drain(*parse_address("2001:db8::1"), 81, std::nullopt, true, 3000,
                           {std::chrono::seconds(90), abi::TrackedFlows::reset}));
  roster.settle(3000, [](std::uint32_t) { return std::nullopt; });
  config.listeners[0].groups[0].name = "green";
  config.groups[0].name = "green";
  EXPECT_TRUE(roster.apply(config, 4000));
  roster.settle(4000, [](std::uint32_t) { return std::nullopt; });
  return {text, "lb.yaml", 41, roster.memory(), 0, {}, {}, {5000, "a switch \"is\" replaced"}};
}

class StateFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "lb-state-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  [[nodiscard]] StateFile open() const {
    auto file = StateFile::open(directory_ / "deep/er");
    EXPECT_TRUE(file) << file.error();
    return std::move(*file);
  }
  [[nodiscard]] std::filesystem::path path(const std::string& name) const { return directory_ / "deep/er" / name; }
  static std::string slurp(const std::filesystem::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  static void spill(const std::filesystem::path& path, const std::string& text) { std::ofstream(path) << text; }

  std::filesystem::path directory_;
};

TEST_F(StateFileTest, NothingIsThereAtFirst) {
  const auto loaded = open().load();
  EXPECT_FALSE(loaded.state);
  EXPECT_TRUE(loaded.errors.empty());
}

TEST_F(StateFileTest, WhatWasSavedIsLoaded) {
  const std::string encoded = encode_state(sample("version: 1\n"));
  {
    StateFile file = open();
    ASSERT_TRUE(file.save(encoded));
  }
  const auto loaded = open().load();
  ASSERT_TRUE(loaded.state);
  EXPECT_EQ(loaded.state->config_text, "version: 1\n");
  EXPECT_EQ(loaded.state->config_file, "lb.yaml");
  EXPECT_EQ(loaded.state->epoch, 41U);
  ASSERT_EQ(loaded.state->roster.groups.size(), 2U);
  EXPECT_EQ(loaded.state->roster.groups[0].config.health_check.matcher, (std::vector<StatusRange>{{200, 204}, {301, 301}}));
  EXPECT_EQ(loaded.state->roster.listeners[0].config.rate_limits,
            (RateLimits{{1, 2, 3, 4}, {5, 6, 7, 8}, RateAction::mark, 9, 24, 56}));
  EXPECT_EQ(loaded.state->freeze, (HealthFreeze{5000, "a switch \"is\" replaced"}));
  EXPECT_EQ(encode_state(*loaded.state), encoded) << "nothing is lost on the way";
}

// No field has its default, so that one that is forgotten is seen.
TargetGroup unusual_group() {
  TargetGroup group;
  group.name = "blue";
  group.protocol = ListenerProtocol::udp;
  group.port = 443;
  group.mode = abi::ForwardingMode::fullnat;
  group.stickiness = abi::Stickiness::source_ip;
  group.gue_port = 6080;
  group.gue_ipv6_zero_checksum = true;
  group.gre_key = 7;
  group.keep_unhealthy_flows = true;
  group.geneve_class = 8;
  group.geneve_vpce_id = 9;
  group.geneve_attachment_id = 10;
  group.snat_addresses = {abi::IpAddress::v4(10, 9, 0, 1), *parse_address("2001:db8::9")};
  group.proxy_protocol_v2 = true;
  group.client_address_option = true;
  group.mss_clamp = true;
  group.outer_fragmentation = true;
  group.algorithm = abi::Algorithm::least_connections;
  group.table_size = 101;
  group.deregistration_delay = std::chrono::seconds(11);
  group.after_deregistration = abi::TrackedFlows::rehash;
  group.terminate_on_unhealthy = false;
  group.unhealthy_draining_interval = std::chrono::seconds(12);
  group.minimum_healthy_count = 13;
  group.minimum_healthy_percentage = 14;
  group.slow_start = std::chrono::seconds(35);
  group.tcp_idle_timeout = std::chrono::seconds(15);
  group.udp_idle_timeout = std::chrono::seconds(16);
  group.quic = {{.id = 0, .key = {}, .server_id_bytes = 3, .nonce_bytes = 5},
                {.id = 2, .key = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0xfe}}, .server_id_bytes = 1}};
  group.health_check.protocol = ProbeProtocol::none;
  group.targets = {{abi::IpAddress::v4(10, 0, 0, 1), 443, 1, "c4605e,0a"}};
  return group;
}

// What has gone from the configuration is served on until its flows are over: across a restart by what the file says of it.
TEST_F(StateFileTest, ARemovedGroupIsServedOnAsItWasAfterARestart) {
  const TargetGroup group = unusual_group();
  Config config;
  config.vips.push_back({"web", abi::IpAddress::v4(192, 0, 2, 10)});
  config.listeners.push_back({"web-443", "web", ListenerProtocol::udp, 443, 443, {{"blue", 1}}});
  config.groups.push_back(group);
  const auto flows = [](std::uint32_t) { return std::uint64_t{5}; };
  Roster before;
  ASSERT_TRUE(before.apply(config, 1000));
  before.settle(1000, flows);
  config.listeners.clear();
  config.groups.clear();
  ASSERT_TRUE(before.apply(config, 2000));
  before.settle(2000, flows);

  SavedState state;
  state.roster = before.memory();
  const auto loaded = decode_state(encode_state(state));
  ASSERT_TRUE(loaded) << loaded.error();
  Roster after;
  after.restore(loaded->roster);
  ASSERT_TRUE(after.apply(config, 3000));
  after.settle(3000, flows);
  const SnapshotInput& input = after.snapshot({2, 1});
  ASSERT_EQ(input.groups.size(), 1U);
  TargetGroup kept = input.groups[0].config;
  kept.targets = group.targets;
  EXPECT_EQ(kept, group);
  ASSERT_EQ(input.groups[0].targets.size(), 1U);
  EXPECT_EQ(input.groups[0].targets[0].server_id, "c4605e,0a");
  EXPECT_EQ(input.groups[0].targets[0].state, abi::TargetState::draining);
}

SavedState one_group(const std::string& text) {
  SavedState state{.config_text = text};
  GroupRecord group;
  group.config.name = "blue";
  for (std::uint8_t n = 1; n <= 3; ++n) {
    const TargetKey key{"blue", abi::IpAddress::v4(10, 0, 0, n), 80};
    group.targets.emplace(key, TargetRecord{.key = key});
  }
  state.roster.groups.push_back(group);
  return state;
}

std::string drain_of(std::uint8_t n, std::int64_t ends_unix_ms) {
  TargetRecord target{.key = {"blue", abi::IpAddress::v4(10, 0, 0, n), 80}};
  target.status.drained_by_operator = true;
  target.status.drain_ends_unix_ms = ends_unix_ms;
  const TargetRecord* const one = &target;
  return encode_change({&one, 1});
}

// When each target's drain ends; 0: it is not drained.
std::vector<std::int64_t> drains(const StateFile::Loaded& loaded) {
  std::vector<std::int64_t> ends;
  for (const auto& [key, target] : loaded.state->roster.groups.at(0).targets)
    ends.push_back(target.status.drain_ends_unix_ms);
  return ends;
}

using Ends = std::vector<std::int64_t>;

TEST_F(StateFileTest, JournalGoesOnFromTheStateAndEndsWithTheNext) {
  {
    StateFile file = open();
    EXPECT_FALSE(file.can_append());
    EXPECT_FALSE(file.append(drain_of(1, 100))) << "goes on from what?";
    ASSERT_TRUE(file.save(encode_state(one_group("first"))));
    ASSERT_TRUE(file.append(drain_of(1, 100)));
    ASSERT_TRUE(file.append(drain_of(2, 200)));
    ASSERT_TRUE(file.append(drain_of(1, 300)));
    ASSERT_TRUE(file.append(drain_of(9, 900))) << "of a target that the state does not have";
  }
  StateFile file = open();
  EXPECT_EQ(drains(file.load()), (Ends{300, 200, 0}));
  ASSERT_TRUE(file.save(encode_state(one_group("second"))));
  EXPECT_EQ(drains(file.load()), (Ends{0, 0, 0})) << "the journal was of the first";
  ASSERT_TRUE(file.append(drain_of(3, 400)));
  EXPECT_EQ(drains(file.load()), (Ends{0, 0, 400}));
}

TEST_F(StateFileTest, JournalCutOrBrokenAtAnyByteGivesTheLinesBefore) {
  StateFile file = open();
  ASSERT_TRUE(file.save(encode_state(one_group("text"))));
  const std::vector<std::string> changes = {drain_of(1, 100), drain_of(2, 200), drain_of(1, 300)};
  const std::vector<Ends> states = {{0, 0, 0}, {100, 0, 0}, {100, 200, 0}, {300, 200, 0}};
  for (const std::string& change : changes) ASSERT_TRUE(file.append(change));
  const std::string whole = slurp(path("state.journal"));
  const std::size_t head = whole.size() - changes[0].size() - changes[1].size() - changes[2].size();
  std::vector<std::size_t> ends = {head};  // of the lines
  for (const std::string& change : changes) ends.push_back(ends.back() + change.size());
  ASSERT_EQ(ends.back(), whole.size());
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    const auto lines = static_cast<std::size_t>(std::ranges::count_if(ends, [&](std::size_t end) { return end <= size; }));
    spill(path("state.journal"), whole.substr(0, size));
    ASSERT_EQ(drains(file.load()), states[lines == 0 ? 0 : lines - 1]) << size;
    if (size == whole.size()) break;
    std::string flipped = whole;
    flipped[size] = static_cast<char>(flipped[size] ^ 1);
    spill(path("state.journal"), flipped);
    ASSERT_EQ(drains(file.load()), states[lines == 0 ? 0 : lines - 1]) << size << " flipped";
  }
}

TEST_F(StateFileTest, FilesAreForTheirOwnerAlone) {
  auto file = open();
  ASSERT_TRUE(file.save(encode_state(sample("version: 1\n"))));
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory_ / "deep/er")) {
    using std::filesystem::perms;
    EXPECT_EQ(entry.status().permissions() & (perms::group_all | perms::others_all), perms::none) << entry.path();
    ++files;
  }
  EXPECT_GT(files, 0);
}

TEST_F(StateFileTest, TornAtEveryByteTheLastGoodOneIsUsedAndTheBrokenOneNamed) {
  StateFile file = open();
  ASSERT_TRUE(file.save(encode_state(sample("first"))));
  ASSERT_TRUE(file.save(encode_state(sample("second"))));
  const std::string good = slurp(path("state.json.1"));
  const std::string whole = slurp(path("state.json"));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    ASSERT_FALSE(decode_state(whole.substr(0, size))) << size;
    if (size % 101 != 0 && size + 1 != whole.size()) continue;
    spill(path("state.json"), whole.substr(0, size));
    spill(path("state.json.1"), good);
    const auto loaded = file.load();
    ASSERT_TRUE(loaded.state) << size;
    ASSERT_EQ(loaded.state->config_text, "first") << size;
    ASSERT_EQ(loaded.errors.size(), 1U) << size;
    ASSERT_NE(loaded.errors[0].find("state.json is corrupt: "), std::string::npos) << loaded.errors[0];
    ASSERT_TRUE(std::filesystem::exists(path("state.json.corrupt")));
    ASSERT_FALSE(std::filesystem::exists(path("state.json")));
  }
}

TEST_F(StateFileTest, EveryFlippedByteIsNoticed) {
  const std::string whole = encode_state(sample("text"));
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string bad = whole;
    bad[i] = static_cast<char>(bad[i] ^ 0x20);
    ASSERT_FALSE(decode_state(bad)) << i;
  }
}

TEST_F(StateFileTest, BothFilesBrokenStartEmptyAndNameBoth) {
  StateFile file = open();
  spill(path("state.json"), "{}");
  spill(path("state.json.1"), "");
  const auto loaded = file.load();
  EXPECT_FALSE(loaded.state);
  EXPECT_EQ(loaded.errors.size(), 2U);
}

TEST_F(StateFileTest, SecondProcessOnTheDirectoryIsRefused) {
  const StateFile first = open();
  const auto second = StateFile::open(directory_ / "deep/er");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error(), "another lb-cp runs on the state directory " + (directory_ / "deep/er").string());
}

}  // namespace
}  // namespace lb::cp
