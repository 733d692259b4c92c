#include "cp/snapshot/security_table.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <optional>
#include <random>

#include "cp/snapshot/compile.h"
#include "cp/snapshot/security_store.h"
#include "dp/lb/guard_security.h"
#include "dp/lb/snapshot.h"
#include "dp/lb/snapshot_security.h"
#include "tests/unit/lb/world.h"

namespace lb::cp {
namespace {

abi::IpAddress random_address(std::mt19937_64& random, bool v4) {
  abi::IpAddress address = abi::IpAddress::v4(0, 0, 0, 0);
  const std::size_t first = v4 ? 12 : 0;
  if (!v4) address = {};
  for (std::size_t i = first; i < 16; ++i) address.bytes[i] = static_cast<std::uint8_t>(random() % 4 == 0 ? random() : 3);
  if (!v4) address.bytes[0] = 0x20;
  return address;
}

bool holds(const SecurityRule& rule, const abi::IpAddress& source) {
  if (rule.any_source) return true;
  if (rule.source.address.is_v4() != source.is_v4()) return false;
  for (std::uint32_t bit = 0; bit < rule.source.length; ++bit) {
    if (((rule.source.address.bytes[bit / 8] ^ source.bytes[bit / 8]) >> (7 - bit % 8) & 1) != 0) return false;
  }
  return true;
}

// The sentence of SecurityRule's comment, rule by rule.
std::optional<std::uint32_t> reference(const SecurityGroup& group, const net::FlowKey& key) {
  std::optional<std::uint32_t> best;
  const auto rank = [&](std::uint32_t i) {
    const SecurityRule& rule = group.rules[i];
    const int length = rule.any_source ? 0 : rule.source.length - (rule.source.address.is_v4() ? 96 : 0);
    return std::tuple(length, -(rule.last_port - rule.first_port), rule.protocol != ListenerProtocol::tcp_udp, !rule.allow,
                      -static_cast<int>(i));
  };
  for (std::uint32_t i = 0; i < group.rules.size(); ++i) {
    const SecurityRule& rule = group.rules[i];
    const bool tcp = key.protocol == 6;
    if (!holds(rule, key.source) || key.destination_port < rule.first_port || key.destination_port > rule.last_port ||
        (rule.protocol != ListenerProtocol::tcp_udp && (rule.protocol == ListenerProtocol::tcp) != tcp)) {
      continue;
    }
    if (!best || rank(i) > rank(*best)) best = i;
  }
  return best;
}

SecurityRule random_rule(std::mt19937_64& random) {
  SecurityRule rule;
  rule.allow = random() % 2 == 0;
  if (random() % 20 == 0) {
    rule.any_source = true;
  } else {
    const bool v4 = random() % 2 == 0;
    rule.source.address = random_address(random, v4);
    rule.source.length = static_cast<std::uint8_t>(v4 ? 96 + random() % 33 : random() % 129);
    for (std::uint32_t bit = rule.source.length; bit < 128; ++bit)
      rule.source.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80U >> bit % 8));
    if (!v4 && rule.source.address.is_v4()) rule.any_source = true;
  }
  if (rule.any_source) rule.source = {{}, 0};
  if (random() % 3 == 0) {
    rule.first_port = static_cast<std::uint16_t>(random() % 100);
    rule.last_port = static_cast<std::uint16_t>(rule.first_port + random() % 100);
  }
  const ListenerProtocol protocols[] = {ListenerProtocol::tcp_udp, ListenerProtocol::tcp, ListenerProtocol::udp};
  rule.protocol = protocols[random() % 3];
  return rule;
}

