#include "cp/snapshot/compile.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "cp/snapshot/group_part.h"
#include "cp/snapshot/quic_tables.h"
#include "cp/snapshot/rates.h"
#include "cp/snapshot/security_store.h"
#include "cp/snapshot/segment_bytes.h"
#include "cp/snapshot/table_store.h"
#include "cp/snapshot/vip_cells.h"

namespace lb::cp {
namespace {

using Error = std::string;
using GroupParts = std::unordered_map<std::string, std::shared_ptr<const GroupPart>>;

// One snapshot's tables on their way into the root.
class Assembly {
 public:
  // `parts`: of the generation before, by target group; those of this one afterwards.
  Assembly(const SnapshotInput& input, GroupParts& parts) : input_(input), parts_(parts) {}

  tl::expected<void, Error> collect() {
    if (auto ok = vips(); !ok) return ok;
    if (auto ok = make_parts(); !ok) return ok;
    if (auto ok = ports(); !ok) return ok;
    if (auto ok = groups(); !ok) return ok;
    return listeners();
  }

  std::vector<std::shared_ptr<const TableRecipe>> take_recipes() { return std::move(recipes_); }

  // `security`: the segment of security groups, nullptr where there is none.
  std::vector<std::byte> root(const TableStore::Result& tables, const SegmentMemory* security) {
    for (std::size_t i = 0; i < tables.places.size(); ++i) {
      abi::TargetGroup& group = groups_[group_of_recipe_[i]];
      group.segment = tables.places[i].segment;
      group.slots_offset = tables.places[i].offset;
      group.table_hash = tables.places[i].hash;
    }
    std::vector<abi::SegmentEntry> segments;
    for (const auto& memory : tables.segments) {
      const auto& header = *reinterpret_cast<const abi::SegmentHeader*>(memory->bytes().data());
      segments.push_back({memory->id(), memory->bytes().size(), header.checksum, 0});
    }
    if (security != nullptr) {
      const auto& header = *reinterpret_cast<const abi::SegmentHeader*>(security->bytes().data());
      segments.push_back({security->id(), security->bytes().size(), header.checksum, 0});
    }
    const VipCells cells = make_vip_cells(vips_, listeners_);
    const RouteCells routes = make_route_cells(input_.routes, port_index_);
    const VipCells returns = make_return_cells(listeners_, groups_, targets_);

    RootBytes bytes(sizeof(abi::Target) * targets_.size() + sizeof(abi::Listener) * listeners_.size() + (1U << 20));
    auto root = abi::Root();  // value-initialized, padding too
    root.generation = input_.generation;
    root.fleet_seed = input_.fleet_seed;
    root.segments = bytes.add(std::span<const abi::SegmentEntry>(segments));
    root.vip_table = bytes.add(std::span<const abi::VipCell>(cells.table));
    root.vips = bytes.add(std::span<const abi::Vip>(vips_));
    root.range_listeners = bytes.add(std::span<const std::uint32_t>(cells.range_listeners));
    root.listeners = bytes.add(std::span<const abi::Listener>(listeners_));
    root.groups = bytes.add(std::span<const abi::TargetGroup>(groups_));
    root.group_targets = bytes.add(std::span<const std::uint32_t>(group_targets_));
    root.targets = bytes.add(std::span<const abi::Target>(targets_));
    root.ports = bytes.add(std::span<const abi::Port>(ports_));
    root.return_table = bytes.add(std::span<const abi::VipCell>(returns.table));
    root.return_listeners = bytes.add(std::span<const std::uint32_t>(returns.range_listeners));
    root.snat_addresses = bytes.add(std::span<const abi::IpAddress>(snat_addresses_));
    root.route_table = bytes.add(std::span<const abi::VipCell>(routes.table));
    root.route_next_hops = bytes.add(std::span<const abi::RouteNextHop>(routes.next_hops));
    root.gateways = bytes.add(std::span<const abi::Gateway>(gateways_));
    root.quic_maps = bytes.add(std::span<const abi::QuicMap>(quic_.maps()));
    root.quic_configs = bytes.add(std::span<const abi::QuicConfig>(quic_.configs()));
    root.quic_servers = bytes.add(std::span<const abi::QuicServer>(quic_.servers()));
    std::copy(routes.prefix_lengths.begin(), routes.prefix_lengths.end(), root.route_prefix_lengths);
    root.rate_limits = bytes.add(std::span<const abi::RateLimits>(rate_limits_));
    root.names = bytes.add(std::span<const char>(names_));
    std::copy(cells.prefix_lengths.begin(), cells.prefix_lengths.end(), root.vip_prefix_lengths);
    root.tunnel_source_v4 = tunnel_source(input_.tunnel_source_v4);
    root.tunnel_source_v6 = tunnel_source(input_.tunnel_source_v6);
    root.hygiene = hygiene(input_.hygiene);
    if (std::ranges::any_of(rate_limits_, abi::limits_packets)) root.hygiene |= abi::kHygieneRates;
    if (security != nullptr) {
      root.security_segment = static_cast<std::uint32_t>(segments.size() - 1);
      root.security_epoch = security_epoch(segments.back().checksum);
    }
    return bytes.finish(root);
  }

