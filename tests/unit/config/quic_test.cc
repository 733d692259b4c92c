// The `quic` block of a target group, and the server IDs of its targets.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cp/config/diff.h"
#include "cp/config/edit.h"
#include "cp/config/load.h"
#include "cp/config/render.h"

namespace lb::cp {
namespace {

const std::string kKey = "8f95f09245765f80256934e50c66207f";

constexpr std::string_view kGood = R"(version: 1
vips:
  - {name: web, address: 192.0.2.10}
listeners:
  - {name: quic, vip: web, protocol: UDP, port: 443, target_groups: [{name: blue}, {name: green}]}
target_groups:
  - name: blue
    protocol: UDP
    quic:
      configs:
        - {id: 2, key: 8f95f09245765f80256934e50c66207f, server_id_length: 3, nonce_length: 4}
        - {id: 0, key: 00112233445566778899aabbccddeeff, server_id_length: 1, nonce_length: 15}
    targets:
      - {address: 10.0.0.1, server_id: "C4605E,0a"}
      - {address: 10.0.0.2, server_id: "c4605f,0b"}
  - name: green
    protocol: UDP
    quic: {configs: [{id: 1, key: 00112233445566778899aabbccddeeff, server_id_length: 1, nonce_length: 4}]}
    targets:
      - {address: 10.0.0.3, server_id: 01}
)";

std::string told(const std::vector<Violation>& violations) {
  std::string text;
  for (const Violation& v : violations)
    text += v.file + ":" + std::to_string(v.line) + ": " + v.field + ": " + v.text + "\n";
  return text;
}

std::string told(const Change& c) {
  return c.kind + " " + c.object + (c.field.empty() ? "" : " " + c.field + ": " + c.old_value + " -> " + c.new_value);
}

std::string replaced(std::string_view from, std::string_view to) {
  std::string text(kGood);
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

Config good() {
  const LoadResult result = load(kGood, "lb.yaml");
  EXPECT_TRUE(result.config) << told(result.violations);
  return result.config.value_or(Config());
}

TEST(QuicConfig, IsReadWithItsIdsInOrderAndServerIdsInLowerCase) {
  const LoadResult result = load(kGood, "lb.yaml");
  ASSERT_TRUE(result.config) << told(result.violations);
  EXPECT_EQ(told(result.warnings), "");
  const TargetGroup& blue = result.config->groups[0];
  ASSERT_EQ(blue.quic.size(), 2U);
  EXPECT_EQ(blue.quic[0].id, 0);
  EXPECT_EQ(blue.quic[0].nonce_bytes, 15);
  EXPECT_EQ(blue.quic[1].id, 2);
  EXPECT_EQ(format_hex(*blue.quic[1].key), kKey);
  EXPECT_EQ(blue.targets[0].server_id, "c4605e,0a");
}

TEST(QuicConfig, MistakesAreToldByFileLineAndField) {
  const auto first = [](const std::string& text) {
    const LoadResult result = load(text, "lb.yaml");
    return result.violations.empty() ? std::string("accepted") : told({result.violations[0]});
  };
  const std::string configs = "lb.yaml:11: target_groups[0].quic.configs[0].";
  EXPECT_EQ(first(replaced("id: 2,", "id: 7,")), configs + "id: must be a whole number 0-6, not '7'\n");
  EXPECT_EQ(first(replaced("{id: 2, ", "{")), configs + "id: is missing\n");
  EXPECT_EQ(first(replaced("id: 0,", "id: 2,")),
            "lb.yaml:12: target_groups[0].quic.configs[1].id: 2 is taken by an entry above\n");
  EXPECT_EQ(first(replaced("server_id_length: 3", "server_id_length: 16")),
            configs + "server_id_length: must be a whole number 1-15, not '16'\n");
  EXPECT_EQ(first(replaced("nonce_length: 4}", "nonce_length: 17}")),
            configs + "nonce_length: must be at most 16 beside server_id_length 3: a connection ID has 20 bytes at most\n");
  EXPECT_EQ(first(replaced("server_id: \"C4605E,0a\"", "server_id: c4605")),
            "lb.yaml:14: target_groups[0].targets[0].server_id: must be hex digits of 1-15 bytes, as c4605e, or several of "
            "different lengths, as c4605e,0a01, not 'c4605'\n");
  EXPECT_EQ(first(replaced("server_id: \"C4605E,0a\"", "server_id: c460")),
            "lb.yaml:14: target_groups[0].targets[0].server_id: 'c460' has 2 bytes, and no entry of quic.configs has that "
            "server_id_length\n");
  EXPECT_EQ(first(replaced("c4605f,0b", "c4605F,0A")),
            "lb.yaml:15: target_groups[0].targets[1].server_id: '0A' is taken by target 10.0.0.1 above\n");
  EXPECT_EQ(first(replaced("    quic: {configs: [{id: 1, key: 00112233445566778899aabbccddeeff, server_id_length: 1, "
                           "nonce_length: 4}]}\n",
                           "")),
            "lb.yaml:19: target_groups[1].targets[0].server_id: needs quic in its target group\n");
  EXPECT_EQ(first(replaced("quic: {configs: [{id: 1", "quic: {configs: [{id: 2")),
            "lb.yaml:5: listeners[0].target_groups: target groups 'blue' and 'green' both have a quic config 2: give one of "
            "them another id\n");
  EXPECT_EQ(first(replaced("    protocol: UDP\n    quic:\n", "    protocol: TCP\n    quic:\n")).find("accepted"),
            std::string::npos);
  EXPECT_NE(first(replaced("    quic:\n", "    attributes: {algorithm: per_packet}\n    quic:\n"))
                .find("target_groups[0].attributes.algorithm: per_packet cannot be had with quic"),
            std::string::npos);
}

TEST(QuicConfig, AKeyIsInNoMessage) {
  for (const std::string& key :
       {kKey.substr(1), kKey + "00", kKey.substr(2) + "zz", "[" + kKey + "]", "{a: " + kKey + "}"}) {
    const LoadResult result = load(replaced("key: " + kKey, "key: " + key), "lb.yaml");
    ASSERT_FALSE(result.violations.empty()) << key;
    EXPECT_EQ(told(result.violations).find(kKey.substr(2, 20)), std::string::npos) << told(result.violations);
  }
}

TEST(QuicConfig, PeopleAreWarnedOfPlaintextAndOfTargetsThatNoConnectionIdNames) {
  const LoadResult result = load(replaced("key: " + kKey + ", ", ""), "lb.yaml");
  ASSERT_TRUE(result.config);
  ASSERT_EQ(result.warnings.size(), 1U);
  EXPECT_EQ(result.warnings[0].field, "target_groups[0].quic.configs[0].key");
  const LoadResult unnamed = load(replaced(", server_id: \"c4605f,0b\"", ""), "lb.yaml");
  ASSERT_TRUE(unnamed.config);
  EXPECT_EQ(
      told(unnamed.warnings),
      "lb.yaml:13: target_groups[0].targets: target 10.0.0.2 has no server_id of 1 bytes: no connection ID of config 0 "
      "leads to it\n");
}

TEST(QuicConfig, IsWrittenWithItsKeysAndForPeopleWithout) {
  const Config config = good();
  const LoadResult again = load(render(config), "again");
  ASSERT_TRUE(again.config) << told(again.violations);
  EXPECT_EQ(*again.config, config);
  const std::string shown = render(config, Secrets::hidden);
  EXPECT_EQ(shown.find(kKey), std::string::npos);
  EXPECT_NE(shown.find("- {id: 2, key: hidden, server_id_length: 3, nonce_length: 4}"), std::string::npos) << shown;
  EXPECT_NE(shown.find("server_id: \"c4605e,0a\""), std::string::npos) << shown;
}

TEST(QuicConfig, AnEditKeepsTheKeys) {
  const auto edited =
      edit(good(), TargetEdit{.action = EditAction::set, .group = "blue", .target = "10.0.0.1:443", .weight = 5});
  ASSERT_TRUE(edited) << edited.error().text;
  const LoadResult again = load(render(*edited), "again");
  ASSERT_TRUE(again.config) << told(again.violations);
  EXPECT_EQ(again.config->groups[0].quic, good().groups[0].quic);
}

TEST(QuicConfig, ADifferenceIsToldWithoutTheKeys) {
  const Config from = good();
  Config to = from;
  (*to.groups[0].quic[1].key)[0] ^= 1;
  std::vector<Change> changes = diff(from, to);
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_EQ(told(changes[0]), "change quic-config blue 2 key: hidden -> hidden, another one");
  to.groups[0].quic.erase(to.groups[0].quic.begin());
  to.groups[0].quic[0] = from.groups[0].quic[1];
  changes = diff(from, to);
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_EQ(told(changes[0]), "remove quic-config blue 0");
  to = from;
  to.groups[0].targets[0].server_id = "c4605e";
  changes = diff(from, to);
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_EQ(told(changes[0]), "change target blue 10.0.0.1:443 server_id: c4605e,0a -> c4605e");
}

}  // namespace
}  // namespace lb::cp
