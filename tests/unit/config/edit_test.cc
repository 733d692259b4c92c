#include "cp/config/edit.h"

#include <gtest/gtest.h>

#include "cp/config/diff.h"
#include "cp/config/load.h"
#include "cp/config/removal.h"
#include "cp/config/render.h"

namespace lb::cp {
namespace {

Config base() {
  LoadResult loaded = load(R"(version: 1
seed: 1
vips: [{name: web, address: 192.0.2.10}, {name: shop, address: 192.0.2.11}]
listeners: [{name: web-80, vip: web, protocol: TCP, port: 80, target_groups: [{name: blue}]}]
target_groups:
  - {name: blue, protocol: TCP, port: 80, targets: [{address: 10.0.0.1}, {address: 10.0.0.2}]}
  - {name: green, protocol: TCP, port: 80, targets: [{address: 10.0.0.3}]}
)",
                           "base");
  return std::move(*loaded.config);
}

std::string changes(const Edit& change) {
  const Config before = base();
  const auto after = edit(before, change);
  if (!after) return after.error().field + ": " + after.error().text;
  const LoadResult again = load(render(*after), "again");
  if (!again.config) return "line " + std::to_string(again.violations[0].line) + ": " + again.violations[0].text;
  std::string text;
  for (const Change& one : diff(before, *again.config)) text += one.kind + " " + one.object + " " + one.new_value + ";";
  return text;
}

TEST(Edit, TargetIsAddedSetAndRemoved) {
  EXPECT_EQ(changes(TargetEdit{EditAction::add, "blue", "10.0.0.9:80", 3}), "add target blue 10.0.0.9:80 ;");
  EXPECT_EQ(changes(TargetEdit{EditAction::set, "blue", "10.0.0.2:80", 0}), "change target blue 10.0.0.2:80 0;");
  EXPECT_EQ(changes(TargetEdit{EditAction::remove, "blue", "10.0.0.2:80", {}}), "remove target blue 10.0.0.2:80 ;");
}

TEST(Edit, ListenerIsAddedAndRemoved) {
  EXPECT_EQ(changes(ListenerEdit{EditAction::add, "more", "shop", "TCP", "80", "blue:9,green"}), "add listener more ;");
  EXPECT_EQ(changes(ListenerEdit{EditAction::remove, "web-80", "", "", "", ""}), "remove listener web-80 ;");
}

TEST(Edit, WhatIsWrongIsNamedByItsField) {
  using enum EditAction;
  EXPECT_EQ(changes(TargetEdit{add, "red", "10.0.0.9:80", {}}), "target_group: there is no target group 'red'");
  EXPECT_EQ(changes(TargetEdit{add, "blue", "10.0.0.9", {}}),
            "target: '10.0.0.9' is not ADDRESS:PORT (IPv6: [ADDRESS]:PORT)");
  EXPECT_EQ(changes(TargetEdit{add, "blue", "10.0.0.1:80", {}}), "target: 10.0.0.1:80 is in target group 'blue' already");
  EXPECT_EQ(changes(TargetEdit{add, "blue", "10.0.0.9:80", 65536}), "weight: must be 0-65535, not 65536");
  EXPECT_EQ(changes(TargetEdit{set, "blue", "10.0.0.1:80", {}}), "weight: is missing");
  EXPECT_EQ(changes(TargetEdit{remove, "blue", "10.0.0.3:80", {}}), "target: target group 'blue' has no target 10.0.0.3:80");
  EXPECT_EQ(changes(ListenerEdit{add, "web-80", "web", "TCP", "81", "blue"}), "name: there is a listener 'web-80' already");
  EXPECT_EQ(changes(ListenerEdit{add, "x", "web", "SCTP", "81", "blue"}),
            "protocol: must be TCP | UDP | TCP_UDP, not 'SCTP'");
  EXPECT_EQ(changes(ListenerEdit{add, "x", "web", "TCP", "0", "blue"}),
            "port: must be 1-65535, a range N-M of these, or any, not '0'");
  EXPECT_EQ(changes(ListenerEdit{add, "x", "web", "TCP", "81", "blue:1000"}),
            "target_groups: 'blue:1000': a weight is 0-999");
  EXPECT_EQ(changes(ListenerEdit{remove, "x", "", "", "", ""}), "name: there is no listener 'x'");
}

TEST(Edit, WhatNeedsTheWholeConfigurationIsJudgedLikeAFile) {
  EXPECT_NE(changes(ListenerEdit{EditAction::add, "x", "web", "TCP", "80", "blue"}).find("is taken by listener 'web-80'"),
            std::string::npos);
  EXPECT_NE(changes(ListenerEdit{EditAction::add, "x", "other", "TCP", "81", "blue"}).find("there is no VIP 'other'"),
            std::string::npos);
}

TEST(Removal, ATenthMayGo) {
  Config from;
  from.groups.resize(1);
  from.groups[0].name = "blue";
  for (std::uint8_t i = 1; i <= 30; ++i) from.groups[0].targets.push_back({abi::IpAddress::v4(10, 0, 0, i), 80, 1});
  const auto judge = [&](std::size_t left) {
    Config to = from;
    to.groups[0].targets.resize(left);
    return removes_too_much(from, diff(from, to)).value_or("");
  };
  EXPECT_EQ(judge(30), "");
  EXPECT_EQ(judge(27), "");
  EXPECT_EQ(judge(26), "it removes 4 of 30 targets, more than 10 %");
  EXPECT_EQ(removes_too_much(Config(), diff(Config(), from)), std::nullopt);
  Config gone = from;
  gone.groups.clear();
  EXPECT_EQ(removes_too_much(from, diff(from, gone)), "it removes 30 of 30 targets, more than 10 %");
}

}  // namespace
}  // namespace lb::cp