 private:
  static tl::unexpected<Error> refuse(std::string text) { return tl::unexpected(std::move(text)); }

  static tl::unexpected<Error> too_many(const char* what, std::size_t count, std::size_t most) {
    return refuse(std::to_string(count) + " " + what + ", at most " + std::to_string(most) + " fit into a snapshot");
  }

  static abi::TunnelSource tunnel_source(const std::optional<AddressPrefix>& prefix) {
    if (!prefix) return {};
    return {prefix->address, prefix->length, 1, {}};
  }

  // Of all rules, and of which listeners there are with which group: one without a group that goes leaves its tracked flows
  // to a wider one, which may have one.
  std::uint64_t security_epoch(std::uint64_t rules) const {
    std::uint64_t hash = rules;
    for (const abi::Listener& listener : listeners_) {
      const std::uint64_t ports = std::uint64_t{listener.first_port} << 16 | listener.last_port;
      hash = (hash ^ (std::uint64_t{listener.vip} << 32 | ports)) * 0x9e3779b97f4a7c15ULL;
      hash =
          ((hash ^ hash >> 32) ^ (std::uint64_t{listener.protocol} << 32 | listener.security_group)) * 0xd6e8feb86659fd93ULL;
      hash ^= hash >> 29;
    }
    return hash | 1;
  }

  static std::uint32_t hygiene(const PacketHygiene& wanted) {
    return (wanted.martians ? abi::kHygieneMartians : 0U) | (wanted.land ? abi::kHygieneLand : 0U) |
           (wanted.tcp_flags ? abi::kHygieneTcpFlags : 0U) | (wanted.source_route ? abi::kHygieneSourceRoute : 0U) |
           (wanted.tiny_fragments ? abi::kHygieneTinyFragments : 0U) | (wanted.l4_checksums ? abi::kHygieneL4Checksums : 0U);
  }

  abi::Name name(const std::string& text) {
    const abi::Name result{static_cast<std::uint32_t>(names_.size()), static_cast<std::uint32_t>(text.size())};
    names_.insert(names_.end(), text.begin(), text.end());
    return result;
  }

  tl::expected<void, Error> vips() {
    if (input_.vips.size() > abi::kMaxListeners) return too_many("VIPs", input_.vips.size(), abi::kMaxListeners);
    for (const Vip& vip : input_.vips) {
      if (!vip_index_.emplace(vip.name, static_cast<std::uint32_t>(vips_.size())).second) {
        return refuse("VIP " + vip.name + " stands in the snapshot twice");
      }
      vips_.push_back({.address = vip.address,
                       .name = name(vip.name),
                       .prefix_length = vip.prefix_length,
                       .flags = vip.icmp_echo ? abi::kVipAnswersEcho : 0U});
    }
    return {};
  }