std::shared_ptr<const Snapshot> snapshot_of(Compiler& compiler, const std::vector<SecurityGroup>& groups) {
  SnapshotInput input;
  input.generation = {1, 1};
  input.security_groups = groups;
  input.vips.push_back({"web", abi::IpAddress::v4(192, 0, 2, 1)});
  TargetGroup blue;
  blue.name = "blue";
  input.groups.push_back({blue, false, {}});
  for (const SecurityGroup& group : groups) {
    Listener listener{"l-" + group.name, "web", ListenerProtocol::tcp_udp, 0, 65535, {{"blue", 1}}};
    listener.security_group = group.name;
    listener.first_port = static_cast<std::uint16_t>(input.listeners.size());
    input.listeners.push_back({listener, false, static_cast<std::uint32_t>(2 * input.listeners.size())});
  }
  const auto compiled = compiler.compile(input);
  if (!compiled) throw std::runtime_error(compiled.error());
  std::vector<SegmentBytes> segments;
  for (const auto& memory : compiled->segments) segments.push_back({memory->bytes(), memory});
  auto opened = Snapshot::open({compiled->root->bytes(), compiled->root}, [&](std::uint64_t id) -> SegmentBytes* {
    for (std::size_t i = 0; i < segments.size(); ++i) {
      if (compiled->segments[i]->id() == id) return &segments[i];
    }
    return nullptr;
  });
  if (!opened) throw std::runtime_error(opened.error().text);
  return *opened;
}

net::FlowKey key_from(std::mt19937_64& random) {
  net::FlowKey key;
  const bool v4 = random() % 2 == 0;
  key.source = random_address(random, v4);
  key.is_v6 = v4 ? 0 : 1;
  key.protocol = random() % 2 == 0 ? 6 : 17;
  key.destination_port = static_cast<std::uint16_t>(random() % 200);
  return key;
}

TEST(SecurityTable, SaysWhatTheRulesSayOneByOne) {
  std::mt19937_64 random(1);
  Compiler compiler;
  int spoken = 0;
  for (int round = 0; round < 60; ++round) {
    std::vector<SecurityGroup> groups(1 + random() % 3);
    for (std::size_t g = 0; g < groups.size(); ++g) {
      groups[g].name = "g" + std::to_string(g);
      groups[g].allow_by_default = random() % 2 == 0;
      const std::size_t rules = random() % (round % 2 == 0 ? 4 : 300);
      for (std::size_t i = 0; i < rules; ++i) groups[g].rules.push_back(random_rule(random));
    }
    const auto snapshot = snapshot_of(compiler, groups);
    for (int n = 0; n < 500; ++n) {
      const std::size_t g = random() % groups.size();
      const net::FlowKey key = key_from(random);
      const auto want = reference(groups[g], key);
      const SecurityAnswer have = ask_security(*snapshot, snapshot->listeners()[2 * g], key);
      ASSERT_EQ(have.rule == abi::kNoIndex, !want) << "round " << round;
      ASSERT_EQ(have.allowed, want ? groups[g].rules[*want].allow : groups[g].allow_by_default);
      if (!want) continue;
      ++spoken;
      ASSERT_EQ(snapshot->security().rules[have.rule].number, *want);
    }
  }
  EXPECT_GT(spoken, 5000);
}

