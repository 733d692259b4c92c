#include "cp/config/load.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cp/config/validate.h"
#include "cp/config/yaml_tree.h"
#include "dp/abi/snapshot.h"

namespace lb::cp {
namespace {

static_assert(kMaxTargets == abi::kMaxTargets && kMaxListeners == abi::kMaxListeners);

constexpr std::string_view kGood = R"(version: 1
seed: 7
vips:
  - {name: web, address: 192.0.2.10}
listeners:
  - {name: web-80, vip: web, protocol: TCP, port: 80, target_groups: [{name: blue, weight: 1}]}
target_groups:
  - name: blue
    protocol: TCP
    port: 80
    targets:
      - {address: 10.0.0.1}
      - {address: 10.0.0.2, weight: 3}
)";

std::string told(const std::vector<Violation>& violations) {
  std::string text;
  for (const Violation& v : violations)
    text += v.file + ":" + std::to_string(v.line) + ": " + v.field + ": " + v.text + "\n";
  return text;
}

std::string replaced(std::string_view from, std::string_view to) {
  std::string text(kGood);
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Load, FillsInDefaults) {
  const LoadResult result = load(kGood, "lb.yaml");
  ASSERT_TRUE(result.config) << told(result.violations);
  EXPECT_EQ(told(result.warnings), "");
  const Config& config = *result.config;
  EXPECT_EQ(config.seed, 7U);
  ASSERT_EQ(config.groups.size(), 1U);
  const TargetGroup& group = config.groups[0];
  EXPECT_EQ(group.mode, abi::ForwardingMode::ipip);
  EXPECT_EQ(group.table_size, 65537U);
  EXPECT_EQ(group.deregistration_delay.count(), 300);
  EXPECT_EQ(group.after_deregistration, abi::TrackedFlows::keep);
  EXPECT_TRUE(group.terminate_on_unhealthy);
  EXPECT_EQ(group.minimum_healthy_count, 1U);
  EXPECT_EQ(group.health_check.protocol, ProbeProtocol::tcp);
  EXPECT_EQ(group.health_check.interval.count(), 10);
  EXPECT_EQ(group.health_check.timeout.count(), 5);
  EXPECT_EQ(group.health_check.healthy_threshold, 5U);
  EXPECT_EQ(group.health_check.unhealthy_threshold, 2U);
  ASSERT_EQ(group.targets.size(), 2U);
  EXPECT_EQ(group.targets[0], (Target{abi::IpAddress::v4(10, 0, 0, 1), 80, 1}));
  EXPECT_EQ(group.targets[1].weight, 3U);
  EXPECT_EQ(config.listeners[0].groups, (std::vector<WeightedGroup>{{"blue", 1}}));
}

TEST(Load, DefaultsThatDependOnOtherFields) {
  const LoadResult udp =
      load(replaced("    protocol: TCP\n", "    protocol: TCP_UDP\n    health_check: {interval: 3}\n"), "f");
  ASSERT_TRUE(udp.config) << told(udp.violations);
  EXPECT_EQ(udp.config->groups[0].after_deregistration, abi::TrackedFlows::reset);
  EXPECT_EQ(udp.config->groups[0].health_check.timeout.count(), 3) << "never above the interval";
  const LoadResult http = load(replaced("    port: 80\n", "    health_check: {protocol: HTTP}\n"), "f");
  ASSERT_TRUE(http.config) << told(http.violations);
  EXPECT_EQ(http.config->groups[0].health_check.timeout.count(), 6);
  EXPECT_EQ(http.config->groups[0].targets[0].port, 80) << "the port that all listeners of the group share";
}

TEST(Load, AKeyWithDotsIsAPath) {
  const LoadResult dots = load(replaced("    port: 80\n",
                                        "    attributes.deregistration_delay.timeout_seconds: 5\n"
                                        "    attributes: {deregistration_delay: "
                                        "{connection_termination.enabled: true}, tcp.idle_timeout.seconds: 60}\n"),
                               "f");
  ASSERT_TRUE(dots.config) << told(dots.violations);
  EXPECT_EQ(dots.config->groups[0].deregistration_delay.count(), 5);
  EXPECT_EQ(dots.config->groups[0].after_deregistration, abi::TrackedFlows::reset);
  EXPECT_EQ(dots.config->groups[0].tcp_idle_timeout.count(), 60);
}

TEST(Load, AnchorsAndAliasesAreFollowed) {
  const LoadResult result = load(R"(version: 1
target_groups:
  - {name: a, protocol: TCP, health_check: &check {protocol: HTTP, path: /up}, targets: []}
  - {name: b, protocol: TCP, health_check: *check, targets: []}
)",
                                 "f");
  ASSERT_TRUE(result.config) << told(result.violations);
  EXPECT_EQ(result.config->groups[1].health_check.path, "/up");
}