  // The interfaces that next hops and gateway listeners use, by name.
  tl::expected<void, Error> ports() {
    for (const auto& part : current_) {
      for (const std::string& interface : part->interface_names) port_index_[interface] = 0;
    }
    for (const Route& route : input_.routes) {
      if (usable(route.next_hop)) port_index_[route.next_hop.interface] = 0;
    }
    for (const ListenerInput& listener : input_.listeners) {
      if (!listener.config.interface.empty()) port_index_[listener.config.interface] = 0;
    }
    if (port_index_.size() > abi::kMaxPorts) return too_many("interfaces", port_index_.size(), abi::kMaxPorts);
    for (auto& [interface, index] : port_index_) {
      abi::Port port;
      if (interface.size() >= sizeof port.name) return refuse("interface " + interface + ": name is longer than 15 bytes");
      std::copy(interface.begin(), interface.end(), port.name);
      index = static_cast<std::uint8_t>(ports_.size());
      ports_.push_back(port);
    }
    return {};
  }

  tl::expected<void, Error> groups() {
    if (input_.groups.size() > abi::kMaxGroups) return too_many("target groups", input_.groups.size(), abi::kMaxGroups);
    std::size_t ids = 0;
    for (const auto& part : current_) {
      for (const std::uint32_t id : part->ids) ids = std::max<std::size_t>(ids, std::size_t{id} + 1);
    }
    if (ids > abi::kMaxTargets) return too_many("target ids", ids, abi::kMaxTargets);
    targets_.resize(ids);
    for (std::size_t i = 0; i < current_.size(); ++i) {
      if (auto ok = add_group(input_.groups[i], *current_[i]); !ok) return ok;
    }
    return {};
  }

  tl::expected<void, Error> make_parts() {
    GroupParts made;
    for (const GroupInput& input : input_.groups) {
      if (made.contains(input.config.name))
        return refuse("target group " + input.config.name + " stands in the snapshot twice");
      const auto known = parts_.find(input.config.name);
      std::shared_ptr<const GroupPart> part;
      if (known != parts_.end() && input.version != 0 && known->second->version == input.version) {
        part = known->second;
      } else if (auto fresh = make_group_part(input)) {
        part = std::move(*fresh);
      } else {
        return refuse(std::move(fresh.error()));
      }
      current_.push_back(part);
      made.emplace(input.config.name, std::move(part));
    }
    parts_ = std::move(made);
    return {};
  }

  tl::expected<void, Error> add_group(const GroupInput& input, const GroupPart& part) {
    const TargetGroup& config = input.config;
    const auto index = static_cast<std::uint32_t>(groups_.size());
    group_index_.emplace(config.name, index);
    if (config.mode == abi::ForwardingMode::geneve)
      gateways_.push_back({config.geneve_vpce_id, config.geneve_attachment_id, config.geneve_class, {}});
    if (auto ok = add_targets(input, part, index); !ok) return ok;

    abi::TargetGroup& group = groups_.emplace_back();  // value-initialized: padding is 0, and equal inputs give equal bytes
    group.segment = abi::kNoIndex;
    group.slot_count = part.recipe == nullptr ? 0 : config.table_size;
    group.first_target = static_cast<std::uint32_t>(group_targets_.size());
    group.target_count = static_cast<std::uint32_t>(part.rotation.size());
    group.name = name(config.name);
    group.tcp_idle_timeout_s = static_cast<std::uint32_t>(config.tcp_idle_timeout.count());
    group.udp_idle_timeout_s = static_cast<std::uint32_t>(config.udp_idle_timeout.count());
    group.mode = config.mode;
    group.stickiness = config.stickiness;
    group.fail_open = input.fail_open ? 1 : 0;
    group.algorithm = config.algorithm;
    group.client_address = config.proxy_protocol_v2       ? abi::ClientAddress::proxy_v2
                           : config.client_address_option ? abi::ClientAddress::tcp_option
                                                          : abi::ClientAddress::hidden;
    quic_.add_group(index, input);
    group.first_snat = static_cast<std::uint32_t>(snat_addresses_.size());
    group.snat_count = static_cast<std::uint32_t>(config.snat_addresses.size());
    snat_addresses_.insert(snat_addresses_.end(), config.snat_addresses.begin(), config.snat_addresses.end());
    group.weight_unit = part.weight_unit;
    group_targets_.insert(group_targets_.end(), part.rotation.begin(), part.rotation.end());
    if (part.recipe == nullptr) return {};
    recipes_.push_back(part.recipe);
    group_of_recipe_.push_back(index);
    return {};
  }

