#include "tests/fuzz/fleet.h"

#include <string>

#include "cp/config/load.h"
#include "dp/net/parse.h"
#include "replay/world.h"

namespace lb::fuzz {
namespace {

constexpr std::uint32_t kLines = 6;  // a table so small that flows evict each other
constexpr std::uint32_t kTranslations = 24;
constexpr std::uint32_t kTargets = 64;
constexpr std::uint32_t kListeners = 64;
constexpr std::uint32_t kHeadroom = 128;

constexpr const char* kConfig = R"(
version: 1
seed: 1
vips:
  - {name: four, address: 192.0.2.10}
  - {name: six, address: "2001:db8::10"}
  - {name: net, address: 203.0.113.0/24}
listeners:
  - {name: ipip-80, vip: four, protocol: TCP, port: 80, target_groups: [{name: ipip}]}
  - {name: gue-81, vip: four, protocol: TCP_UDP, port: 81, target_groups: [{name: gue}]}
  - {name: gre-82, vip: four, protocol: TCP_UDP, port: 82, target_groups: [{name: gre}]}
  - {name: nat-83, vip: four, protocol: TCP_UDP, port: 83, target_groups: [{name: nat}]}
  - {name: fullnat-84, vip: four, protocol: TCP, port: 84, target_groups: [{name: proxied}]}
  - {name: fullnat-85, vip: four, protocol: TCP_UDP, port: 85, target_groups: [{name: across}]}
  - {name: fullnat-86, vip: four, protocol: TCP, port: 86, target_groups: [{name: optioned}]}
  - {name: ipip6-80, vip: six, protocol: TCP, port: 80, target_groups: [{name: ipip}]}
  - {name: gue6-81, vip: six, protocol: TCP_UDP, port: 81, target_groups: [{name: gue}]}
  - {name: nat6-83, vip: six, protocol: TCP_UDP, port: 83, target_groups: [{name: nat6}]}
  - {name: fullnat6-84, vip: six, protocol: TCP, port: 84, target_groups: [{name: proxied}]}
  - {name: fullnat6-85, vip: six, protocol: TCP_UDP, port: 85, target_groups: [{name: across}]}
  - {name: dsr-87, vip: four, protocol: TCP_UDP, port: 87, target_groups: [{name: dsr}]}
  - {name: through, vip: net, protocol: GENEVE, target_groups: [{name: appliances}]}
target_groups:
  - {name: ipip, protocol: TCP, port: 80, forwarding_mode: ipip, table_size: 31, health_check: {protocol: NONE},
     attributes: {deregistration_delay.timeout_seconds: 30, deregistration_delay.connection_termination.enabled: true},
     targets: [{address: 10.0.0.1}, {address: 10.0.0.2}, {address: "fd00::1"}]}
  - {name: gue, protocol: TCP_UDP, port: 81, forwarding_mode: gue, table_size: 31, health_check: {protocol: NONE},
     targets: [{address: 10.0.0.1}, {address: "fd00::1"}]}
  - {name: gre, protocol: TCP_UDP, port: 82, forwarding_mode: gre, table_size: 31, health_check: {protocol: NONE},
     targets: [{address: 10.0.0.1}, {address: "fd00::1"}]}
  - {name: dsr, protocol: TCP_UDP, port: 87, forwarding_mode: l2dsr, table_size: 31, health_check: {protocol: NONE},
     targets: [{address: 10.0.0.1}, {address: 10.0.0.2}]}
  - {name: nat, protocol: TCP_UDP, port: 8083, forwarding_mode: nat, table_size: 31, health_check: {protocol: NONE},
     targets: [{address: 10.0.0.1}, {address: 10.0.0.2}]}
  - {name: nat6, protocol: TCP_UDP, port: 8083, forwarding_mode: nat, table_size: 31, health_check: {protocol: NONE},
     targets: [{address: "fd00::1"}, {address: "fd00::2"}]}
  - {name: proxied, protocol: TCP, port: 8084, forwarding_mode: fullnat, table_size: 31, health_check: {protocol: NONE},
     attributes: {snat.addresses: "10.0.9.1,fd00:9::1", proxy_protocol_v2.enabled: true}, targets: [{address: 10.0.0.1}, {address: "fd00::1"}]}
  - {name: optioned, protocol: TCP, port: 8086, forwarding_mode: fullnat, table_size: 31, health_check: {protocol: NONE},
     attributes: {snat.addresses: "10.0.9.1", client_address_option.enabled: true}, targets: [{address: 10.0.0.1}]}
  - {name: across, protocol: TCP_UDP, port: 8085, forwarding_mode: fullnat, table_size: 31, health_check: {protocol: NONE},
     attributes: {snat.addresses: "10.0.9.1,fd00:9::1"}, targets: [{address: 10.0.0.1}, {address: "fd00::1"}]}
  - {name: appliances, protocol: GENEVE, table_size: 31, health_check: {protocol: TCP, port: 80},
     attributes: {geneve: {vpce_id: 4711, attachment_id: 1}}, targets: [{address: 10.0.0.21}, {address: 10.0.0.22}]}
)";

void without(std::string& text, const std::string& part) {
  const std::size_t at = text.find(part);
  require(at != std::string::npos, "the configuration has what is to go");
  text.erase(at, part.size());
}

cp::Config configuration(const std::string& text) {
  cp::LoadResult result = cp::load(text, "fleet.yaml");
  if (!result.config) {
    for (const cp::Violation& violation : result.violations)
      std::fprintf(stderr, "%u: %s: %s\n", violation.line, violation.field.c_str(), violation.text.c_str());
  }
  require(result.config.has_value(), "the configuration is in order");
  return *result.config;
}

std::vector<std::shared_ptr<const Snapshot>> make_snapshots() {
  constexpr std::uint64_t kSecond = 1'000'000'000;
  const replay::TargetAddress drained{abi::IpAddress::v4(10, 0, 0, 1), 80};
  const replay::TargetAddress ill{abi::IpAddress::v4(10, 0, 0, 2), 80};
  replay::World world(1500, {}, [](std::uint32_t) { return std::optional<std::uint64_t>(1); });
  std::vector<std::shared_ptr<const Snapshot>> made;
  std::uint64_t at_ns = 0;
  const auto settle = [&](bool done) {
    require(done && world.settle(at_ns).has_value(), "the rules take it");
    made.push_back(world.snapshot());
    at_ns += kSecond;
  };
  settle(world.apply(configuration(kConfig), at_ns).has_value());
  settle(world.drain(drained, true, at_ns).has_value());
  at_ns += 60 * kSecond;  // its delay is over: its flows are to be reset
  settle(true);
  world.set_healthy(ill, false, at_ns);
  settle(true);
  std::string less = kConfig;
  without(less, "  - {name: dsr-87, vip: four, protocol: TCP_UDP, port: 87, target_groups: [{name: dsr}]}\n");
  without(less, ", {address: \"fd00::2\"}");
  settle(world.apply(configuration(less), at_ns).has_value());
  settle(world.apply(configuration(kConfig), at_ns).has_value());
  return made;
}

std::vector<std::span<abi::Translation>> spans(std::vector<std::vector<abi::Translation>>& all) {
  return {all.begin(), all.end()};
}

}  // namespace