struct Bad {
  const char* what;
  std::string text;
  std::string expected;  // all violations, exactly
};

void PrintTo(const Bad& bad, std::ostream* out) {
  *out << bad.what;
}

class LoadRefuses : public testing::TestWithParam<Bad> {};

TEST_P(LoadRefuses, WithFileLineAndField) {
  const LoadResult result = load(GetParam().text, "lb.yaml");
  EXPECT_FALSE(result.config);
  EXPECT_EQ(told(result.violations), GetParam().expected);
}

std::string with_group(std::string_view lines) {
  return replaced("    port: 80\n", lines);
}

const std::string kTwoPorts = "  - {name: web-81, vip: web, protocol: TCP, port: 81, target_groups: [{name: blue}]}\n";

INSTANTIATE_TEST_SUITE_P(
    File, LoadRefuses,
    testing::Values(
        Bad{"empty", "", "lb.yaml:1: : file is empty\n"},
        Bad{"not a map", "- 1\n", "lb.yaml:1: : must be a map of fields, not a list\n"},
        Bad{"syntax", "version: 1\nvips: [\n",
            "lb.yaml:3: : not YAML: while parsing a flow node, did not find expected node content\n"},
        Bad{"two documents", "version: 1\n---\nversion: 1\n", "lb.yaml:2: : file has more than one document\n"},
        Bad{"tag", "version: !!int 1\n", "lb.yaml:1: : tags are not allowed (tag:yaml.org,2002:int)\n"},
        Bad{"alias to itself", "version: &a [*a]\n", "lb.yaml:1: : alias to a node that contains it\n"},
        Bad{"NUL", std::string("version: 1\n\0", 12), "lb.yaml:2: : NUL byte\n"},
        Bad{"not UTF-8", "version: 1\nseed: \xc0\x80\n", "lb.yaml:2: : not UTF-8\n"},
        Bad{"version missing", "seed: 1\n", "lb.yaml:1: version: is missing\n"},
        Bad{"version 2", "version: 2\n", "lb.yaml:1: version: must be 1, not '2'\n"},
        Bad{"unknown field", "version: 1\nspeed: 1\n", "lb.yaml:2: speed: unknown field\n"},
        Bad{"duplicate key", "version: 1\nseed: 1\nseed: 2\n", "lb.yaml:3: seed: stands here twice\n"},
        Bad{"duplicate through a path",
            with_group("    attributes: {tcp: {idle_timeout: {seconds: 60}}}\n"
                       "    attributes.tcp.idle_timeout.seconds: 70\n"),
            "lb.yaml:11: target_groups[0].attributes.tcp.idle_timeout.seconds: stands here twice\n"},
        Bad{"path into a number", "version: 1\nseed.x: 1\n", "lb.yaml:2: seed: has no fields of its own\n"},
        Bad{"key that is a list", "version: 1\n[a, b]: 1\n", "lb.yaml:2: : a key must be a field's name, not a list\n"},
        Bad{"wrong types", "version: 1\nseed: -1\nvips: {}\ntunnel_source: 4\n",
            "lb.yaml:2: seed: must be a whole number 0-18446744073709551615, not '-1'\n"
            "lb.yaml:3: vips: must be a list, not a map\n"
            "lb.yaml:4: tunnel_source: must be a map of fields, not a single value\n"},
        Bad{"quoted number", "version: 1\nseed: \"1\"\n",
            "lb.yaml:2: seed: must be a whole number 0-18446744073709551615, not '1'\n"},
        Bad{"no value", "version: 1\nseed:\n",
            "lb.yaml:2: seed: must be a whole number 0-18446744073709551615, not nothing\n"},
        Bad{"control characters are not echoed", "version: \"1\\e[2J\"\n", "lb.yaml:1: version: must be 1, not '1?[2J'\n"}));