  // The rows of a group's targets, with what only this snapshot knows.
  tl::expected<void, Error> add_targets(const GroupInput& input, const GroupPart& part, std::uint32_t group) {
    std::vector<std::uint8_t> ports;
    for (const std::string& interface : part.interface_names) ports.push_back(port_index_.at(interface));
    const bool gateway = input.config.mode == abi::ForwardingMode::geneve;
    for (std::size_t i = 0; i < part.targets.size(); ++i) {
      abi::Target& target = targets_[part.ids[i]];
      if ((target.flags & abi::kTargetLive) != 0) {
        const TargetKey& key = input.targets[i].key;
        return refuse("target " + key.group + " " + format_address_port(key.address, key.port) + ": id " +
                      std::to_string(part.ids[i]) + " is given twice");
      }
      target = part.targets[i];
      target.group = group;
      if ((target.flags & abi::kTargetResolved) != 0) target.out_port = ports[part.interfaces[i]];
      if (gateway) target.tunnel_word = static_cast<std::uint32_t>(gateways_.size() - 1);
    }
    return {};
  }

  tl::expected<void, Error> listeners() {
    for (const ListenerInput& input : input_.listeners) {
      const Listener& config = input.config;
      std::uint32_t counter_index = input.counter_index;
      if (config.protocol == ListenerProtocol::geneve) {
        if (auto ok = add_gateway_listener(input); !ok) return ok;
        continue;
      }
      for (const auto& [protocol, taken_by] :
           {std::pair(abi::Protocol::tcp, ListenerProtocol::tcp), {abi::Protocol::udp, ListenerProtocol::udp}}) {
        if (config.protocol != ListenerProtocol::tcp_udp && config.protocol != taken_by) continue;
        auto listener = make_listener(input, protocol, counter_index++);
        if (!listener) return tl::unexpected(listener.error());
        listeners_.push_back(*listener);
      }
    }
    if (listeners_.size() > abi::kMaxListeners) {
      return too_many("listeners (TCP_UDP counts twice)", listeners_.size(), abi::kMaxListeners);
    }
    return {};
  }

  // Takes all of a VIP or a port; a draining one only where there is no other.
  tl::expected<void, Error> add_gateway_listener(const ListenerInput& input) {
    auto listener = make_listener(input, abi::Protocol{abi::kAllProtocols}, input.counter_index);
    if (!listener) return tl::unexpected(listener.error());
    const bool of_port = !input.config.interface.empty();
    std::uint32_t& taken = of_port ? ports_[port_index_.at(input.config.interface)].gateway : vips_[listener->vip].gateway;
    if (taken == abi::kNoIndex || !input.draining) taken = static_cast<std::uint32_t>(listeners_.size());
    listeners_.push_back(*listener);
    return {};
  }

