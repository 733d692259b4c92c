#include "cp/snapshot/group_part.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

#include "cp/snapshot/maglev.h"
#include "cp/snapshot/vip_cells.h"

namespace lb::cp {
namespace {

using Error = std::string;

std::string named(const TargetInput& input, const TargetGroup& group) {
  return "target " + group.name + " " + format_address_port(input.key.address, input.key.port);
}

void set_tunnel(abi::Target& target, const TargetGroup& group) {
  if (group.mode == abi::ForwardingMode::gue) {
    target.tunnel_word = group.gue_port;
    target.tunnel_flags = group.gue_ipv6_zero_checksum ? abi::kTunnelZeroChecksum : 0;
  } else if (group.mode == abi::ForwardingMode::gre && group.gre_key) {
    target.tunnel_word = *group.gre_key;
    target.tunnel_flags = abi::kTunnelKeyed;
  }
  if (group.outer_fragmentation) target.tunnel_flags |= abi::kTunnelFragment;
}

std::uint32_t index_of(std::vector<std::string>& names, const std::string& name) {
  const auto known = std::ranges::find(names, name);
  const auto index = static_cast<std::uint32_t>(known - names.begin());
  if (known == names.end()) names.push_back(name);
  return index;
}

tl::expected<void, Error> add_target(GroupPart& part, const TargetInput& input, std::uint64_t identity,
                                     const TargetGroup& group) {
  if (input.weight > 65535)
    return tl::unexpected(named(input, group) + ": weight " + std::to_string(input.weight) + " is above 65535");
  if (input.key.group != group.name)
    return tl::unexpected(named(input, group) + ": belongs to target group " + input.key.group);
  abi::Target& target = part.targets.emplace_back();  // value-initialized: padding is 0, and equal inputs give equal bytes
  part.ids.push_back(input.id);
  target.address = input.key.address;
  target.identity = identity;
  target.port = input.key.port;
  target.weight = static_cast<std::uint16_t>(input.weight);
  target.flags = abi::kTargetLive;
  if (input.weight == 0) target.flags |= abi::kTargetNoNewFlows;
  target.tracked = input.tracked;
  target.state = input.state;
  target.mode = group.mode;
  set_tunnel(target, group);
  if (group.mss_clamp) target.flags |= abi::kTargetClampsMss;
  part.interfaces.push_back(0);
  if (usable(input.next_hop)) {  // else it keeps its slots, and its packets are dropped by name
    target.flags |= abi::kTargetResolved;
    part.interfaces.back() = index_of(part.interface_names, input.next_hop.interface);
    target.mtu_bytes = static_cast<std::uint16_t>(std::min(input.next_hop.mtu_bytes, 65535U));
    target.vlan = input.next_hop.vlan;
    target.next_hop_mac = input.next_hop.mac;
    target.source_mac = input.next_hop.source_mac;
  }
  return {};
}

}  // namespace

tl::expected<std::shared_ptr<const GroupPart>, std::string> make_group_part(const GroupInput& input) {
  const TargetGroup& config = input.config;
  auto part = std::make_shared<GroupPart>();
  part->version = input.version;
  part->targets.reserve(input.targets.size());
  const TargetIdentities identities(config.name);
  std::vector<std::pair<MaglevTarget, const TargetInput*>> rotation;
  rotation.reserve(input.targets.size());
  const bool ramps = std::ranges::any_of(input.targets, [](const auto& target) { return target.ramp != kRampSteps; });
  for (const TargetInput& target : input.targets) {
    const std::uint64_t identity = identities.of(target.key.address, target.key.port);
    if (auto ok = add_target(*part, target, identity, config); !ok) return tl::unexpected(ok.error());
    if (target.weight > 0) rotation.push_back({{identity, target.weight * (ramps ? target.ramp : 1)}, &target});
  }
  if (rotation.size() > abi::kMaxTargetsPerGroup) {
    return tl::unexpected(std::to_string(rotation.size()) + " targets in target group " + config.name + ", at most " +
                          std::to_string(abi::kMaxTargetsPerGroup) + " fit into a snapshot");
  }
  // Equal identities of different targets (2^-64 per pair) still have one order.
  std::sort(rotation.begin(), rotation.end(), [](const auto& a, const auto& b) {
    return std::tie(a.first.identity, a.second->key) < std::tie(b.first.identity, b.second->key);
  });
  if (rotation.empty()) return part;

  std::uint32_t unit = 0;
  TableRecipe recipe{config.name, config.table_size, {}};
  recipe.targets.reserve(rotation.size());
  for (const auto& [target, from] : rotation) {
    unit = std::gcd(unit, from->weight);
    recipe.targets.push_back(target);
    part->rotation.push_back(from->id);
  }
  part->weight_unit = static_cast<std::uint16_t>(unit);
  part->recipe = std::make_shared<const TableRecipe>(std::move(recipe));
  return part;
}

}  // namespace lb::cp