INSTANTIATE_TEST_SUITE_P(
    Vips, LoadRefuses,
    testing::Values(Bad{"bits behind the prefix", replaced("192.0.2.10", "192.0.2.10/24"),
                        "lb.yaml:4: vips[0].address: has bits set behind its prefix length\n"},
                    Bad{"prefix too wide", replaced("192.0.2.10", "192.0.0.0/7"),
                        "lb.yaml:4: vips[0].address: prefix length must be 8-32\n"},
                    Bad{"target in the prefix of a VIP", replaced("192.0.2.10", "10.0.0.0/30"),
                        "lb.yaml:12: target_groups[0].targets[0].address: is the address of a VIP\n"
                        "lb.yaml:13: target_groups[0].targets[1].address: is the address of a VIP\n"},
                    Bad{"not an address", replaced("192.0.2.10", "web.example"),
                        "lb.yaml:4: vips[0].address: must be an IPv4 or IPv6 address or prefix, not 'web.example'\n"},
                    Bad{"multicast", replaced("192.0.2.10", "224.0.0.1"),
                        "lb.yaml:4: vips[0].address: must be a unicast address that a host can have\n"},
                    Bad{"link-local", replaced("192.0.2.10", "\"fe80::1\""),
                        "lb.yaml:4: vips[0].address: must be a unicast address that a host can have\n"},
                    Bad{"name twice, address twice",
                        replaced("192.0.2.10}\n", "192.0.2.10}\n  - {name: web, address: 192.0.2.10}\n"),
                        "lb.yaml:5: vips[1].name: 'web' is taken by an entry above\n"
                        "lb.yaml:5: vips[1].address: is the address of VIP 'web' already\n"},
                    Bad{"bad name", replaced("- {name: web,", "- {name: \"we b\","),
                        "lb.yaml:4: vips[0].name: must be letters, digits, - _ . and begin with a letter or digit\n"
                        "lb.yaml:6: listeners[0].vip: there is no VIP 'web'\n"},
                    Bad{"missing fields", replaced("{name: web, address: 192.0.2.10}", "{}"),
                        "lb.yaml:4: vips[0].name: is missing\nlb.yaml:4: vips[0].address: is missing\n"
                        "lb.yaml:6: listeners[0].vip: there is no VIP 'web'\n"}));

INSTANTIATE_TEST_SUITE_P(
    Listeners, LoadRefuses,
    testing::Values(
        Bad{"protocol", replaced("protocol: TCP, port", "protocol: SCTP, port"),
            "lb.yaml:6: listeners[0].protocol: must be TCP | UDP | TCP_UDP | GENEVE, not 'SCTP'\n"},
        Bad{"port 0", replaced("port: 80, t", "port: 0, t"),
            "lb.yaml:6: listeners[0].port: must be 1-65535, a range N-M of these, or any, not '0'\n"},
        Bad{"range backwards", replaced("port: 80, t", "port: 90-80, t"),
            "lb.yaml:6: listeners[0].port: must be 1-65535, a range N-M of these, or any, not '90-80'\n"},
        Bad{"weight", replaced("weight: 1}]", "weight: 1000}]"),
            "lb.yaml:6: listeners[0].target_groups[0].weight: must be a whole number 0-999, not '1000'\n"},
        Bad{"no such group", replaced("{name: blue, weight: 1}", "{name: red}"),
            "lb.yaml:6: listeners[0].target_groups[0].name: there is no target group 'red'\n"},
        Bad{"group twice", replaced("[{name: blue, weight: 1}]", "[{name: blue}, {name: blue}]"),
            "lb.yaml:6: listeners[0].target_groups[1].name: target group 'blue' stands in this listener twice\n"},
        Bad{"no group", replaced("[{name: blue, weight: 1}]", "[]"), "lb.yaml:6: listeners[0].target_groups: is missing\n"},
        Bad{"nine groups",
            replaced("[{name: blue, weight: 1}]",
                     "[{name: a}, {name: a}, {name: a}, {name: a}, {name: a}, {name: a}, {name: a}, {name: a}, {name: a}]"),
            "lb.yaml:6: listeners[0].target_groups: has 9 entries, at most 8 are allowed\n"},
        Bad{"same range on one VIP",
            replaced("target_groups:\n  -",
                     "  - {name: again, vip: web, protocol: TCP_UDP, port: 80, target_groups: []}\n"
                     "target_groups:\n  -"),
            "lb.yaml:7: listeners[1].target_groups: is missing\n"
            "lb.yaml:7: listeners[1].port: VIP 'web' TCP 80 is taken by listener 'web-80'\n"},
        Bad{"TCP_UDP listener, TCP group", replaced("protocol: TCP, port", "protocol: TCP_UDP, port"),
            "lb.yaml:6: listeners[0].target_groups[0].name: target group 'blue' is TCP, a TCP_UDP listener takes TCP_UDP "
            "target groups\n"},
        Bad{"UDP listener, TCP group", replaced("protocol: TCP, port", "protocol: UDP, port"),
            "lb.yaml:6: listeners[0].target_groups[0].name: target group 'blue' is TCP, a UDP listener takes UDP or TCP_UDP "
            "target groups\n"}));

