#include "replay/world.h"

#include <algorithm>
#include <array>
#include <vector>

namespace lb::replay {
namespace {

constexpr std::uint64_t kNsPerMs = 1'000'000;

// Moments of the rules count from here, so that none of them is 0.
constexpr std::int64_t kOriginMs = 3'600'000;

std::int64_t to_ms(std::uint64_t at_ns) {
  return kOriginMs + static_cast<std::int64_t>(at_ns / kNsPerMs);
}

std::uint64_t to_ns(std::int64_t at_ms) {
  return static_cast<std::uint64_t>(at_ms - kOriginMs) * kNsPerMs;
}

}  // namespace

abi::MacAddress next_hop_mac(const abi::IpAddress& address) {
  const std::uint8_t family = address.is_v4() ? 0x04 : 0x06;
  return {0x02, family, address.bytes[12], address.bytes[13], address.bytes[14], address.bytes[15]};
}

World::World(std::uint32_t mtu_bytes, std::set<TargetAddress> unhealthy, cp::Roster::FlowsOf flows_of)
    : mtu_bytes_(mtu_bytes), unhealthy_(std::move(unhealthy)), flows_of_(std::move(flows_of)) {}

tl::expected<void, std::string> World::apply(const cp::Config& config, std::uint64_t at_ns) {
  cp::Config complete = config;
  if (!complete.tunnel_source_v4) complete.tunnel_source_v4 = cp::AddressPrefix{kTunnelSourceV4, 128};
  if (!complete.tunnel_source_v6) complete.tunnel_source_v6 = cp::AddressPrefix{kTunnelSourceV6, 128};
  if (auto applied = roster_.apply(complete, to_ms(at_ns)); !applied) return applied;
  set_paths(complete);
  for (const cp::TargetGroup& group : complete.groups) {
    for (const cp::Target& target : group.targets) {
      const cp::TargetKey key{group.name, target.address, target.port};
      const cp::TargetRecord* record = roster_.find(key);
      if (record != nullptr && record->health == cp::Health::initial) {
        judge(key, !unhealthy_.contains({target.address, target.port}), at_ns);
      }
    }
  }
  return {};
}

void World::set_paths(const cp::Config& config) {
  std::vector<cp::Route> routes;
  if (roster_.wants_routes()) {
    for (const abi::IpAddress& any : {abi::IpAddress{}, abi::IpAddress::v4(0, 0, 0, 0)}) {
      const cp::NextHop way{
          .resolved = true, .interface = "replay", .mac = next_hop_mac(any), .source_mac = kOwnMac, .mtu_bytes = mtu_bytes_};
      routes.push_back({{any, static_cast<std::uint8_t>(any.is_v4() ? 96 : 0)}, way, false});
    }
  }
  roster_.set_routes(std::move(routes));
  for (const abi::IpAddress& address : roster_.addresses()) {
    cp::NextHop way{.resolved = true,
                    .interface = "replay",
                    .mac = next_hop_mac(address),
                    .source_mac = kOwnMac,
                    .source = address.is_v4() ? kTunnelSourceV4 : kTunnelSourceV6,
                    .mtu_bytes = mtu_bytes_};
    const auto neighbour = std::find_if(config.static_neighbours.begin(), config.static_neighbours.end(),
                                        [&](const cp::StaticNeighbour& n) { return n.address == address; });
    if (neighbour != config.static_neighbours.end()) way.mac = neighbour->mac;
    roster_.set_path(address, way, false);
  }
}

tl::expected<void, std::string> World::drain(const TargetAddress& target, bool drain, std::uint64_t at_ns) {
  auto drained = roster_.drain(target.first, target.second, std::nullopt, drain, to_ms(at_ns));
  if (!drained) return tl::unexpected(std::move(drained.error()));
  return {};
}

void World::set_healthy(const TargetAddress& target, bool healthy, std::uint64_t at_ns) {
  if (healthy) {
    unhealthy_.erase(target);
  } else {
    unhealthy_.insert(target);
  }
  std::vector<cp::TargetKey> keys;
  for (const auto& [name, group] : roster_.groups()) {
    for (const auto& [key, record] : group.targets) {
      if (key.address == target.first && key.port == target.second) keys.push_back(key);
    }
  }
  for (const cp::TargetKey& key : keys) judge(key, healthy, at_ns);
}

void World::judge(const cp::TargetKey& key, bool healthy, std::uint64_t at_ns) {
  roster_.set_health(key, healthy ? cp::Health::healthy : cp::Health::unhealthy,
                     healthy ? cp::StateReason::none : cp::StateReason::failed_health_checks, "", to_ms(at_ns));
}

tl::expected<void, std::string> World::settle(std::uint64_t at_ns) {
  const bool changed = roster_.settle(to_ms(at_ns), flows_of_);
  roster_.take_events();  // lb-cp shows them; here the packets do
  tl::expected<void, std::string> published;
  if (changed || !snapshot_) published = publish();
  deadline_ns_.reset();
  if (const auto deadline_ms = roster_.next_deadline(to_ms(at_ns))) deadline_ns_ = to_ns(*deadline_ms);
  return published;
}

tl::expected<void, std::string> World::publish() {
  const abi::Generation generation{1, ++generation_};
  auto compiled = compiler_.compile(roster_.snapshot(generation));
  if (!compiled) return tl::unexpected(std::move(compiled.error()));
  std::map<std::uint64_t, SegmentBytes> segments;
  for (const auto& segment : compiled->segments) {
    const auto known = segments_.find(segment->id());
    segments[segment->id()] = known != segments_.end() ? known->second : SegmentBytes{segment->bytes(), segment};
  }
  segments_ = std::move(segments);
  auto opened = Snapshot::open({compiled->root->bytes(), compiled->root}, [&](std::uint64_t id) -> SegmentBytes* {
    const auto found = segments_.find(id);
    return found == segments_.end() ? nullptr : &found->second;
  });
  if (!opened) {
    return tl::unexpected("snapshot refused: " + std::string(abi::to_string(opened.error().refusal)) + ": " +
                          opened.error().text);
  }
  snapshot_ = *std::move(opened);
  roster_.activated(generation);
  return {};
}

}  // namespace lb::replay