std::span<const std::shared_ptr<const Snapshot>> snapshots() {
  static const auto made = make_snapshots();
  return made;
}

Fleet::One::One(Fleet& owner, std::uint32_t index)
    : lines(kLines),
      target_flows(kTargets),
      target_troubles(kTargets),
      listener_stats(kListeners),
      flows(lines, target_flows, NodeSecret{7}),
      fleet(owner) {
  owner.tables_[index] = lines;
  owner.target_flows_[index] = target_flows.data();
  pipeline = std::make_unique<Pipeline>(PipelineOptions{.flows = &flows,
                                                        .stats = &stats,
                                                        .listener_stats = listener_stats.data(),
                                                        .target_flows = owner.target_flows_,
                                                        .target_troubles = target_troubles,
                                                        .extra = this,
                                                        .tables = owner.tables_,
                                                        .worker = index,
                                                        .notes = owner.notes_,
                                                        .snat = &owner.snat_});
}

bool Fleet::One::send(std::uint8_t, const std::uint8_t* frame, std::uint32_t length) {
  fleet.last_sent_.assign(frame, frame + length);
  return true;
}

Fleet::Fleet()
    : translations_(kWorkers, std::vector<abi::Translation>(kTranslations)),
      snat_(spans(translations_)),
      notes_(kWorkers),
      tables_(kWorkers),
      target_flows_(kWorkers),
      snapshot_(snapshots().front()) {
  for (const auto& snapshot : snapshots()) {
    require(snat_.learn(snapshot->snat_addresses()), "the SNAT addresses are few");
    require(snapshot->targets().size() <= kTargets && snapshot->listeners().size() <= kListeners,
            "and so are targets and listeners");
  }
  for (std::uint32_t index = 0; index < kWorkers; ++index) workers_.push_back(std::make_unique<One>(*this, index));
  for (const auto& worker : workers_) peers_.push_back(&worker->flows);
  for (const auto& worker : workers_) worker->pipeline->set_peers(peers_);
}