INSTANTIATE_TEST_SUITE_P(
    Groups, LoadRefuses,
    testing::Values(
        Bad{"table size", with_group("    table_size: 65536\n"),
            "lb.yaml:10: target_groups[0].table_size: must be a prime 7-16777213, and 65536 is none\n"},
        Bad{"mode", with_group("    forwarding_mode: dsr\n"),
            "lb.yaml:10: target_groups[0].forwarding_mode: must be l2dsr | ipip | gue | gre | geneve | nat | fullnat, not "
            "'dsr'\n"},
        Bad{"gue attributes", with_group("    attributes: {gue.port: 0}\n"),
            "lb.yaml:10: target_groups[0].attributes.gue.port: must be a whole number 1-65535, not '0'\n"
            "lb.yaml:10: target_groups[0].attributes.gue: needs forwarding_mode: gue\n"},
        Bad{"fragmentation without a tunnel",
            with_group("    forwarding_mode: l2dsr\n    attributes: {outer_fragmentation.enabled: true}\n"),
            "lb.yaml:11: target_groups[0].attributes.outer_fragmentation.enabled: needs a forwarding_mode that is a "
            "tunnel\n"},
        Bad{"gre attributes", with_group("    forwarding_mode: gue\n    attributes: {gre.key: 4294967296}\n"),
            "lb.yaml:11: target_groups[0].attributes.gre.key: must be a whole number 0-4294967295, not '4294967296'\n"
            "lb.yaml:11: target_groups[0].attributes.gre: needs forwarding_mode: gre\n"},
        Bad{"fullnat without SNAT addresses", with_group("    forwarding_mode: fullnat\n"),
            "lb.yaml:10: target_groups[0].forwarding_mode: fullnat needs attributes.snat.addresses\n"},
        Bad{"SNAT addresses without fullnat",
            with_group("    attributes: {snat.addresses: 10.0.0.9, proxy_protocol_v2.enabled: true}\n"),
            "lb.yaml:10: target_groups[0].attributes.snat: needs forwarding_mode: fullnat\n"
            "lb.yaml:10: target_groups[0].attributes.proxy_protocol_v2.enabled: needs forwarding_mode: fullnat: in the "
            "other "
            "modes targets see the client's address\n"},
        Bad{"SNAT addresses with host bits",
            with_group("    forwarding_mode: fullnat\n    attributes: {snat.addresses: \"10.0.0.9,10.0.1.1/28\"}\n"),
            "lb.yaml:11: target_groups[0].attributes.snat.addresses: must be a list of unicast addresses and prefixes, as "
            "10.0.0.9,10.1.0.0/28, of at most 256 addresses, not '10.0.0.9,10.0.1.1/28'\n"},
        Bad{"SNAT addresses of the other family",
            with_group("    forwarding_mode: fullnat\n    attributes: {snat.addresses: \"fd00::9\"}\n"),
            "lb.yaml:11: target_groups[0].attributes.snat.addresses: has no address of the family of target 10.0.0.1\n"},
        Bad{"SNAT address of others",
            with_group("    forwarding_mode: fullnat\n    attributes: {snat.addresses: \"10.0.0.2,192.0.2.10\"}\n"),
            "lb.yaml:11: target_groups[0].attributes.snat.addresses: 10.0.0.2 is the address of a target, "
            "192.0.2.10 is the address of a VIP\n"},
        Bad{"the client told twice",
            with_group(
                "    forwarding_mode: fullnat\n    attributes: {snat.addresses: 10.0.0.9, proxy_protocol_v2.enabled: true, "
                "client_address_option.enabled: true}\n"),
            "lb.yaml:11: target_groups[0].attributes.client_address_option.enabled: excludes proxy_protocol_v2.enabled: one "
            "of "
            "them tells the client\n"},
        Bad{"geneve without its protocol", with_group("    forwarding_mode: geneve\n"),
            "lb.yaml:10: target_groups[0].forwarding_mode: geneve needs protocol: GENEVE\n"},
        Bad{"geneve's attributes elsewhere",
            with_group("    attributes: {geneve.vpce_id: 1, target_failover.on_unhealthy: rebalance}\n"),
            "lb.yaml:10: target_groups[0].attributes.target_failover: needs forwarding_mode: geneve\n"
            "lb.yaml:10: target_groups[0].attributes.geneve: needs forwarding_mode: geneve\n"},
        Bad{"families of nat",
            with_group("    forwarding_mode: nat\n")
                .replace(with_group("    forwarding_mode: nat\n").find("10.0.0.2"), 8, "\"fd00::2\""),
            "lb.yaml:10: target_groups[0].forwarding_mode: nat needs targets of the VIP's family: fd00::2 cannot serve VIP "
            "'web' (192.0.2.10) of listener 'web-80'\n"},
        Bad{"nat on a range of ports",
            with_group("    forwarding_mode: nat\n    port: 8080\n")
                .replace(with_group("    forwarding_mode: nat\n    port: 8080\n").find("port: 80, t"), 11, "port: 80-81, t"),
            "lb.yaml:10: target_groups[0].forwarding_mode: nat needs listeners on one port: listener 'web-80' is on "
            "80-81\n"},
        Bad{"group's port is translated", with_group("    port: 8080\n"),
            "lb.yaml:10: target_groups[0].port: ipip does not translate ports and listener 'web-80' is on 80: must be 80 or "
            "left "
            "out\n"},
        Bad{"target's port is translated", replaced("{address: 10.0.0.1}", "{address: 10.0.0.1, port: 8080}"),
            "lb.yaml:12: target_groups[0].targets[0].port: ipip does not translate ports and listener 'web-80' is on 80: "
            "must be "
            "80 or left out\n"},
        Bad{"port outside a range listener", replaced("port: 80, t", "port: 8000-8999, t"),
            "lb.yaml:10: target_groups[0].port: ipip does not translate ports and listener 'web-80' is on 8000-8999: must "
            "be "
            "left out\n"},
        Bad{"no port to probe", with_group("").replace(with_group("").find("target_groups:\n"), 0, kTwoPorts),
            "lb.yaml:9: target_groups[0].health_check.port: must be 1-65535: the listeners of target group 'blue' do not "
            "share "
            "one port, so there is no traffic-port to probe\n"},
        Bad{"target twice", replaced("10.0.0.2", "10.0.0.1"),
            "lb.yaml:13: target_groups[0].targets[1].address: 10.0.0.1:80 stands in this target group twice\n"},
        Bad{"target is a VIP", replaced("10.0.0.2", "192.0.2.10"),
            "lb.yaml:13: target_groups[0].targets[1].address: is the address of a VIP\n"},
        Bad{"target's weight", replaced("weight: 3", "weight: 65536"),
            "lb.yaml:13: target_groups[0].targets[1].weight: must be a whole number 0-65535, not '65536'\n"},
        Bad{"target's address", replaced("10.0.0.2", "10.0.0.0/8"),
            "lb.yaml:13: target_groups[0].targets[1].address: must be a unicast IPv4 or IPv6 address, not '10.0.0.0/8'\n"},
        Bad{"families of l2dsr",
            with_group("    forwarding_mode: l2dsr\n")
                .replace(with_group("    forwarding_mode: l2dsr\n").find("10.0.0.2"), 8, "\"fd00::2\""),
            "lb.yaml:10: target_groups[0].forwarding_mode: l2dsr needs targets of the VIP's family: fd00::2 cannot serve "
            "VIP "
            "'web' (192.0.2.10) of listener 'web-80'\n"},
        Bad{"attributes",
            with_group("    attributes:\n      deregistration_delay.timeout_seconds: 3601\n"
                       "      stickiness: {enabled: yes, type: cookie}\n"
                       "      target_group_health.unhealthy_state_routing.minimum_healthy_targets: {count: 0, "
                       "percentage: 101}\n"
                       "      target_health_state.unhealthy.draining_interval_seconds: 10\n"
                       "      udp.idle_timeout.seconds: 9\n"),
            "lb.yaml:11: target_groups[0].attributes.deregistration_delay.timeout_seconds: must be a whole number 0-3600, "
            "not "
            "'3601'\n"
            "lb.yaml:12: target_groups[0].attributes.stickiness.enabled: must be true or false, not 'yes'\n"
            "lb.yaml:12: target_groups[0].attributes.stickiness.type: must be source_ip | source_ip_dest_ip | "
            "source_ip_dest_ip_proto, not 'cookie'\n"
            "lb.yaml:13: "
            "target_groups[0].attributes.target_group_health.unhealthy_state_routing.minimum_healthy_targets.count: "
            "must be a whole number 1-65535, not '0'\n"
            "lb.yaml:13: "
            "target_groups[0].attributes.target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage: "
            "must "
            "be off or 1-100, not '101'\n"
            "lb.yaml:14: target_groups[0].attributes.target_health_state.unhealthy.draining_interval_seconds: needs "
            "target_health_state.unhealthy.connection_termination.enabled: false, else it must be 0\n"
            "lb.yaml:15: target_groups[0].attributes.udp.idle_timeout.seconds: must be a whole number 10-600, not '9'\n"},
        Bad{"health check",
            with_group("    health_check:\n      protocol: HTTP\n      path: up\n      matcher: 200-600\n"
                       "      port: 70000\n      host: \"a b\"\n      interval: 5\n      timeout: 6\n"
                       "      healthy_threshold: 1\n"),
            "lb.yaml:12: target_groups[0].health_check.path: must begin with / and have no spaces or control characters\n"
            "lb.yaml:13: target_groups[0].health_check.matcher: must be a list of codes and ranges within 200-599, as "
            "200-299,301, not '200-600'\n"
            "lb.yaml:14: target_groups[0].health_check.port: must be traffic-port or 1-65535, not '70000'\n"
            "lb.yaml:15: target_groups[0].health_check.host: must have no spaces or control characters\n"
            "lb.yaml:17: target_groups[0].health_check.timeout: must be 1-5: at most the interval\n"
            "lb.yaml:18: target_groups[0].health_check.healthy_threshold: must be a whole number 2-10, not '1'\n"}));

