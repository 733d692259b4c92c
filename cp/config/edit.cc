#include "cp/config/edit.h"

#include <algorithm>
#include <string_view>

#include "cp/config/values.h"

namespace lb::cp {
namespace {

constexpr std::uint32_t kMaxTargetWeight = 65'535;
constexpr std::uint32_t kMaxGroupWeight = 999;

using Outcome = tl::expected<Config, Violation>;

tl::unexpected<Violation> wrong(std::string field, std::string text) {
  return tl::unexpected(Violation{"", 0, std::move(field), std::move(text)});
}

std::string_view word(EditAction action) {
  switch (action) {
    case EditAction::add: return "add";
    case EditAction::set: return "set";
    case EditAction::remove: return "remove";
  }
  return "?";
}

Outcome apply(Config&& config, const TargetEdit& change) {
  const auto group = std::ranges::find(config.groups, change.group, &TargetGroup::name);
  if (group == config.groups.end()) return wrong("target_group", "there is no target group '" + change.group + "'");
  const auto address = parse_address_port(change.target);
  if (!address) return wrong("target", "'" + change.target + "' is not ADDRESS:PORT (IPv6: [ADDRESS]:PORT)");
  if (change.weight && *change.weight > kMaxTargetWeight)
    return wrong("weight", "must be 0-65535, not " + std::to_string(*change.weight));
  std::vector<Target>& targets = group->targets;
  const auto known = std::ranges::find_if(
      targets, [&](const Target& target) { return target.address == address->address && target.port == address->port; });
  if (change.action == EditAction::add) {
    if (known != targets.end()) return wrong("target", change.target + " is in target group '" + change.group + "' already");
    targets.push_back({address->address, address->port, change.weight.value_or(1)});
    return std::move(config);
  }
  if (known == targets.end()) return wrong("target", "target group '" + change.group + "' has no target " + change.target);
  if (change.action == EditAction::remove) {
    targets.erase(known);
  } else if (change.weight) {
    known->weight = *change.weight;
  } else {
    return wrong("weight", "is missing");
  }
  return std::move(config);
}

// blue:1,green:3
tl::expected<std::vector<WeightedGroup>, Violation> read_shares(std::string_view text) {
  std::vector<WeightedGroup> shares;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find(','));
    text.remove_prefix(std::min(part.size() + 1, text.size()));
    const std::size_t colon = part.find(':');
    WeightedGroup share{std::string(part.substr(0, colon)), 1};
    if (colon != std::string_view::npos) {
      const auto weight = parse_number(part.substr(colon + 1), 0, kMaxGroupWeight);
      if (!weight) return wrong("target_groups", "'" + std::string(part) + "': a weight is 0-999");
      share.weight = *weight;
    }
    shares.push_back(std::move(share));
  }
  if (shares.empty()) return wrong("target_groups", "is missing");
  return shares;
}

Outcome apply(Config&& config, const ListenerEdit& change) {
  const auto known = std::ranges::find(config.listeners, change.name, &Listener::name);
  if (change.action == EditAction::remove) {
    if (known == config.listeners.end()) return wrong("name", "there is no listener '" + change.name + "'");
    config.listeners.erase(known);
    return std::move(config);
  }
  if (change.action != EditAction::add) return wrong("action", "a listener can be added or removed");
  if (known != config.listeners.end()) return wrong("name", "there is a listener '" + change.name + "' already");
  Listener listener{.name = change.name, .vip = change.vip};
  bool protocol_known = false;
  for (const ListenerProtocol protocol : {ListenerProtocol::tcp, ListenerProtocol::udp, ListenerProtocol::tcp_udp}) {
    if (to_string(protocol) != change.protocol) continue;
    listener.protocol = protocol;
    protocol_known = true;
  }
  if (!protocol_known) return wrong("protocol", "must be TCP | UDP | TCP_UDP, not '" + change.protocol + "'");
  const auto ports = parse_port_range(change.port);
  if (!ports) return wrong("port", "must be 1-65535, a range N-M of these, or any, not '" + change.port + "'");
  listener.first_port = ports->first;
  listener.last_port = ports->last;
  auto shares = read_shares(change.target_groups);
  if (!shares) return tl::unexpected(shares.error());
  listener.groups = std::move(*shares);
  config.listeners.push_back(std::move(listener));
  return std::move(config);
}

}  // namespace

tl::expected<Config, Violation> edit(Config config, const Edit& change) {
  return std::visit([&](const auto& one) { return apply(std::move(config), one); }, change);
}

std::string describe(const Edit& change) {
  if (const auto* target = std::get_if<TargetEdit>(&change)) {
    return "target " + std::string(word(target->action)) + " " + target->group + " " + target->target;
  }
  const auto& listener = std::get<ListenerEdit>(change);
  return "listener " + std::string(word(listener.action)) + " " + listener.name;
}

}  // namespace lb::cp