  tl::expected<abi::Listener, Error> make_listener(const ListenerInput& input, abi::Protocol protocol,
                                                   std::uint32_t counter_index) {
    const Listener& config = input.config;
    const auto refuse_listener = [&](const std::string& text) { return refuse("listener " + config.name + ": " + text); };
    const auto vip = vip_index_.find(config.vip);
    const bool of_port = !config.interface.empty();
    if (vip == vip_index_.end() && !of_port) return refuse_listener("there is no VIP " + config.vip);
    if (counter_index >= abi::kMaxListeners) {
      return refuse_listener("counter index " + std::to_string(counter_index) + " is not below " +
                             std::to_string(abi::kMaxListeners));
    }
    if (config.groups.empty() || config.groups.size() > abi::kMaxGroupsPerListener) {
      return refuse_listener(std::to_string(config.groups.size()) + " target groups, must be 1-" +
                             std::to_string(abi::kMaxGroupsPerListener));
    }
    abi::Listener listener;
    listener.vip = of_port ? abi::kNoIndex : vip->second;
    listener.first_port = config.first_port;
    listener.last_port = config.last_port;
    listener.protocol = static_cast<std::uint8_t>(protocol);
    listener.draining = input.draining ? 1 : 0;
    listener.group_count = static_cast<std::uint8_t>(config.groups.size());
    listener.counter_index = counter_index;
    listener.name = name(config.name);
    if (!config.security_group.empty()) {
      const auto group = std::ranges::find(input_.security_groups, config.security_group, &SecurityGroup::name);
      if (group != input_.security_groups.end()) {
        listener.security_group = static_cast<std::uint32_t>(group - input_.security_groups.begin());
        listener.guards |= abi::kGuardSecurity;
      } else if (!input.draining) {  // a removed listener may outlive its security group
        return refuse_listener("there is no security group " + config.security_group);
      }
    }
    if (config.rate_limits.limits()) {
      listener.rate_limits = static_cast<std::uint32_t>(rate_limits_.size());
      listener.guards |= abi::kGuardRates;
      const abi::Vip at = of_port ? abi::Vip{} : vips_[vip->second];
      rate_limits_.push_back(compile_rates(config.rate_limits, rate_identity(config, at)));
    }
    for (std::size_t i = 0; i < config.groups.size(); ++i) {
      const auto group = group_index_.find(config.groups[i].name);
      if (group == group_index_.end()) return refuse_listener("there is no target group " + config.groups[i].name);
      listener.total_weight += config.groups[i].weight;
      listener.groups[i] = {group->second, listener.total_weight};
      if (protocol == abi::Protocol::udp) quic_.add_to(listener, group->second);
    }
    return listener;
  }

  const SnapshotInput& input_;
  GroupParts& parts_;
  std::vector<std::shared_ptr<const GroupPart>> current_;  // same order as the input's groups
  std::unordered_map<std::string, std::uint32_t> vip_index_;
  std::unordered_map<std::string, std::uint32_t> group_index_;
  std::map<std::string, std::uint8_t> port_index_;  // sorted: ports are
  std::vector<std::shared_ptr<const TableRecipe>> recipes_;
  std::vector<std::uint32_t> group_of_recipe_;
  std::vector<abi::Vip> vips_;
  std::vector<abi::Listener> listeners_;
  std::vector<abi::TargetGroup> groups_;
  std::vector<std::uint32_t> group_targets_;
  std::vector<abi::Target> targets_;
  std::vector<abi::IpAddress> snat_addresses_;
  QuicTables quic_;
  std::vector<abi::Gateway> gateways_;  // of geneve groups, in their order
  std::vector<abi::RateLimits> rate_limits_;
  std::vector<abi::Port> ports_;
  std::vector<char> names_;
};

}  // namespace

struct Compiler::Impl {
  GroupParts parts;
  TableStore tables;
  SecurityStore security;
};

Compiler::Compiler() : impl_(std::make_unique<Impl>()) {}
Compiler::~Compiler() = default;

tl::expected<CompiledSnapshot, std::string> Compiler::compile(const SnapshotInput& input) {
  Assembly assembly(input, impl_->parts);
  if (auto ok = assembly.collect(); !ok) return tl::unexpected(ok.error());
  auto tables = impl_->tables.update(assembly.take_recipes(), input.fleet_seed, input.generation.epoch);
  if (!tables) return tl::unexpected(tables.error());
  auto security = impl_->security.update(input.security_groups, input.generation.epoch);
  if (!security) return tl::unexpected(security.error());
  auto root = seal(assembly.root(*tables, security->get()), 0);
  if (!root) return tl::unexpected(root.error());
  if (*security != nullptr) tables->segments.push_back(*security);
  return CompiledSnapshot{input.generation, std::move(*root), std::move(tables->segments), tables->tables_built};
}

}  // namespace lb::cp
