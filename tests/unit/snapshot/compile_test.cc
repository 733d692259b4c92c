#include "cp/snapshot/compile.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "dp/lb/gateway.h"
#include "dp/lb/snapshot.h"
#include "dp/lb/vip_table.h"

namespace lb::cp {
namespace {

NextHop way(const std::string& interface = "lb0") {
  NextHop hop;
  hop.resolved = true;
  hop.interface = interface;
  hop.mac = {2, 0, 0, 0, 0, 1};
  hop.source_mac = {2, 0, 0, 0, 0, 2};
  return hop;
}

TargetInput target(const std::string& group, std::uint32_t id, std::uint32_t weight = 1) {
  TargetInput input;
  input.key = {group,
               abi::IpAddress::v4(10, static_cast<std::uint8_t>(id >> 16), static_cast<std::uint8_t>(id >> 8),
                                  static_cast<std::uint8_t>(id)),
               80};
  input.id = id;
  input.weight = weight;
  input.state = abi::TargetState::healthy;
  input.next_hop = way();
  return input;
}

// `groups` groups of `targets` targets and one listener each, all on one VIP.
SnapshotInput make_input(std::uint32_t groups, std::uint32_t targets, std::uint32_t table_size = 1009) {
  SnapshotInput input;
  input.generation = {1, 1};
  input.fleet_seed = 7;
  input.vips = {{"web", abi::IpAddress::v4(192, 0, 2, 10)}};
  for (std::uint32_t g = 0; g < groups; ++g) {
    GroupInput group;
    group.config.name = "g" + std::to_string(g);
    group.config.table_size = table_size;
    for (std::uint32_t t = 0; t < targets; ++t) group.targets.push_back(target(group.config.name, g * targets + t));
    const auto port = static_cast<std::uint16_t>(1000 + g);
    input.listeners.push_back(
        {{"l" + std::to_string(g), "web", ListenerProtocol::tcp, port, port, {{group.config.name, 1}}}, false, g});
    input.groups.push_back(std::move(group));
  }
  return input;
}

CompiledSnapshot compile(Compiler& compiler, const SnapshotInput& input) {
  auto compiled = compiler.compile(input);
  EXPECT_TRUE(compiled) << compiled.error();
  return compiled ? *compiled : CompiledSnapshot{};
}

// As lb-dp opens it: every check of the data plane.
std::shared_ptr<const Snapshot> open(const CompiledSnapshot& compiled) {
  std::map<std::uint64_t, SegmentBytes> segments;
  for (const auto& memory : compiled.segments) segments[memory->id()] = SegmentBytes{memory->bytes(), memory};
  auto snapshot =
      Snapshot::open(SegmentBytes{compiled.root->bytes(), compiled.root}, [&](std::uint64_t id) -> SegmentBytes* {
        const auto found = segments.find(id);
        return found == segments.end() ? nullptr : &found->second;
      });
  EXPECT_TRUE(snapshot) << snapshot.error().text;
  return snapshot ? *snapshot : nullptr;
}

std::set<std::uint64_t> ids(const CompiledSnapshot& compiled) {
  std::set<std::uint64_t> result;
  for (const auto& memory : compiled.segments) result.insert(memory->id());
  return result;
}

TEST(Compile, TunnelSettingsReachTheTargets) {
  Compiler compiler;
  SnapshotInput input = make_input(3, 1);
  input.groups[0].config.mode = abi::ForwardingMode::gue;
  input.groups[0].config.gue_port = 9886;
  input.groups[0].config.gue_ipv6_zero_checksum = true;
  input.groups[1].config.mode = abi::ForwardingMode::gre;
  input.groups[1].config.gre_key = 0;
  input.groups[2].config.mode = abi::ForwardingMode::gre;
  const auto snapshot = open(compile(compiler, input));
  ASSERT_TRUE(snapshot);
  for (const abi::Target& target : snapshot->targets()) {
    if ((target.flags & abi::kTargetLive) == 0) continue;
    EXPECT_EQ(target.tunnel_word, target.group == 0 ? 9886U : 0U);
    EXPECT_EQ(target.tunnel_flags, target.group == 0 ? abi::kTunnelZeroChecksum : target.group == 1 ? abi::kTunnelKeyed : 0);
  }
}

TEST(Compile, TheDataPlaneAcceptsAndFindsEverything) {
  Compiler compiler;
  SnapshotInput input = make_input(3, 4);
  input.groups[1].config.mode = abi::ForwardingMode::l2dsr;
  input.groups[1].config.stickiness = abi::Stickiness::source_ip;
  input.groups[1].config.tcp_idle_timeout = std::chrono::seconds(77);
  input.groups[1].fail_open = true;
  input.groups[2].targets[0].weight = 0;
  input.groups[2].targets[0].state = abi::TargetState::draining;
  input.groups[2].targets[0].tracked = abi::TrackedFlows::reset;
  input.groups[2].targets[1].next_hop = way("eth7");
  input.groups[2].targets[2].next_hop.resolved = false;
  input.listeners[0].config.groups = {{"g0", 9}, {"g2", 0}, {"g1", 1}};
  input.listeners[0].draining = true;
  input.tunnel_source_v4 = AddressPrefix{abi::IpAddress::v4(100, 64, 0, 0), 112};
  const CompiledSnapshot compiled = compile(compiler, input);
  EXPECT_EQ(compiled.tables_built, 3U);
  const auto snapshot = open(compiled);
  ASSERT_TRUE(snapshot);
  EXPECT_EQ(snapshot->generation(), (abi::Generation{1, 1}));
  EXPECT_EQ(snapshot->root().fleet_seed, 7U);
  EXPECT_EQ(snapshot->root().tunnel_source_v4.prefix_length, 112);
  EXPECT_EQ(snapshot->root().tunnel_source_v6.present, 0);

  ASSERT_EQ(snapshot->listeners().size(), 3U);
  const abi::Listener& listener = snapshot->listeners()[0];
  EXPECT_EQ(snapshot->name(listener.name), "l0");
  EXPECT_EQ(listener.draining, 1);
  EXPECT_EQ(listener.total_weight, 10U);
  EXPECT_EQ(listener.groups[1].cumulative_weight, 9U) << "weight 0";
  EXPECT_EQ(listener.groups[2].group, 1U);

  const abi::TargetGroup& group = snapshot->groups()[1];
  EXPECT_EQ(snapshot->name(group.name), "g1");
  EXPECT_EQ(group.mode, abi::ForwardingMode::l2dsr);
  EXPECT_EQ(group.stickiness, abi::Stickiness::source_ip);
  EXPECT_EQ(group.tcp_idle_timeout_s, 77U);
  EXPECT_EQ(group.fail_open, 1);
  EXPECT_EQ(group.slot_count, 1009U);

  EXPECT_EQ(snapshot->groups()[2].target_count, 3U) << "weight 0 has no slots";
  const abi::Target& drained = snapshot->targets()[8];
  EXPECT_EQ(drained.flags, abi::kTargetLive | abi::kTargetResolved | abi::kTargetNoNewFlows);
  EXPECT_EQ(drained.tracked, abi::TrackedFlows::reset);
  EXPECT_EQ(drained.state, abi::TargetState::draining);
  EXPECT_EQ(std::string_view(snapshot->ports()[snapshot->targets()[9].out_port].name), "eth7");
  EXPECT_EQ(std::string_view(snapshot->ports()[snapshot->targets()[11].out_port].name), "lb0");
  EXPECT_EQ(snapshot->targets()[10].flags, abi::kTargetLive) << "unresolved, but it keeps its slots";
  std::set<std::uint32_t> in_slots;
  for (std::uint32_t s = 0; s < 1009; ++s) {
    in_slots.insert(snapshot->group_targets()[snapshot->groups()[2].first_target + snapshot->slots(2)[s]]);
  }
  EXPECT_EQ(in_slots, (std::set<std::uint32_t>{9, 10, 11}));
}

TEST(Compile, SegmentsAreSealedAndImmutable) {
  Compiler compiler;
  const CompiledSnapshot compiled = compile(compiler, make_input(1, 2));
  for (const int fd : {compiled.root->fd(), compiled.segments.at(0)->fd()}) {
    EXPECT_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    EXPECT_EQ(mmap(nullptr, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    EXPECT_NE(ftruncate(fd, 0), 0);
  }
}

TEST(Compile, OneTargetsChangeBuildsOneTableAndOneSegment) {
  Compiler compiler;
  SnapshotInput input = make_input(100, 20, 65537);
  const CompiledSnapshot first = compile(compiler, input);
  EXPECT_EQ(first.tables_built, 100U);
  const auto before = open(first);

  input.generation.n = 2;
  input.groups[42].targets[3].weight = 5;
  const CompiledSnapshot second = compile(compiler, input);
  EXPECT_EQ(second.tables_built, 1U);
  std::set<std::uint64_t> changed;
  std::ranges::set_difference(ids(second), ids(first), std::inserter(changed, changed.end()));
  EXPECT_EQ(changed.size(), 1U);
  EXPECT_EQ(second.segments.size(), first.segments.size());
  const auto after = open(second);
  ASSERT_TRUE(before && after);
  for (std::uint32_t g = 0; g < 100; ++g) {
    const bool equal = std::equal(before->slots(g), before->slots(g) + 65537, after->slots(g));
    EXPECT_EQ(equal, g != 42) << g;
    EXPECT_EQ(before->groups()[g].table_hash == after->groups()[g].table_hash, g != 42) << g;
  }

  input.generation.n = 3;
  input.groups[42].targets[3].tracked = abi::TrackedFlows::rehash;
  input.groups[7].targets[0].next_hop.resolved = false;
  const CompiledSnapshot third = compile(compiler, input);
  EXPECT_EQ(third.tables_built, 0U) << "what is not in the table does not build it";
  EXPECT_EQ(ids(third), ids(second));
}

TEST(Compile, GroupsThatComeAndGoTouchTheirSegmentAlone) {
  Compiler compiler;
  SnapshotInput input = make_input(60, 3, 65537);
  const CompiledSnapshot first = compile(compiler, input);
  input.listeners.erase(input.listeners.begin() + 5);
  input.groups.erase(input.groups.begin() + 5);
  const CompiledSnapshot second = compile(compiler, input);
  EXPECT_EQ(second.tables_built, 0U);
  ASSERT_TRUE(open(second));
  std::set<std::uint64_t> kept;
  std::ranges::set_intersection(ids(second), ids(first), std::inserter(kept, kept.end()));
  EXPECT_EQ(kept.size(), first.segments.size() - 1);

  input.groups[9].config.table_size = 655373;
  const CompiledSnapshot third = compile(compiler, input);
  EXPECT_EQ(third.tables_built, 1U);
  const auto snapshot = open(third);
  ASSERT_TRUE(snapshot);
  EXPECT_EQ(snapshot->groups()[9].slot_count, 655373U);

  input.fleet_seed = 8;
  EXPECT_EQ(compile(compiler, input).tables_built, 59U) << "another seed is another table for all";
  input.groups.clear();
  input.listeners.clear();
  const CompiledSnapshot empty = compile(compiler, input);
  EXPECT_TRUE(empty.segments.empty());
  EXPECT_TRUE(open(empty));
}

TEST(Compile, TablesDoNotDependOnOrderIdsOrHistory) {
  Compiler compiler;
  SnapshotInput input = make_input(2, 10);
  compile(compiler, input);
  input.groups[0].targets.pop_back();
  const auto with_history = open(compile(compiler, input));

  SnapshotInput other = input;
  for (TargetInput& t : other.groups[0].targets) t.id += 1000;
  std::reverse(other.groups[0].targets.begin(), other.groups[0].targets.end());
  std::swap(other.groups[0], other.groups[1]);
  Compiler fresh;
  const auto without = open(compile(fresh, other));
  ASSERT_TRUE(with_history && without);
  EXPECT_EQ(with_history->groups()[0].table_hash, without->groups()[1].table_hash);
  EXPECT_TRUE(std::equal(with_history->slots(0), with_history->slots(0) + 1009, without->slots(1)));
}

TEST(Compile, EqualInputsGiveEqualBytes) {
  Compiler a;
  Compiler b;
  const SnapshotInput input = make_input(40, 5, 65537);
  const CompiledSnapshot first = compile(a, input);
  const CompiledSnapshot second = compile(b, input);
  EXPECT_TRUE(std::ranges::equal(first.root->bytes(), second.root->bytes()));
  ASSERT_EQ(first.segments.size(), second.segments.size());
  for (std::size_t i = 0; i < first.segments.size(); ++i) {
    EXPECT_TRUE(std::ranges::equal(first.segments[i]->bytes(), second.segments[i]->bytes()));
  }
}

// Reference: every listener looked at in turn.
const abi::Listener* find_by_hand(const Snapshot& snapshot, std::uint8_t protocol, std::uint16_t port) {
  const abi::Listener* best = nullptr;
  const auto width = [](const abi::Listener& l) { return l.last_port - l.first_port; };
  for (const abi::Listener& listener : snapshot.listeners()) {
    if (listener.protocol != protocol || port < listener.first_port || port > listener.last_port) continue;
    if (best == nullptr || width(listener) < width(*best) ||
        (width(listener) == width(*best) && best->draining > listener.draining)) {
      best = &listener;
    }
  }
  return best;
}

// As dp/lb finds it.
const abi::Listener* find_in_table(const Snapshot& snapshot, const abi::IpAddress& address, std::uint8_t protocol,
                                   std::uint16_t port) {
  const auto cell_of = [&](std::uint8_t p, std::uint16_t n, abi::VipCellKind kind) -> const abi::VipCell* {
    const std::size_t mask = snapshot.vip_table().size() - 1;
    for (std::size_t at = abi::vip_table_hash(address, p, n) & mask;; at = (at + 1) & mask) {
      const abi::VipCell& cell = snapshot.vip_table()[at];
      if (cell.kind == abi::VipCellKind::empty) return nullptr;
      if (cell.kind == kind && cell.address == address && cell.protocol == p && cell.port == n) return &cell;
    }
  };
  if (cell_of(0, 0, abi::VipCellKind::vip) == nullptr) return nullptr;
  if (const auto* exact = cell_of(protocol, port, abi::VipCellKind::exact)) return &snapshot.listeners()[exact->index];
  const auto* ranges = cell_of(protocol, 0, abi::VipCellKind::ranges);
  if (ranges == nullptr) return nullptr;
  for (const std::uint32_t index : snapshot.range_listeners().subspan(ranges->index, ranges->count)) {
    const abi::Listener& listener = snapshot.listeners()[index];
    if (port >= listener.first_port && port <= listener.last_port) return &listener;
  }
  return nullptr;
}

TEST(Compile, TheNarrowestListenerTakesAPort) {
  SnapshotInput input = make_input(1, 1);
  input.listeners.clear();
  const auto add = [&](const char* name, ListenerProtocol protocol, int first, int last, bool draining = false) {
    input.listeners.push_back(
        {{name, "web", protocol, static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(last), {{"g0", 1}}},
         draining,
         static_cast<std::uint32_t>(2 * input.listeners.size())});
  };
  add("any", ListenerProtocol::tcp_udp, 0, 65535);
  add("wide", ListenerProtocol::tcp, 1000, 2000);
  add("narrow", ListenerProtocol::tcp, 1500, 1600);
  add("old", ListenerProtocol::tcp, 1550, 1550, true);
  add("one", ListenerProtocol::tcp_udp, 1550, 1550);
  add("old-narrow", ListenerProtocol::udp, 10, 20, true);
  add("new-narrow", ListenerProtocol::udp, 10, 20);
  Compiler compiler;
  const auto snapshot = open(compile(compiler, input));
  ASSERT_TRUE(snapshot);
  EXPECT_EQ(snapshot->listeners().size(), 9U) << "TCP_UDP makes two";
  EXPECT_EQ(snapshot->listeners()[1].counter_index, 1U);
  for (const abi::Protocol protocol : {abi::Protocol::tcp, abi::Protocol::udp}) {
    const auto number = static_cast<std::uint8_t>(protocol);
    for (std::uint32_t port = 0; port < 65536; ++port) {
      const auto* found = find_in_table(*snapshot, input.vips[0].address, number, static_cast<std::uint16_t>(port));
      ASSERT_EQ(found, find_by_hand(*snapshot, number, static_cast<std::uint16_t>(port))) << int{number} << " " << port;
    }
  }
  EXPECT_EQ(find_in_table(*snapshot, abi::IpAddress::v4(192, 0, 2, 11), 6, 80), nullptr);
}

// Which VIP and which of its listeners take a packet, from the configuration alone: the longest prefix that holds the
// address decides, then the narrowest port range.
std::string taker(const SnapshotInput& input, const net::FlowKey& key) {
  const Vip* best = nullptr;
  for (const Vip& vip : input.vips) {
    if (!contains(vip.prefix(), key.destination)) continue;
    if (best == nullptr || vip.prefix_length > best->prefix_length) best = &vip;
  }
  if (best == nullptr) return "no VIP";
  const Listener* narrowest = nullptr;
  for (const ListenerInput& listener : input.listeners) {
    const Listener& config = listener.config;
    const auto other = key.protocol == 6 ? ListenerProtocol::udp : ListenerProtocol::tcp;
    if (config.vip != best->name || config.protocol == other) continue;
    if (key.destination_port < config.first_port || key.destination_port > config.last_port) continue;
    const auto width = [](const Listener& of) { return of.last_port - of.first_port; };
    if (narrowest == nullptr || width(config) < width(*narrowest)) narrowest = &config;
  }
  return narrowest == nullptr ? "no listener" : narrowest->name;
}

TEST(Compile, TheMostSpecificVipAndListenerTakeAPacket) {
  std::mt19937_64 random(5);
  const auto pick = [&](std::uint64_t range) { return random() % range; };
  std::map<std::string, int> seen;
  for (int round = 0; round < 300; ++round) {
    Compiler compiler;
    SnapshotInput input = make_input(1, 1, 7);
    input.listeners.clear();
    input.vips.clear();
    const bool v6 = round % 2 == 1;
    // Addresses that differ in their last 6 bits, prefixes that nest and share their first address.
    const auto address = [&](std::uint64_t last) {
      abi::IpAddress result = v6 ? *parse_address("2001:db8::") : abi::IpAddress::v4(192, 0, 2, 0);
      result.bytes[15] = static_cast<std::uint8_t>(last);
      return result;
    };
    std::set<AddressPrefix> prefixes;
    for (int i = 0; i < 6; ++i) {
      const auto length = static_cast<std::uint8_t>(pick(3) == 0 ? 128 : 122 + pick(6));
      prefixes.insert({abi::masked(address(pick(64)), length), length});
    }
    for (const AddressPrefix& prefix : prefixes) {
      const std::string name = "v" + std::to_string(input.vips.size());
      input.vips.push_back({name, prefix.address, prefix.length});
      std::set<std::pair<std::uint16_t, std::uint16_t>> ranges;
      for (std::uint64_t i = pick(4); i > 0; --i) {
        const auto first = static_cast<std::uint16_t>(pick(8));
        ranges.emplace(first, static_cast<std::uint16_t>(pick(4) == 0 ? 65535 : pick(2) == 0 ? first : first + pick(8)));
      }
      std::set<std::size_t> widths;  // of equal widths either may take a packet of both
      for (const auto& [first, last] : ranges) {
        if (!widths.insert(last - first).second) continue;
        input.listeners.push_back({{name + "-" + std::to_string(first) + "-" + std::to_string(last),
                                    name,
                                    static_cast<ListenerProtocol>(pick(3)),
                                    first,
                                    last,
                                    {{"g0", 1}}},
                                   false,
                                   static_cast<std::uint32_t>(2 * input.listeners.size())});
      }
    }
    const auto snapshot = open(compile(compiler, input));
    ASSERT_TRUE(snapshot);
    const VipTable table = vip_table_of(*snapshot);
    for (int i = 0; i < 200; ++i) {
      net::FlowKey key;
      key.destination = address(pick(80));
      key.destination_port = static_cast<std::uint16_t>(pick(16));
      key.protocol = pick(2) == 0 ? 6 : 17;
      key.is_v6 = v6 ? 1 : 0;
      const std::uint32_t found = find_listener(*snapshot, table, key, vip_hash(key));
      const std::string name = found == kNotVip       ? "no VIP"
                               : found == kNoListener ? "no listener"
                                                      : std::string(snapshot->name(snapshot->listeners()[found].name));
      ASSERT_EQ(name, taker(input, key)) << format_address_port(key.destination, key.destination_port);
      ASSERT_EQ(is_vip(table, key.destination), name != "no VIP");
      ++seen[found == kNotVip || found == kNoListener ? name : "listener"];
    }
  }
  for (const char* kind : {"no VIP", "no listener", "listener"}) EXPECT_GT(seen[kind], 2000) << kind;
}

TEST(Compile, GatewayListenersAndRoutesReachTheDataPlane) {
  SnapshotInput input = make_input(1, 2);
  input.groups[0].config.mode = abi::ForwardingMode::geneve;
  input.groups[0].config.geneve_vpce_id = 5;
  input.listeners[0].config = {"all", "web", ListenerProtocol::geneve, 0, 65535, {{"g0", 1}}};
  input.listeners.push_back({{"inside", "", ListenerProtocol::geneve, 0, 65535, {{"g0", 1}}, "", "eth7"}, false, 3});
  const auto prefix = [](std::string_view text) { return parse_prefix(text).value(); };
  NextHop other = way();
  other.mac[5] = 9;
  input.routes = {{prefix("::/0"), {}, false},
                  {{abi::IpAddress::v4(0, 0, 0, 0), 96}, way(), false},
                  {prefix("10.1.0.0/16"), other, false},
                  {prefix("10.1.2.3"), {}, true},
                  {prefix("fd00::/64"), way(), false}};
  Compiler compiler;
  const auto snapshot = open(compile(compiler, input));
  ASSERT_NE(snapshot, nullptr);
  EXPECT_EQ(snapshot->gateway_listeners().size(), 2U);
  EXPECT_EQ(gateway_listener_to(*snapshot, abi::IpAddress::v4(192, 0, 2, 10)), 0U);
  EXPECT_EQ(snapshot->gateways()[0].vpce_id, 5U);
  const auto inside = std::ranges::find_if(snapshot->ports(), [](const auto& port) { return port.gateway == 1; });
  ASSERT_NE(inside, snapshot->ports().end());
  EXPECT_STREQ(inside->name, "eth7");

  const auto mac_to = [&](std::string_view address) {
    return find_route(*snapshot, parse_address(address).value())->mac[5];
  };
  EXPECT_EQ(mac_to("8.8.8.8"), way().mac[5]);
  EXPECT_EQ(mac_to("10.1.9.9"), 9);
  EXPECT_EQ(mac_to("fd00::5"), way().mac[5]);
  EXPECT_EQ(find_route(*snapshot, parse_address("10.1.2.3").value())->flags, abi::kRouteLocal);
  EXPECT_EQ(find_route(*snapshot, parse_address("2001::1").value())->flags, abi::kRouteUnresolved);
  input.routes.erase(input.routes.begin() + 1);
  const auto without = open(compile(compiler, input));
  EXPECT_EQ(find_route(*without, parse_address("8.8.8.8").value()), nullptr);  // ::/0 is no route for IPv4
}

TEST(Compile, RefusesByObjectAndLimit) {
  const auto refusal = [](const auto& change) {
    SnapshotInput input = make_input(2, 2);
    change(input);
    Compiler compiler;
    const auto compiled = compiler.compile(input);
    return compiled ? std::string("accepted") : compiled.error();
  };
  EXPECT_EQ(refusal([](SnapshotInput& i) { i.groups[1].targets[0].id = 0; }), "target g1 10.0.0.2:80: id 0 is given twice");
  EXPECT_EQ(refusal([](SnapshotInput& i) { i.groups[1].targets[0].id = 1U << 20; }),
            "1048577 target ids, at most 1048576 fit into a snapshot");
  EXPECT_EQ(refusal([](SnapshotInput& i) { i.groups[1].targets[0].weight = 65536; }),
            "target g1 10.0.0.2:80: weight 65536 is above 65535");
  EXPECT_EQ(refusal([](SnapshotInput& i) { i.groups[1].config.name = "g0"; }),
            "target group g0 stands in the snapshot twice");
  EXPECT_EQ(refusal([](SnapshotInput& i) { i.listeners[0].config.vip = "nix"; }), "listener l0: there is no VIP nix");
  EXPECT_EQ(refusal([](SnapshotInput& i) { i.listeners[0].config.groups[0].name = "nix"; }),
            "listener l0: there is no target group nix");
  EXPECT_EQ(refusal([](SnapshotInput& i) { i.listeners[0].counter_index = 65536; }),
            "listener l0: counter index 65536 is not below 65536");
  EXPECT_EQ(refusal([](SnapshotInput& i) { i.groups[0].targets[0].next_hop.interface = "sixteen-bytes-xx"; }),
            "interface sixteen-bytes-xx: name is longer than 15 bytes");
  EXPECT_EQ(refusal([](SnapshotInput& i) {
              i.groups[0].targets.clear();
              for (std::uint32_t t = 0; t < 40; ++t) {
                i.groups[0].targets.push_back(target("g0", 100 + t));
                i.groups[0].targets.back().next_hop.interface = "eth" + std::to_string(t);
              }
            }),
            "41 interfaces, at most 32 fit into a snapshot");
}

}  // namespace
}  // namespace lb::cp
