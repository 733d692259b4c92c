#include "cp/config/render.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "cp/config/diff.h"
#include "cp/config/load.h"
#include "cp/config/values.h"

namespace lb::cp {
namespace {

std::string told(const std::vector<Violation>& violations) {
  std::string text;
  for (const Violation& v : violations) text += std::to_string(v.line) + ": " + v.field + ": " + v.text + "\n";
  return text;
}

std::string told(const std::vector<Change>& changes) {
  std::string text;
  for (const Change& c : changes) {
    text += c.kind + " " + c.object;
    if (!c.field.empty()) text += " " + c.field + ": " + c.old_value + " -> " + c.new_value;
    text += "\n";
  }
  return text;
}

std::string contents(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// Every example of configs/ that is a configuration of lb-cp.
TEST(Examples, AllLoadWithoutViolationOrWarning) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(LB_SOURCE_ROOT "/configs")) {
    const std::string name = entry.path().filename();
    if (entry.path().extension() != ".yaml" || name.starts_with("dp")) continue;
    const LoadResult result = load(contents(entry.path()), name);
    EXPECT_TRUE(result.config) << name << "\n" << told(result.violations);
    EXPECT_EQ(told(result.warnings), "") << name;
    if (result.config) {
      const LoadResult again = load(render(*result.config), "rendered");
      ASSERT_TRUE(again.config) << told(again.violations) << render(*result.config);
      EXPECT_EQ(*again.config, *result.config) << name;
    }
    ++count;
  }
  EXPECT_GE(count, 6);
}

TEST(Examples, DemoBeginsWithAnIpv4VipAndATcpListener) {
  const LoadResult result = load(contents(LB_SOURCE_ROOT "/configs/demo.yaml"), "demo.yaml");
  ASSERT_TRUE(result.config);
  EXPECT_TRUE(result.config->vips.at(0).address.is_v4());
  EXPECT_EQ(result.config->listeners.at(0).protocol, ListenerProtocol::tcp);
}

template <typename T>
T pick(std::initializer_list<T> values) {
  return *rc::gen::elementOf(std::vector<T>(values));
}

Config random_config() {
  Config config;
  config.seed = *rc::gen::arbitrary<std::uint64_t>();
  config.vips = {{"v4", abi::IpAddress::v4(192, 0, 2, 1)},
                 {"null", *parse_address("2001:db8::1")},
                 {"wide4", abi::IpAddress::v4(192, 0, 2, 0), 120},
                 {"wide6", *parse_address("2001:db8::"), 64}};
  const int security_groups = *rc::gen::inRange(0, 3);
  for (int s = 0; s < security_groups; ++s) {
    SecurityGroup group{"s" + std::to_string(s), *rc::gen::arbitrary<bool>(), {}};
    if (s == 0) group.rules.push_back({.allow = true, .any_source = true, .first_port = 80, .last_port = 443});
    group.rules.push_back({*rc::gen::arbitrary<bool>(), false, *parse_prefix("2001:db8::/32"), ListenerProtocol::udp});
    group.rules.push_back({*rc::gen::arbitrary<bool>(), false, *parse_prefix("10.1.0.0/16")});
    config.security_groups.push_back(group);
  }
  config.hygiene.land = *rc::gen::arbitrary<bool>();
  config.hygiene.l4_checksums = *rc::gen::arbitrary<bool>();
  if (*rc::gen::arbitrary<bool>()) config.tunnel_source_v4 = parse_prefix("100.64.0.0/16");
  if (*rc::gen::arbitrary<bool>()) config.tunnel_source_v6 = parse_prefix("2001:db8:1::/64");
  const int groups = *rc::gen::inRange(1, 4);
  for (int g = 0; g < groups; ++g) {
    TargetGroup group;
    group.name = "g" + std::to_string(g);
    group.protocol = ListenerProtocol::tcp_udp;
    group.table_size = pick<std::uint32_t>({7, 65537, 655373});
    group.mode =
        pick({abi::ForwardingMode::ipip, abi::ForwardingMode::gue, abi::ForwardingMode::gre, abi::ForwardingMode::fullnat});
    if (group.mode == abi::ForwardingMode::fullnat) {
      group.snat_addresses = *parse_addresses("10.9.0.7,10.9.0.8/30,10.9.1.0/28,fd09::100/124,fd09::1", 256);
    } else {
      group.outer_fragmentation = *rc::gen::arbitrary<bool>();
    }
    if (group.mode == abi::ForwardingMode::gue) {
      group.gue_port = static_cast<std::uint16_t>(*rc::gen::inRange(1, 65536));
      group.gue_ipv6_zero_checksum = *rc::gen::arbitrary<bool>();
    }
    if (group.mode == abi::ForwardingMode::gre && *rc::gen::arbitrary<bool>())
      group.gre_key = *rc::gen::arbitrary<std::uint32_t>();
    group.stickiness =
        pick({abi::Stickiness::five_tuple, abi::Stickiness::source_ip, abi::Stickiness::source_ip_dest_ip_proto});
    group.deregistration_delay = std::chrono::seconds(*rc::gen::inRange(0, 3601));
    group.after_deregistration =
        *rc::gen::element(abi::TrackedFlows::keep, abi::TrackedFlows::reset, abi::TrackedFlows::rehash);
    group.terminate_on_unhealthy = *rc::gen::arbitrary<bool>();
    if (!group.terminate_on_unhealthy)
      group.unhealthy_draining_interval = std::chrono::seconds(*rc::gen::inRange(0, 360001));
    group.minimum_healthy_count = *rc::gen::inRange<std::uint32_t>(1, 65536);
    group.minimum_healthy_percentage = *rc::gen::inRange<std::uint32_t>(0, 101);
    group.tcp_idle_timeout = std::chrono::seconds(*rc::gen::inRange(60, 6001));
    group.health_check.protocol = pick({ProbeProtocol::tcp, ProbeProtocol::http, ProbeProtocol::none});
    if (group.health_check.protocol == ProbeProtocol::http) {
      group.health_check.path = pick<std::string>({"/", "/a?b=\"c\"&d", "/#x", "/%20:\\"});
      group.health_check.host = pick<std::string>({"", "a.example", "[::1]:80"});
      group.health_check.matcher = pick<std::vector<StatusRange>>({{{200, 399}}, {{200, 200}, {301, 599}}});
    }
    group.health_check.port = static_cast<std::uint16_t>(*rc::gen::inRange(1, 65536));
    group.health_check.interval = std::chrono::seconds(*rc::gen::inRange(1, 301));
    group.health_check.timeout =
        std::chrono::seconds(*rc::gen::inRange(1L, std::min(group.health_check.interval.count(), 120L) + 1));
    const int targets = *rc::gen::inRange(0, 5);
    for (int t = 0; t < targets; ++t) {
      group.targets.push_back({*rc::gen::arbitrary<bool>() ? abi::IpAddress::v4(10, 0, 0, static_cast<std::uint8_t>(t + 1))
                                                           : *parse_address("fd00::" + std::to_string(t + 1)),
                               0, *rc::gen::inRange<std::uint32_t>(0, 65536)});
    }
    config.groups.push_back(group);
    config.listeners.push_back({"l" + std::to_string(g),
                                pick<std::string>({"v4", "null"}),
                                ListenerProtocol::tcp_udp,
                                static_cast<std::uint16_t>(1000 * g + 1),
                                static_cast<std::uint16_t>(1000 * g + 500),
                                {{group.name, *rc::gen::inRange<std::uint32_t>(0, 1000)}}});
    RateLimits& limits = config.listeners.back().rate_limits;
    if (!*rc::gen::arbitrary<bool>()) continue;
    limits.per_source.new_flows_per_second = static_cast<std::uint64_t>(*rc::gen::inRange(0, 100));
    limits.per_listener.bytes_per_second = static_cast<std::uint64_t>(*rc::gen::inRange(1500, 3000));
    limits.action = pick({RateAction::drop, RateAction::reset, RateAction::mark});
    if (limits.action == RateAction::mark) limits.dscp = static_cast<std::uint8_t>(*rc::gen::inRange(0, 64));
    limits.prefix_v4 = static_cast<std::uint8_t>(*rc::gen::inRange(8, 33));
  }
  if (*rc::gen::arbitrary<bool>())
    config.static_neighbours.push_back({abi::IpAddress::v4(10, 0, 0, 1), {2, 0, 0, 0, 0, 1}, "lb0"});
  return config;
}

RC_GTEST_PROP(Render, LoadReadsBackWhatRenderWrote, ()) {
  const Config config = random_config();
  const std::string text = render(config);
  const LoadResult result = load(text, "rendered");
  RC_LOG() << text << told(result.violations);
  RC_ASSERT(result.config.has_value());
  RC_ASSERT(*result.config == config);
  RC_ASSERT(told(diff(config, *result.config)) == "");
}

TEST(Diff, TellsEachChangeOfEachObject) {
  const auto config = [](std::string_view text) {
    const LoadResult result = load(text, "f");
    EXPECT_TRUE(result.config) << told(result.violations);
    return result.config.value_or(Config{});
  };
  const Config from = config(R"(version: 1
seed: 1
vips: [{name: a, address: 192.0.2.1}, {name: b, address: 192.0.2.2}]
listeners: [{name: l, vip: a, protocol: TCP, port: 80, target_groups: [{name: blue}]}]
target_groups:
  - {name: blue, protocol: TCP, targets: [{address: 10.0.0.1}, {address: 10.0.0.2}, {address: "fd00::3"}]}
  - {name: old, protocol: UDP, port: 53, targets: [{address: 10.0.0.9}]}
)");
  const Config to = config(R"(version: 1
seed: 2
tunnel_source: {ipv4: 10.9.0.0/24}
vips: [{name: c, address: 192.0.2.2}, {name: a, address: 192.0.2.1}]
listeners: [{name: l, vip: a, protocol: TCP, port: 80, target_groups: [{name: blue, weight: 2}]}]
target_groups:
  - {name: blue, protocol: TCP, attributes.stickiness.enabled: true, targets: [{address: 10.0.0.4}, {address: 10.0.0.2, weight: 5}, {address: "fd00::3"}]}
)");
  EXPECT_EQ(told(diff(from, to)),
            "change config seed: 1 -> 2\n"
            "change config tunnel_source.ipv4:  -> 10.9.0.0/24\n"
            "remove vip b\n"
            "add vip c\n"
            "change listener l target_groups: blue:1 -> blue:2\n"
            "remove target-group old\n"
            "remove target old 10.0.0.9:53\n"
            "change target-group blue attributes.stickiness.enabled: false -> true\n"
            "change target-group blue attributes.stickiness.type:  -> source_ip\n"
            "remove target blue 10.0.0.1:80\n"
            "change target blue 10.0.0.2:80 weight: 1 -> 5\n"
            "add target blue 10.0.0.4:80\n");
  EXPECT_EQ(told(diff(from, from)), "");
}

TEST(Values, PortRangesAndMatchers) {
  EXPECT_EQ(parse_port_range("1-65535"), (PortRange{1, 65535}));
  EXPECT_EQ(parse_port_range("any"), kAnyPort);
  for (const char* bad : {"", "-", "0", "1-", "-1", "65536", "1-2-3", " 1", "+1", "1 - 2", "2-1"}) {
    EXPECT_FALSE(parse_port_range(bad)) << bad;
  }
  EXPECT_EQ(parse_matcher("200-299,301"), (std::vector<StatusRange>{{200, 299}, {301, 301}}));
  for (const char* bad : {"", "200,", ",200", "199", "600", "300-200", "200-"}) EXPECT_FALSE(parse_matcher(bad)) << bad;
}

TEST(Model, AddressesAndMacsAreReadAndWritten) {
  for (const char* text : {"192.0.2.1", "2001:db8::1", "::"}) EXPECT_EQ(format_address(*parse_address(text)), text);
  for (const char* bad : {"", "1.2.3", "1.2.3.256", "1.2.3.4 ", "01.2.3.4/32", "g::", "[::1]"})
    EXPECT_FALSE(parse_address(bad)) << bad;
  EXPECT_EQ(format_address_port(*parse_address("2001:db8::1"), 80), "[2001:db8::1]:80");
  EXPECT_EQ(format_address_port(*parse_address("192.0.2.1"), 80), "192.0.2.1:80");
  EXPECT_EQ(format_mac(*parse_mac("0A:1b:2c:3d:4e:ff")), "0a:1b:2c:3d:4e:ff");
  for (const char* bad : {"", "0a:1b:2c:3d:4e", "0a:1b:2c:3d:4e:f", "0a-1b-2c-3d-4e-ff", "0a:1b:2c:3d:4e:fg"}) {
    EXPECT_FALSE(parse_mac(bad)) << bad;
  }
}

}  // namespace
}  // namespace lb::cp