void Fleet::packet(std::uint32_t worker, std::span<const std::uint8_t> frame) {
  One& one = *workers_[worker % kWorkers];
  const Block block(frame, kHeadroom);
  Burst burst;
  burst.count = 1;
  burst.data[0] = block.data;
  burst.length[0] = static_cast<std::uint32_t>(frame.size());
  burst.headroom[0] = kHeadroom;
  burst.tailroom[0] = 0;
  one.pipeline->process(*snapshot_, burst, now_ns_);
  const bool leaves = burst.verdict[0] == Verdict::tx || burst.verdict[0] == Verdict::answer;
  require((burst.reason[0] == abi::DropReason::none) ==
              (burst.verdict[0] != Verdict::drop && burst.verdict[0] != Verdict::answer),
          "what is dropped has a reason, and nothing else has");
  if (!leaves) return;
  require(burst.data[0] >= block.bytes.get() && burst.data[0] + burst.length[0] <= block.data + frame.size(),
          "a frame leaves in its buffer");
  net::ParsedPacket sent;
  require(net::parse(burst.data[0], burst.length[0], false, sent).result != net::ParseResult::drop, "what leaves is whole");
  last_sent_.assign(burst.data[0], burst.data[0] + burst.length[0]);
}

void Fleet::age() {
  for (const auto& worker : workers_) {
    worker->pipeline->age(*snapshot_, kLines, now_ns_);
    worker->pipeline->tend(*snapshot_, now_ns_);
  }
}

void Fleet::check() const {
  for (const auto& worker : workers_) {
    const auto counter = [&](std::size_t index) { return worker->stats.counters[index]; };
    std::uint64_t ends = counter(static_cast<std::size_t>(abi::Counter::forwarded_packets)) +
                         counter(static_cast<std::size_t>(abi::Counter::punted_packets)) + worker->stats.in_flight;
    for (std::size_t index = abi::kFirstDropCounter; index < abi::kCounterCount; ++index) ends += counter(index);
    require(counter(static_cast<std::size_t>(abi::Counter::rx_packets)) == ends, "every packet ends once");
    std::uint64_t flows = 0;
    for (const std::uint32_t count : worker->target_flows) flows += count;
    require(flows == worker->flows.flows(), "every entry is one target's");
  }
  for (std::uint32_t worker = 0; worker < kWorkers; ++worker) {
    std::uint64_t used = 0;
    for (const abi::Translation& flow : translations_[worker]) used += flow.state != abi::TranslationState::free ? 1 : 0;
    require(used == const_cast<SnatBook&>(snat_).of(worker).used(), "translations add up");
  }
}

void Fleet::check_nothing_held() const {
  for (const auto& worker : workers_) require(worker->stats.in_flight == 0, "nothing is held for longer than it may be");
}

}  // namespace lb::fuzz