INSTANTIATE_TEST_SUITE_P(
    Rest, LoadRefuses,
    testing::Values(
        Bad{"tunnel sources", "version: 1\ntunnel_source:\n  ipv4: 10.0.0.1/24\n  ipv6: 10.0.0.1\n",
            "lb.yaml:3: tunnel_source.ipv4: has bits set behind its prefix length\n"
            "lb.yaml:4: tunnel_source.ipv6: must be a unicast IPv6 address or prefix, not '10.0.0.1'\n"},
        Bad{"static neighbours",
            "version: 1\nstatic_neighbours:\n  - {address: 10.0.0.1, mac: \"01:00:00:00:00:01\", interface: lb0}\n"
            "  - {address: x, mac: \"02:00:00:00:00:01\", interface: a-name-of-17-byte}\n",
            "lb.yaml:3: static_neighbours[0].mac: must be a unicast MAC address aa:bb:cc:dd:ee:ff, not '01:00:00:00:00:01'\n"
            "lb.yaml:4: static_neighbours[1].interface: must be text of 1-15 bytes, not 'a-name-of-17-byte'\n"
            "lb.yaml:4: static_neighbours[1].address: must be an IPv4 or IPv6 address\n"}));

TEST(Load, RefusesFilesBeyondItsLimitsByName) {
  const LoadResult large = load(std::string(yaml::kMaxFileBytes + 1, ' '), "f");
  EXPECT_EQ(told(large.violations), "f:0: : file is longer than 64 MiB\n");
  const LoadResult deep = load("version: " + std::string(100'000, '['), "f");
  ASSERT_EQ(deep.violations.size(), 1U);
  EXPECT_NE(deep.violations[0].text.find("not YAML"), std::string::npos) << told(deep.violations);

  // Eight aliases of eight aliases of …: 8^10 values from ten lines.
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    const std::string name = "a" + std::to_string(i);
    const std::string alias = "*a" + std::to_string(i - 1);
    bomb += name + ": &" + name + " [" + alias;
    for (int j = 1; j < 8; ++j) bomb += ", " + alias;
    bomb += "]\n";
  }
  EXPECT_EQ(told(load(bomb, "f").violations), "f:8: : more than 8000000 values, aliases followed\n");
}

TEST(Load, WarnsOfASmallestShareBelowOneSlot) {
  const LoadResult result = load(replaced("weight: 3", "weight: 65535"), "f");
  ASSERT_TRUE(result.config);
  EXPECT_EQ(told(result.warnings), "");
  const LoadResult small =
      load(replaced("    port: 80\n", "    table_size: 7\n")
               .replace(replaced("    port: 80\n", "    table_size: 7\n").find("weight: 3"), 9, "weight: 8"),
           "f");
  ASSERT_TRUE(small.config);
  EXPECT_EQ(told(small.warnings),
            "f:12: target_groups[0].targets[0].weight: the share of 10.0.0.1 is 0.778 slots of 7, less than one: raise "
            "table_size\n");
}

TEST(Load, WarnsOfAPortBehindARangeListener) {
  const LoadResult result = load(replaced("port: 80, t", "port: any, t"), "f");
  ASSERT_TRUE(result.config) << told(result.violations);
  EXPECT_EQ(
      told(result.warnings),
      "f:10: target_groups[0].port: is for the health check and the target's name: listener 'web-80' is on any, and packets "
      "keep the client's port\n");
}

TEST(Load, WarnsOfWhatHasNoEffect) {
  const LoadResult result = load(R"(version: 1
target_groups:
  - name: idle
    protocol: TCP
    health_check: {path: /x}
)",
                                 "f");
  ASSERT_TRUE(result.config) << told(result.violations);
  EXPECT_EQ(told(result.warnings),
            "f:3: target_groups[0].name: target group 'idle' has no targets: its packets are dropped\n"
            "f:5: target_groups[0].health_check.path: has no effect: protocol is not HTTP or HTTPS\n");
}

TEST(Load, HealthChecksOfEveryProtocol) {
  const auto check_of = [](std::string_view check) {
    const LoadResult result =
        load(replaced("    targets:\n", "    health_check: " + std::string(check) + "\n    targets:\n"), "lb.yaml");
    EXPECT_TRUE(result.config) << told(result.violations);
    EXPECT_EQ(told(result.warnings), "");
    return result.config ? result.config->groups[0].health_check : HealthCheck{};
  };
  const HealthCheck https =
      check_of("{protocol: HTTPS, path: /up, host: lb.test, matcher: \"200,301-302\", tls_verify: true, http_version: 2}");
  EXPECT_EQ(https.protocol, ProbeProtocol::https);
  EXPECT_TRUE(https.tls_verify && https.http2);
  EXPECT_EQ(https.timeout, std::chrono::seconds(6));
  const HealthCheck udp = check_of(R"({protocol: UDP, send: 'a\x00\n', expect: ok})");
  EXPECT_EQ(unescape(udp.send), std::string("a\0\n", 3));
  EXPECT_EQ(udp.expect, "ok");
  EXPECT_EQ(check_of("{protocol: ICMP, removal_limit: 50, flap_damping: false}").removal_limit_percent, 50U);
  EXPECT_FALSE(check_of("{through: direct}").through_tunnel);
  EXPECT_TRUE(check_of("{through: tunnel}").through_tunnel);
}

TEST(Load, WhetherClientAddressesArePreservedIsTheModes) {
  const auto said = [](std::string_view mode, std::string_view attributes) {
    return told(load(replaced("    targets:\n", "    forwarding_mode: " + std::string(mode) + "\n    attributes: {" +
                                                    std::string(attributes) + "}\n    targets:\n"),
                     "f")
                    .violations);
  };
  EXPECT_EQ(said("nat", "preserve_client_ip.enabled: true"), "");
  EXPECT_EQ(said("fullnat", "snat.addresses: 10.0.0.9, preserve_client_ip.enabled: false"), "");
  EXPECT_NE(said("ipip", "preserve_client_ip.enabled: false").find("attributes.preserve_client_ip.enabled: is true"),
            std::string::npos);
  EXPECT_NE(said("fullnat", "snat.addresses: 10.0.0.9, preserve_client_ip.enabled: true").find("is false in"),
            std::string::npos);
}

TEST(Load, AttributesThatContradictEachOtherAreRefused) {
  const auto said = [](std::string_view attributes) {
    return told(
        load(replaced("    targets:\n", "    attributes: " + std::string(attributes) + "\n    targets:\n"), "f").violations);
  };
  EXPECT_EQ(said("{deregistration_delay.then: rehash}"), "");
  EXPECT_NE(said("{deregistration_delay.then: leave, deregistration_delay.connection_termination.enabled: true}")
                .find("target_groups[0].attributes.deregistration_delay.then: 'leave' contradicts"),
            std::string::npos);
  EXPECT_NE(said("{slow_start.duration_seconds: 29}").find("must be 0 (off) or 30-900"), std::string::npos);
  EXPECT_NE(said("{slow_start.duration_seconds: 30, algorithm: round_robin}").find("needs algorithm maglev"),
            std::string::npos);
  EXPECT_NE(said("{stickiness.enabled: true, algorithm: least_connections}").find("must be maglev"), std::string::npos);
  EXPECT_NE(said("{algorithm: per_packet}").find("per_packet needs protocol UDP or TCP_UDP"), std::string::npos);
}

TEST(Load, BytesOfADatagramAreSaidInPrintableText) {
  const std::string text = replaced("    targets:\n", "    health_check: {protocol: UDP, send: '\\q'}\n    targets:\n");
  EXPECT_NE(told(load(text, "f").violations).find("health_check.send: must be printable ASCII"), std::string::npos);
}

TEST(Load, WrongListenerStillUsesItsTargetGroup) {
  const LoadResult result = load(replaced("port: 80, target_groups", "port: 0, target_groups"), "lb.yaml");
  EXPECT_FALSE(result.config);
  EXPECT_EQ(told(result.warnings).find("no listener uses"), std::string::npos) << told(result.warnings);
}

constexpr std::string_view kGateway = R"(version: 1
vips:
  - {name: servers, address: 192.0.2.0/24}
listeners:
  - {name: through, vip: servers, protocol: GENEVE, target_groups: [{name: firewalls}]}
  - {name: inside, interface: eth1, protocol: GENEVE, target_groups: [{name: firewalls}]}
target_groups:
  - name: firewalls
    protocol: GENEVE
    attributes: {stickiness: {enabled: true, type: source_ip_dest_ip}, geneve: {vpce_id: 18446744073709551615}}
    health_check: {protocol: TCP, port: 80}
    targets: [{address: 10.0.0.1}]
)";

