#include "cp/snapshot/roster.h"

#include <algorithm>
#include <utility>

namespace lb::cp {
namespace {

std::int64_t in_ms(std::chrono::seconds seconds) {
  return std::chrono::milliseconds(seconds).count();
}

// Would `old`, draining, be found before `live` for packets that are the latter's? (Longest prefix, then narrowest port
// range first.) `vip_stays`: old's address or prefix still is a VIP, so that live's never gets these packets.
bool shadows(const ListenerRecord& old, const ListenerRecord& live, bool vip_stays) {
  if (old.config.interface != live.config.interface) return false;
  const bool protocols_meet = old.config.protocol == live.config.protocol ||
                              old.config.protocol == ListenerProtocol::tcp_udp ||
                              live.config.protocol == ListenerProtocol::tcp_udp;
  const bool ports_meet = old.config.first_port <= live.config.last_port && live.config.first_port <= old.config.last_port;
  if (old.address != live.address) {
    return !vip_stays && protocols_meet && ports_meet && old.address.length > live.address.length &&
           contains(live.address, old.address.address);
  }
  return protocols_meet && ports_meet &&
         old.config.last_port - old.config.first_port <= live.config.last_port - live.config.first_port;
}

// The same listener before and after a change of configuration.
bool same_listener(const ListenerRecord& a, const ListenerRecord& b) {
  return a.config.name == b.config.name && a.config.interface == b.config.interface &&
         a.config.protocol == b.config.protocol && a.address == b.address && a.config.first_port == b.config.first_port &&
         a.config.last_port == b.config.last_port;
}

// Whether a target of the group, other than `except`, takes new flows by its own health.
bool any_serves(const GroupRecord& group, const TargetRecord* except) {
  const bool probed = group.config.health_check.protocol != ProbeProtocol::none;
  return std::ranges::any_of(group.targets, [&](const auto& item) {
    const TargetRecord& target = item.second;
    return &target != except && !leaving(target) && target.weight > 0 && (!probed || target.health == Health::healthy);
  });
}

}  // namespace

std::string object_of(const TargetKey& key) {
  return "target " + key.group + " " + format_address_port(key.address, key.port);
}

bool leaving(const TargetRecord& target) {
  return target.status.removed || target.status.drained_by_operator;
}

const TargetRecord* Roster::find(const TargetKey& key) const {
  const auto group = groups_.find(key.group);
  if (group == groups_.end()) return nullptr;
  const auto target = group->second.targets.find(key);
  return target == group->second.targets.end() ? nullptr : &target->second;
}

std::vector<abi::IpAddress> Roster::addresses() const {
  std::vector<abi::IpAddress> all;
  all.reserve(by_address_.size());
  for (const auto& [address, keys] : by_address_) all.push_back(address);
  return all;
}

void Roster::note(std::int64_t now_unix_ms, std::string object, std::string_view old_state, std::string_view new_state,
                  std::string_view reason, std::string detail) {
  events_.push_back({now_unix_ms, std::move(object), std::string(old_state), std::string(new_state), std::string(reason),
                     std::move(detail)});
}

std::vector<Event> Roster::take_events() {
  return std::exchange(events_, {});
}

// ---- the desired state ----

tl::expected<void, std::string> Roster::apply(const Config& config, std::int64_t now_unix_ms) {
  std::size_t ids = leaving_ids_.size();
  for (const auto& [name, group] : groups_) ids += group.targets.size();
  for (const TargetGroup& group : config.groups) {
    const auto known = groups_.find(group.name);
    for (const Target& target : group.targets) {
      ids += known == groups_.end() || !known->second.targets.contains({group.name, target.address, target.port}) ? 1 : 0;
    }
  }
  if (ids > abi::kMaxTargets) {
    return tl::unexpected("more than " + std::to_string(abi::kMaxTargets) + " targets, those still draining included");
  }
  const std::size_t pairs = config.listeners.size() + listeners_.size() + leaving_counter_pairs_.size();
  if (pairs > abi::kMaxListeners / 2) {
    return tl::unexpected("more than " + std::to_string(abi::kMaxListeners / 2) +
                          " listeners, those still draining included");
  }
  config_ = config;
  vip_addresses_.clear();
  vip_prefixes_.clear();
  for (const Vip& vip : config.vips) {
    if (vip.prefix_length == 128) vip_addresses_.insert(vip.address);
    if (vip.prefix_length < 128) vip_prefixes_.push_back(vip.prefix());
  }
  apply_groups(config, now_unix_ms);
  apply_listeners(config, now_unix_ms);
  refresh_use();
  for (auto& [name, group] : groups_) group.dirty = true;
  reshaped_ = listeners_changed_ = true;
  return {};
}

void Roster::apply_groups(const Config& config, std::int64_t now_unix_ms) {
  std::set<std::string> configured;
  for (const TargetGroup& wanted : config.groups) {
    configured.insert(wanted.name);
    GroupRecord& group = groups_[wanted.name];
    group.config = wanted;
    group.removed = false;
    std::set<TargetKey> keys;
    const bool others_serve = wanted.slow_start.count() > 0 && any_serves(group, nullptr);
    for (const Target& target : wanted.targets) {
      TargetKey key{wanted.name, target.address, target.port};
      add_target(group, key, target, others_serve, now_unix_ms);
      keys.insert(std::move(key));
    }
    for (auto& [key, target] : group.targets) {
      if (!keys.contains(key)) remove_target(group, target, now_unix_ms);
    }
  }
  for (auto& [name, group] : groups_) {
    if (configured.contains(name)) continue;
    group.removed = true;
    for (auto& [key, target] : group.targets) remove_target(group, target, now_unix_ms);
  }
}

void Roster::add_target(GroupRecord& group, const TargetKey& key, const Target& wanted, bool others_serve,
                        std::int64_t now_unix_ms) {
  auto [at, added] = group.targets.try_emplace(key);
  TargetRecord& target = at->second;
  target.weight = wanted.weight;
  target.server_id = wanted.server_id;
  target.status.removed = false;
  if (!added) return;
  target.key = key;
  target.status.id = *target_ids_.take();  // apply() has counted
  target.status.since_unix_ms = now_unix_ms;
  target.joined_late = others_serve;
  if (others_serve && group.config.health_check.protocol == ProbeProtocol::none) target.ramp_from_unix_ms = now_unix_ms;
  by_address_[key.address].insert(key);
  ++membership_;
  note(now_unix_ms, object_of(key), "", to_string(target.status.state), to_string(target.status.reason), "");
}

void Roster::remove_target(const GroupRecord& group, TargetRecord& target, std::int64_t now_unix_ms) {
  if (target.status.removed) return;
  if (!target.status.drained_by_operator)
    target.status.drain_ends_unix_ms = now_unix_ms + in_ms(group.config.deregistration_delay);
  target.status.removed = true;
}

std::int64_t Roster::drain_end(const ListenerRecord& listener, std::int64_t now_unix_ms) const {
  std::int64_t end = now_unix_ms;
  for (const WeightedGroup& share : listener.config.groups) {
    const auto group = groups_.find(share.name);
    if (group == groups_.end()) continue;
    end = std::max(end, now_unix_ms + in_ms(group->second.config.deregistration_delay));
  }
  return end;
}

void Roster::apply_listeners(const Config& config, std::int64_t now_unix_ms) {
  std::vector<ListenerRecord> before = std::exchange(listeners_, {});
  for (const Listener& wanted : config.listeners) {
    ListenerRecord listener{.config = wanted};
    const auto vip = std::ranges::find(config.vips, wanted.vip, &Vip::name);
    if (vip != config.vips.end()) listener.address = vip->prefix();
    const auto known = std::ranges::find_if(before, [&](const auto& old) { return same_listener(old, listener); });
    if (known == before.end()) {
      listener.counter_index = 2 * *counter_pairs_.take();  // apply() has counted
      note(now_unix_ms, "listener " + wanted.name, "", "active", "", "");
    } else {
      listener.counter_index = known->counter_index;
      listener.former = std::move(known->former);
      for (const WeightedGroup& old : known->config.groups) {
        const auto group = groups_.find(old.name);
        if (group == groups_.end()) continue;
        listener.former.push_back({old.name, now_unix_ms + in_ms(group->second.config.deregistration_delay)});
      }
      std::erase_if(listener.former, [&](const FormerGroup& former) {
        return std::ranges::find(wanted.groups, former.name, &WeightedGroup::name) != wanted.groups.end();
      });
      before.erase(known);
    }
    listeners_.push_back(std::move(listener));
  }
  const std::size_t live = listeners_.size();
  for (ListenerRecord& old : before) {
    const auto end = listeners_.begin() + static_cast<std::ptrdiff_t>(live);
    const bool vip_stays = std::ranges::find(config.vips, old.address, &Vip::prefix) != config.vips.end();
    if (std::any_of(listeners_.begin(), end, [&](const auto& listener) { return shadows(old, listener, vip_stays); })) {
      leaving_counter_pairs_.push_back({old.counter_index / 2, {}});  // another listener has taken its place
      note(now_unix_ms, "listener " + old.config.name, "active", "removed", "", "its place was taken by another listener");
      continue;
    }
    if (!old.draining) {
      old.draining = true;
      old.drain_ends_unix_ms = drain_end(old, now_unix_ms);
      note(now_unix_ms, "listener " + old.config.name, "active", "draining",
           to_string(StateReason::deregistration_in_progress), "");
    }
    listeners_.push_back(std::move(old));
  }
}

void Roster::refresh_use() {
  std::set<std::string> used;
  for (const ListenerRecord& listener : listeners_) {
    if (listener.draining) continue;
    for (const WeightedGroup& group : listener.config.groups) used.insert(group.name);
  }
  for (auto& [name, group] : groups_) {
    const bool in_use = used.contains(name);
    group.dirty |= in_use != group.in_use;
    group.in_use = in_use;
  }
}

// ---- what happens to targets ----

bool Roster::set_health(const TargetKey& key, Health health, StateReason failure, const std::string& detail,
                        std::int64_t now_unix_ms) {
  const auto group = groups_.find(key.group);
  if (group == groups_.end()) return false;
  const auto at = group->second.targets.find(key);
  if (at == group->second.targets.end()) return false;
  TargetRecord& target = at->second;
  target.status.detail = detail;
  group->second.dirty |= std::exchange(target.not_asked, false);
  if (target.health == health && (target.failure == failure || health == Health::healthy)) return true;
  if (health == Health::unhealthy && target.health != Health::unhealthy) target.unhealthy_since_unix_ms = now_unix_ms;
  if (health == Health::healthy) {
    const bool comes_late = target.joined_late || target.health == Health::unhealthy;
    const bool ramps = comes_late && group->second.config.slow_start.count() > 0 && any_serves(group->second, &target);
    target.ramp_from_unix_ms = ramps ? now_unix_ms : 0;
    target.joined_late = false;
  }
  target.health = health;
  target.failure = health == Health::healthy ? StateReason::none : failure;
  group->second.dirty = true;
  return true;
}

bool Roster::set_not_asked(const TargetKey& key, const std::string& detail) {
  const auto group = groups_.find(key.group);
  if (group == groups_.end()) return false;
  const auto at = group->second.targets.find(key);
  if (at == group->second.targets.end()) return false;
  at->second.status.detail = detail;
  if (std::exchange(at->second.not_asked, true)) return false;
  group->second.dirty = true;
  return true;
}

void Roster::set_detail(const TargetKey& key, const std::string& detail) {
  const auto group = groups_.find(key.group);
  if (group == groups_.end()) return;
  const auto target = group->second.targets.find(key);
  if (target != group->second.targets.end()) target->second.status.detail = detail;
}

tl::expected<std::vector<TargetKey>, std::string> Roster::drain(const abi::IpAddress& address, std::uint16_t port,
                                                                const std::optional<std::string>& group, bool drain,
                                                                std::int64_t now_unix_ms, const DrainTerms& terms) {
  if (group && (!groups_.contains(*group) || groups_.at(*group).removed))
    return tl::unexpected("no target group \"" + *group + "\"");
  std::vector<TargetKey> touched;
  const auto refuse = [&] {
    return tl::unexpected("no target " + format_address_port(address, port) +
                          (group ? " in target group \"" + *group + "\"" : ""));
  };
  const auto sharing = by_address_.find(address);
  if (sharing == by_address_.end()) return refuse();
  for (const TargetKey& key : sharing->second) {
    GroupRecord& record = groups_.at(key.group);
    const auto at = record.targets.find(key);
    if (key.port != port || (group && key.group != *group) || at->second.status.removed) continue;
    TargetStatus& status = at->second.status;
    if (drain && (!status.drained_by_operator || terms.deadline))
      status.drain_ends_unix_ms = now_unix_ms + in_ms(terms.deadline.value_or(record.config.deregistration_delay));
    if (!drain) status.drain_then.reset();
    if (terms.then) status.drain_then = terms.then;
    status.drained_by_operator = drain;
    record.dirty = true;
    touched.push_back(at->first);
  }
  if (touched.empty()) return refuse();
  return touched;
}

void Roster::set_path(const abi::IpAddress& address, const NextHop& next_hop, bool local) {
  const auto sharing = by_address_.find(address);
  if (sharing == by_address_.end()) return;
  for (const TargetKey& key : sharing->second) {
    GroupRecord& group = groups_.at(key.group);
    TargetRecord& target = group.targets.at(key);
    group.dirty |= target.next_hop != next_hop || target.local != local;
    target.next_hop = next_hop;
    target.local = local;
  }
}

void Roster::set_default_tunnel_sources(const std::optional<AddressPrefix>& v4, const std::optional<AddressPrefix>& v6) {
  listeners_changed_ |= v4 != default_tunnel_source_v4_ || v6 != default_tunnel_source_v6_;
  default_tunnel_source_v4_ = v4;
  default_tunnel_source_v6_ = v6;
}

void Roster::set_routes(std::vector<Route> routes) {
  listeners_changed_ |= routes != routes_;
  routes_ = std::move(routes);
}

bool Roster::wants_routes() const {
  return std::ranges::any_of(groups_,
                             [](const auto& item) { return item.second.config.mode == abi::ForwardingMode::geneve; });
}

void Roster::shift_times(std::int64_t ms) {
  const auto shift = [ms](std::int64_t& time) {
    if (time != 0 && time != kNever) time += ms;  // 0: it has not happened
  };
  for (auto& [name, group] : groups_) {
    shift(group.recovered_unix_ms);
    shift(group.next_unix_ms);
    for (auto& [key, target] : group.targets) {
      shift(target.unhealthy_since_unix_ms);
      shift(target.ramp_from_unix_ms);
      shift(target.status.since_unix_ms);
      shift(target.status.drain_ends_unix_ms);
    }
  }
  for (ListenerRecord& listener : listeners_) {
    shift(listener.drain_ends_unix_ms);
    for (FormerGroup& former : listener.former) shift(former.ends_unix_ms);
  }
}

// ---- what is kept ----

RosterMemory Roster::memory() const {
  RosterMemory memory;
  for (const auto& [name, group] : groups_) memory.groups.push_back(group);
  memory.listeners = listeners_;
  for (const Leaving& item : leaving_ids_) memory.leaving_ids.push_back(item.id);
  for (const Leaving& item : leaving_counter_pairs_) memory.leaving_counter_pairs.push_back(item.id);
  return memory;
}

void Roster::restore(RosterMemory memory) {
  for (GroupRecord& group : memory.groups) {
    for (auto& [key, target] : group.targets) {
      if (!target_ids_.restore(target.status.id)) target.status.id = *target_ids_.take();
      by_address_[key.address].insert(key);
      ++membership_;
    }
    group.dirty = true;
    std::string name = group.config.name;
    groups_.insert_or_assign(std::move(name), std::move(group));
  }
  for (ListenerRecord& listener : memory.listeners) {
    if (!counter_pairs_.restore(listener.counter_index / 2)) listener.counter_index = 2 * *counter_pairs_.take();
    listeners_.push_back(std::move(listener));
  }
  for (const std::uint32_t id : memory.leaving_ids) {
    if (target_ids_.restore(id)) leaving_ids_.push_back({id, {}});
  }
  for (const std::uint32_t pair : memory.leaving_counter_pairs) {
    if (counter_pairs_.restore(pair)) leaving_counter_pairs_.push_back({pair, {}});
  }
  refresh_use();
  reshaped_ = listeners_changed_ = true;
}

}  // namespace lb::cp
