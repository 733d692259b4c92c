#include "tests/bench/guard_rig.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <stdexcept>

#include "cp/snapshot/compile.h"

namespace lb::bench {
namespace {

constexpr std::uint32_t kPrefixes = 100'000;
constexpr std::uint64_t kMostPerSecond = 1'000'000'000;

cp::NextHop next_hop() {
  cp::NextHop hop;
  hop.resolved = true;
  hop.interface = "lb0";
  hop.mac = {2, 0, 0, 0, 0, 1};
  hop.source_mac = {2, 0, 0, 0, 0, 2};
  return hop;
}

cp::GroupInput targets() {
  cp::GroupInput group;
  group.config.name = "blue";
  group.config.mode = abi::ForwardingMode::ipip;
  group.config.table_size = kSlots;
  group.config.tcp_idle_timeout = std::chrono::seconds(6000);  // rows do not outlive their flows
  for (std::uint32_t id = 0; id < kTargets; ++id) {
    cp::TargetInput target;
    target.key = {"blue", abi::IpAddress::v4(10, 0, static_cast<std::uint8_t>(id >> 8), static_cast<std::uint8_t>(id)), 80};
    target.id = id;
    target.weight = 1;
    target.state = abi::TargetState::healthy;
    target.next_hop = next_hop();
    group.targets.push_back(std::move(target));
  }
  return group;
}

// Prefixes of /20 to /32 among the sources of flow_key(), each once.
cp::SecurityGroup many_prefixes() {
  cp::SecurityGroup group{"many", true, {}};
  std::mt19937 random(1);
  std::set<std::pair<std::uint32_t, std::uint32_t>> seen;
  while (seen.size() < kPrefixes) {
    const std::uint32_t length = static_cast<std::uint32_t>(20 + random() % 13);
    const std::uint32_t address = static_cast<std::uint32_t>(0x0b000000U | (random() & 0xffffffU)) & ~0U << (32 - length);
    if (!seen.emplace(address, length).second) continue;
    cp::SecurityRule rule{.allow = true};
    rule.source = {abi::IpAddress::v4(static_cast<std::uint8_t>(address >> 24), static_cast<std::uint8_t>(address >> 16),
                                      static_cast<std::uint8_t>(address >> 8), static_cast<std::uint8_t>(address)),
                   static_cast<std::uint8_t>(96 + length)};
    group.rules.push_back(rule);
  }
  return group;
}

cp::SnapshotInput input_of(Guard guard) {
  const net::FlowKey key = flow_key(0, 1);
  cp::SnapshotInput input;
  input.generation = {1, 1};
  input.vips = {{"web", key.destination}};
  input.tunnel_source_v4 = cp::AddressPrefix{abi::IpAddress::v4(10, 1, 0, 1), 128};
  cp::Listener listener{"web-80",     "web", cp::ListenerProtocol::tcp, key.destination_port, key.destination_port,
                        {{"blue", 1}}};
  const cp::RateSet most{kMostPerSecond, kMostPerSecond, 100 * kMostPerSecond, kMostPerSecond};
  if (guard == Guard::security) {
    listener.security_group = "many";
    input.security_groups.push_back(many_prefixes());
  }
  if (guard >= Guard::few_sources) listener.rate_limits.per_listener = most;
  if (guard == Guard::few_sources || guard == Guard::every_source) listener.rate_limits.per_source = most;
  if (guard != Guard::every_source) listener.rate_limits.prefix_v4 = 20;
  input.listeners.push_back({std::move(listener), false, 0});
  input.groups.push_back(targets());
  return input;
}

std::shared_ptr<const Snapshot> snapshot_of(const cp::SnapshotInput& input) {
  cp::Compiler compiler;
  const auto compiled = compiler.compile(input);
  if (!compiled) throw std::runtime_error(compiled.error());
  std::map<std::uint64_t, SegmentBytes> segments;
  for (const auto& memory : compiled->segments) segments[memory->id()] = SegmentBytes{memory->bytes(), memory};
  auto snapshot = Snapshot::open(SegmentBytes{compiled->root->bytes(), compiled->root}, [&](std::uint64_t id) {
    const auto found = segments.find(id);
    return found == segments.end() ? nullptr : &found->second;
  });
  if (!snapshot) throw std::runtime_error(snapshot.error().text);
  return *snapshot;
}

std::string refusals(const abi::WorkerStats& stats) {
  std::string text;
  for (std::size_t c = 0; c < abi::kCounterCount; ++c) {
    if (stats.counters[c] != 0) text += fmt::format(", {} {}", abi::kCounters[c].name, stats.counters[c]);
  }
  return text;
}

}  // namespace

GuardRig::GuardRig(const Kernel& kernel, Guard guard, std::uint64_t flows)
    : flows_(flows),
      next_flow_(flows),
      memory_(FlowTable::lines_for(2 * flows) * sizeof(abi::FlowLine)),
      lines_(memory_.lines(2 * flows)),
      target_flows_(kTargets),
      table_(std::make_unique<FlowTable>(lines_, target_flows_, kSecret)),
      listener_stats_(1),
      snapshot_(snapshot_of(input_of(guard))),
      pipeline_(std::make_unique<Pipeline>(
          PipelineOptions{.flows = table_.get(), .stats = &stats_, .listener_stats = listener_stats_.data()}, kernel)) {
  PacketPool pool;
  Burst burst;
  burst.count = 0;
  process(burst);  // rules are new now, and the flows below have been asked after that
  now_ns_ += 1'000'000'000;
  std::uint64_t flows_sent = 0;
  for (std::uint64_t first = 0; first < flows; first += PacketPool::kBuffers) {
    pool.prepare(1, [&](std::uint32_t i) {
      return std::pair<std::uint64_t, std::uint8_t>{std::min(first + i, flows - 1), net::kTcpAck};
    });
    for (std::uint32_t b = 0; b < PacketPool::kBuffers / kBurst; ++b) {
      pool.fill(burst, b, kBurst);
      process(burst);
      flows_sent += kBurst;
    }
  }
  if (stats_.counters[static_cast<std::size_t>(abi::Counter::forwarded_packets)] != flows_sent)
    throw std::runtime_error("the guards refuse what they are to let pass" + refusals(stats_));
}

void GuardRig::process_new(Burst& burst) {
  const double lifetime_ns = static_cast<double>(kFreshTimeoutTicks) * static_cast<double>(kTickNs);
  now_ns_ += static_cast<std::uint64_t>(lifetime_ns * burst.count / static_cast<double>(flows_));
  process(burst);
  // Around thrice in a lifetime.
  pipeline_->age(*snapshot_, static_cast<std::uint32_t>(lines_.size() * 3 * burst.count / flows_) + 1, now_ns_);
}

void GuardRig::prepare_hits(PacketPool& pool, std::mt19937_64& random) const {
  pool.prepare(1, [&](std::uint32_t) { return std::pair<std::uint64_t, std::uint8_t>{random() % flows_, net::kTcpAck}; });
}

void GuardRig::prepare_new(PacketPool& pool) {
  pool.prepare(1, [&](std::uint32_t) { return std::pair<std::uint64_t, std::uint8_t>{next_flow_++, net::kTcpSyn}; });
}

}  // namespace lb::bench