TEST(Gateway, HasNoPortsAndItsOwnDefaults) {
  const LoadResult loaded = load(std::string(kGateway), "lb.yaml");
  ASSERT_TRUE(loaded.violations.empty()) << told(loaded.violations);
  const TargetGroup& group = loaded.config->groups[0];
  EXPECT_EQ(group.mode, abi::ForwardingMode::geneve);
  EXPECT_EQ(group.stickiness, abi::Stickiness::symmetric_ip);
  EXPECT_EQ(group.geneve_vpce_id, ~std::uint64_t{0});
  EXPECT_EQ(group.geneve_class, 0x0108);
  EXPECT_EQ(group.after_deregistration, abi::TrackedFlows::keep);
  EXPECT_TRUE(group.keep_unhealthy_flows);
  EXPECT_FALSE(group.terminate_on_unhealthy);
  EXPECT_EQ(group.targets[0].port, 6081);
  EXPECT_EQ(loaded.config->listeners[1].interface, "eth1");
}

TEST(Gateway, IsRefusedByLineAndField) {
  const auto told_of = [](std::string_view from, std::string_view to) {
    std::string text(kGateway);
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return told(load(text.replace(at, from.size(), to), "lb.yaml").violations);
  };
  EXPECT_EQ(told_of("servers, protocol: GENEVE", "servers, protocol: GENEVE, port: 80"),
            "lb.yaml:5: listeners[0].port: must be left out: GENEVE listeners take all IP traffic\n");
  EXPECT_EQ(told_of("interface: eth1", "interface: eth1, vip: servers"),
            "lb.yaml:6: listeners[1].interface: stands in place of vip: leave one out\n"
            "lb.yaml:6: listeners[1].vip: VIP 'servers' has the GENEVE listener 'through' already\n");
  EXPECT_EQ(told_of("interface: eth1, ", ""), "lb.yaml:6: listeners[1].vip: is missing, and so is an interface\n");
  EXPECT_EQ(told_of("type: source_ip_dest_ip", "type: source_ip"),
            "lb.yaml:10: target_groups[0].attributes.stickiness.type: must be source_ip_dest_ip or source_ip_dest_ip_proto "
            "with forwarding_mode: geneve: both directions of a flow go to one appliance\n");
  EXPECT_EQ(told_of(", port: 80}", "}"),
            "lb.yaml:11: target_groups[0].health_check.port: must be 1-65535: an appliance answers no probe on its Geneve "
            "port\n");
  EXPECT_EQ(told_of("{address: 10.0.0.1}", "{address: 10.0.0.1, port: 80}"),
            "lb.yaml:12: target_groups[0].targets[0].port: must be 6081 or left out: geneve has no other\n");
  EXPECT_EQ(told_of("geneve: {", "target_failover.on_unhealthy: rebalance, geneve: {"),
            "lb.yaml:10: target_groups[0].attributes.target_failover.on_unhealthy: must be the same as on_deregistration\n");
  EXPECT_EQ(told_of("10.0.0.1}", "192.0.2.7}"),
            "lb.yaml:12: target_groups[0].targets[0].address: is the address of a VIP\n");
}

}  // namespace
}  // namespace lb::cp