TEST(SecurityTable, HoldsAHundredThousandPrefixes) {
  std::mt19937_64 random(2);
  SecurityGroup group{"many", false, {}};
  for (std::uint32_t i = 0; i < 100'000; ++i) {
    SecurityRule rule;
    rule.allow = true;
    rule.source = {abi::IpAddress::v4(static_cast<std::uint8_t>(1 + i / 65536 * 16), static_cast<std::uint8_t>(i >> 8),
                                      static_cast<std::uint8_t>(i), 0),
                   96 + 24};
    group.rules.push_back(rule);
  }
  Compiler compiler;
  const auto snapshot = snapshot_of(compiler, {group});
  EXPECT_LT(snapshot->security().nodes.size(), 120'000U);
  net::FlowKey key;
  key.protocol = 6;
  for (std::uint32_t i = 0; i < 100'000; i += 97) {
    key.source = group.rules[i].source.address;
    key.source.bytes[15] = static_cast<std::uint8_t>(random());
    const SecurityAnswer answer = ask_security(*snapshot, snapshot->listeners()[0], key);
    ASSERT_TRUE(answer.allowed);
    ASSERT_EQ(snapshot->security().rules[answer.rule].number, i);
    key.source.bytes[12] += 3;
    ASSERT_FALSE(ask_security(*snapshot, snapshot->listeners()[0], key).allowed);
  }
}

TEST(SecurityTable, GenerationsShareTheSegmentUntilARuleChanges) {
  Compiler compiler;
  SecurityGroup group{"g", false, {}};
  group.rules.push_back({.allow = true, .any_source = true});
  const auto segment_of = [&](const std::vector<SecurityGroup>& groups) {
    const auto snapshot = snapshot_of(compiler, groups);
    return std::pair(snapshot->security().nodes.data(), snapshot->root().security_epoch);
  };
  const auto first = segment_of({group});
  EXPECT_EQ(segment_of({group}), first);
  group.rules[0].allow = false;
  const auto second = segment_of({group});
  EXPECT_NE(second, first);
  EXPECT_NE(second.second, first.second) << "tracked flows have to be asked again";
  EXPECT_EQ(segment_of({}).second, 0U);
}

// What lb-dp says of the segment after `change`; empty: accepted.
std::string verdict_after(const std::function<void(test::AlignedBytes&, const abi::SecurityRoot&)>& change) {
  SecurityStore store;
  SecurityGroup group{"g", false, {}};
  group.rules.push_back({.allow = true, .any_source = true});
  group.rules.push_back({.allow = false, .source = {abi::IpAddress::v4(10, 1, 2, 0), 96 + 24}});
  const auto memory = *store.update({group}, 1);
  test::AlignedBytes bytes(memory->bytes().size());
  std::memcpy(bytes.data(), memory->bytes().data(), bytes.size());
  change(bytes, bytes.at<abi::SecurityRoot>(0));
  SegmentBytes segment = bytes.segment();
  const auto view = verify_security(segment);
  return view ? "" : view.error().text;
}

TEST(SecurityTable, EveryIndexThatALookupCouldFollowIsChecked) {
  EXPECT_EQ(verdict_after([](auto&, const auto&) {}), "");
  using Bytes = test::AlignedBytes;
  using Root = abi::SecurityRoot;
  const auto node = [](Bytes& bytes, const Root& root) -> abi::PrefixNode& {
    return bytes.at<abi::PrefixNode>(root.nodes.offset);
  };
  const auto rule = [](Bytes& bytes, const Root& root) -> abi::SecurityRule& {
    return bytes.at<abi::SecurityRule>(root.rules.offset);
  };
  const std::vector<std::pair<std::string, std::function<void(Bytes&, const Root&)>>> hostile = {
      {"groups[0]: roots",
       [](Bytes& b, const Root& r) { b.at<abi::SecurityGroup>(r.groups.offset).root_v6 = r.nodes.count; }},
      {"groups[0]: default",
       [](Bytes& b, const Root& r) { b.at<abi::SecurityGroup>(r.groups.offset).allow_by_default = 2; }},
      {"groups[0]: name", [](Bytes& b, const Root& r) { b.at<abi::SecurityGroup>(r.groups.offset).name.length = 2; }},
      {"nodes[0]: 1 children", [&](Bytes& b, const Root& r) { node(b, r).first_child = r.nodes.count; }},
      {"nodes[0]: 64 children", [&](Bytes& b, const Root& r) { node(b, r).children = ~std::uint64_t{0}; }},
      {"leaves at", [&](Bytes& b, const Root& r) { node(b, r).first_leaf = r.leaves.count; }},
      {"neither child nor leaf", [&](Bytes& b, const Root& r) { node(b, r).leaves &= node(b, r).leaves - 1; }},
      {"leaves[0]: rule", [](Bytes& b, const Root& r) { b.at<std::uint32_t>(r.leaves.offset) = r.rules.count; }},
      {"rules[0]: next", [&](Bytes& b, const Root& r) { rule(b, r).next = 0; }},
      {"rules[0]: ports", [&](Bytes& b, const Root& r) { rule(b, r).last_port = 0, rule(b, r).first_port = 1; }},
      {"security rules:", [](Bytes& b, const Root&) { b.at<Root>(0).rules.count = abi::kMaxSecurityRules + 1; }},
      {"leaves the root", [](Bytes& b, const Root&) { b.at<Root>(0).nodes.count = 1U << 20; }}};
  for (const auto& [text, change] : hostile) {
    EXPECT_NE(verdict_after(change).find(text), std::string::npos) << text << ": " << verdict_after(change);
  }
}

}  // namespace
}  // namespace lb::cp
