// What listeners refuse, as the file says it: packet hygiene, security groups, rate limits.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cp/config/load.h"

namespace lb::cp {
namespace {

constexpr std::string_view kGood = R"(version: 1
vips:
  - {name: web, address: 192.0.2.10}
listeners:
  - {name: web-80, vip: web, protocol: TCP, port: 80, target_groups: [{name: blue}]}
target_groups:
  - {name: blue, protocol: TCP, port: 80, targets: [{address: 10.0.0.1}]}
)";

std::string told(const std::vector<Violation>& violations) {
  std::string text;
  for (const Violation& v : violations)
    text += v.file + ":" + std::to_string(v.line) + ": " + v.field + ": " + v.text + "\n";
  return text;
}

// kGood with a field more in its listener.
std::string with_field(const std::string& field) {
  std::string text(kGood);
  const std::size_t at = text.find("target_groups: [");
  return text.insert(at, field + ", ");
}

TEST(LoadGuard, EveryCheckOfPacketHygieneHasItsSwitch) {
  const LoadResult plain = load(kGood, "lb.yaml");
  ASSERT_TRUE(plain.config);
  EXPECT_EQ(plain.config->hygiene, PacketHygiene{});
  EXPECT_FALSE(PacketHygiene{}.l4_checksums) << "it reads every byte";
  const LoadResult turned = load(std::string(kGood) +
                                     "packet_hygiene: {martians: false, land: false, tcp_flags: false, source_route: false, "
                                     "tiny_fragments: false, l4_checksums: true}\n",
                                 "lb.yaml");
  ASSERT_TRUE(turned.config) << told(turned.violations);
  EXPECT_EQ(turned.config->hygiene, (PacketHygiene{false, false, false, false, false, true}));
}

TEST(LoadGuard, SecurityGroups) {
  const LoadResult result = load(std::string(kGood) +
                                     "security_groups:\n"
                                     "  - name: office\n"
                                     "    rules:\n"
                                     "      - {action: allow, source: 203.0.113.0/24, protocol: TCP, port: 80-443}\n"
                                     "      - {action: deny, source: any}\n"
                                     "  - {name: open, default: allow}\n",
                                 "lb.yaml");
  ASSERT_TRUE(result.config) << told(result.violations);
  ASSERT_EQ(result.config->security_groups.size(), 2U);
  const SecurityGroup& office = result.config->security_groups[0];
  EXPECT_FALSE(office.allow_by_default);
  EXPECT_EQ(office.rules[0], (SecurityRule{true, false, *parse_prefix("203.0.113.0/24"), ListenerProtocol::tcp, 80, 443}));
  EXPECT_EQ(office.rules[1], (SecurityRule{.allow = false, .any_source = true}));
  EXPECT_TRUE(result.config->security_groups[1].allow_by_default);
}

TEST(LoadGuard, RateLimits) {
  const std::string limits =
      "rate_limits: {per_source: {new_flows_per_second: 50, concurrent_flows: 9}, per_listener.new_flows_per_second: 20, "
      "action: mark, dscp: 8, prefix_length_v6: 56}";
  const LoadResult result = load(with_field(limits), "lb.yaml");
  ASSERT_TRUE(result.config) << told(result.violations);
  EXPECT_EQ(result.config->listeners[0].rate_limits,
            (RateLimits{{50, 0, 0, 9}, {.new_flows_per_second = 20}, RateAction::mark, 8, 32, 56}));
  EXPECT_NE(told(result.warnings).find("rate_limits.per_source.new_flows_per_second: is never reached"), std::string::npos);
}

struct Bad {
  const char* what;
  std::string text;
  std::string expected;  // all violations, exactly
};

void PrintTo(const Bad& bad, std::ostream* out) {
  *out << bad.what;
}

class GuardRefuses : public testing::TestWithParam<Bad> {};

TEST_P(GuardRefuses, WithFileLineAndField) {
  const LoadResult result = load(GetParam().text, "lb.yaml");
  EXPECT_FALSE(result.config);
  EXPECT_EQ(told(result.violations), GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(
    Guard, GuardRefuses,
    testing::Values(
        Bad{"packet hygiene", "version: 1\npacket_hygiene:\n  land: no\n  ttl: true\n",
            "lb.yaml:3: packet_hygiene.land: must be true or false, not 'no'\n"
            "lb.yaml:4: packet_hygiene.ttl: unknown field\n"},
        Bad{"security groups",
            "version: 1\nsecurity_groups:\n  - name: office\n    default: drop\n    rules:\n"
            "      - {action: allow, source: 203.0.113.1/24}\n"
            "      - {action: maybe, source: web.example, port: 0}\n"
            "      - {action: allow, source: 10.0.0.0/8, port: 80}\n"
            "      - {action: deny, source: 10.0.0.0/8, port: 80}\n"
            "      - {source: any}\n"
            "  - {name: office, default: allow}\n",
            "lb.yaml:4: security_groups[0].default: must be allow | deny, not 'drop'\n"
            "lb.yaml:6: security_groups[0].rules[0].source: '203.0.113.1/24' has bits set behind its prefix length\n"
            "lb.yaml:7: security_groups[0].rules[1].action: must be allow | deny, not 'maybe'\n"
            "lb.yaml:7: security_groups[0].rules[1].source: must be any, or an IPv4 or IPv6 address or prefix, not "
            "'web.example'\n"
            "lb.yaml:7: security_groups[0].rules[1].port: must be 1-65535, a range N-M of these, or any, not '0'\n"
            "lb.yaml:9: security_groups[0].rules[3]: contradicts rules[2]: same source, protocol and ports\n"
            "lb.yaml:10: security_groups[0].rules[4].action: is missing\n"
            "lb.yaml:11: security_groups[1].name: 'office' is taken by an entry above\n"},
        Bad{"rate limits",
            "version: 1\nvips: [{name: v, address: 192.0.2.1}]\ntarget_groups: [{name: g, protocol: TCP}]\nlisteners:\n"
            "  - {name: a, vip: v, protocol: TCP, port: 80, target_groups: [{name: g}], rate_limits: {}}\n"
            "  - name: b\n    vip: v\n    protocol: TCP\n    port: 81\n    target_groups: [{name: g}]\n    rate_limits:\n"
            "      per_source: {new_flows_per_second: 0, bytes_per_second: 1499}\n"
            "      per_listener: {packets_per_second: 5}\n"
            "      action: mark\n"
            "      prefix_length_v4: 33\n"
            "  - name: c\n    vip: v\n    protocol: TCP\n    port: 82\n    target_groups: [{name: g}]\n"
            "    rate_limits: {per_source.concurrent_flows: 1, action: slow, dscp: 8}\n",
            "lb.yaml:5: listeners[0].rate_limits: must say at least one limit, in per_source or per_listener\n"
            "lb.yaml:11: listeners[1].rate_limits.dscp: is missing: action mark needs it\n"
            "lb.yaml:12: listeners[1].rate_limits.per_source.new_flows_per_second: must be a whole number 1-1000000000, not "
            "'0'\n"
            "lb.yaml:12: listeners[1].rate_limits.per_source.bytes_per_second: must be a whole number 1500-100000000000, "
            "not "
            "'1499'\n"
            "lb.yaml:15: listeners[1].rate_limits.prefix_length_v4: must be a whole number 8-32, not '33'\n"
            "lb.yaml:21: listeners[2].rate_limits.action: must be drop | reset | mark, not 'slow'\n"
            "lb.yaml:21: listeners[2].rate_limits.dscp: needs action: mark\n"}));

}  // namespace
}  // namespace lb::cp
