// The roster's decisions, and the input of the compiler that follows from them.
#include <algorithm>
#include <atomic>
#include <utility>

#include "cp/snapshot/roster.h"

namespace lb::cp {
namespace {

constexpr std::int64_t kLingerCheckMs = 1000;  // how often flows of a removed target are looked at

// Of GroupInput; of all rosters together, since a copy that is tried first shares the compiler.
std::uint64_t next_version() {
  static std::atomic<std::uint64_t> last = 0;
  return ++last;
}

TargetFacts facts_of(const GroupRecord& group, const TargetRecord& target, bool is_vip) {
  return {.weight = target.weight,
          .health = target.health,
          .failure = target.failure,
          .not_asked = target.not_asked,
          .probed = group.config.health_check.protocol != ProbeProtocol::none,
          .invalid = target.local || is_vip,
          .leaving = leaving(target),
          .drain_ends_unix_ms = target.status.drain_ends_unix_ms,
          .drain_then = target.status.drain_then,
          .unhealthy_since_unix_ms = target.unhealthy_since_unix_ms,
          .ramp_from_unix_ms = target.ramp_from_unix_ms};
}

}  // namespace

// ---- decisions ----

bool Roster::settle(std::int64_t now_unix_ms, const FlowsOf& flows_of) {
  bool changed = settle_listeners(now_unix_ms) || reshaped_ || listeners_changed_;
  for (auto at = groups_.begin(); at != groups_.end();) {
    GroupRecord& group = at->second;
    if (group.dirty || group.next_unix_ms <= now_unix_ms) changed |= settle_group(group, now_unix_ms, flows_of);
    if (group.removed && group.targets.empty()) {
      at = groups_.erase(at);
      reshaped_ = listeners_changed_ = changed = true;
    } else {
      ++at;
    }
  }
  if (reshaped_) rebuild_groups();
  if (listeners_changed_) rebuild_listeners();
  release_finished_ids(flows_of);
  return changed;
}

bool Roster::is_vip(const abi::IpAddress& address) const {
  return vip_addresses_.contains(address) ||
         std::ranges::any_of(vip_prefixes_, [&](const AddressPrefix& prefix) { return contains(prefix, address); });
}

bool Roster::settle_group(GroupRecord& group, std::int64_t now_unix_ms, const FlowsOf& flows_of) {
  remove_finished(group, now_unix_ms, flows_of);
  std::vector<TargetFacts> facts;
  facts.reserve(group.targets.size());
  for (const auto& [key, target] : group.targets) facts.push_back(facts_of(group, target, is_vip(key.address)));
  const GroupDecision decided =
      decide(group.config, {group.in_use, group.fail_open, group.recovered_unix_ms}, facts, now_unix_ms);

  GroupInput* input = reshaped_ ? nullptr : &input_.groups[group.input_index];
  bool changed = group.fail_open != decided.fail_open;
  if (changed && group.in_use) {
    note(now_unix_ms, "target-group " + group.config.name, group.fail_open ? "fail-open" : "routing",
         decided.fail_open ? "fail-open" : "routing", "", decided.fail_open ? "fewer healthy targets than the minimum" : "");
  }
  group.fail_open = decided.fail_open;
  group.recovered_unix_ms = decided.recovered_unix_ms;
  if (input != nullptr) input->fail_open = decided.fail_open;
  std::size_t i = 0;
  for (auto& [key, target] : group.targets) {
    const TargetDecision& decision = decided.targets[i];
    TargetStatus& status = target.status;
    if (status.state != decision.state || status.reason != decision.reason) {
      note(now_unix_ms, object_of(key), to_string(status.state), to_string(decision.state), to_string(decision.reason),
           status.detail);
      if (status.state != decision.state) status.since_unix_ms = now_unix_ms;
      status.state = decision.state;
      status.reason = decision.reason;
    }
    if (input != nullptr) {
      TargetInput& in = input->targets[i];
      changed |= in.weight != decision.weight || in.state != decision.state || in.tracked != decision.tracked ||
                 in.ramp != decision.ramp || in.next_hop != target.next_hop;
      in.weight = decision.weight;
      in.state = decision.state;
      in.tracked = decision.tracked;
      in.ramp = decision.ramp;
      in.next_hop = target.next_hop;
    }
    ++i;
  }
  if (changed && input != nullptr) input->version = next_version();
  group.decided = decided.targets;
  group.next_unix_ms = group.lingering ? std::min(decided.next_unix_ms, now_unix_ms + kLingerCheckMs) : decided.next_unix_ms;
  group.dirty = false;
  return changed || input == nullptr;
}

// Targets that were removed, whose delay is over and whose flows are gone.
void Roster::remove_finished(GroupRecord& group, std::int64_t now_unix_ms, const FlowsOf& flows_of) {
  group.lingering = false;
  for (auto at = group.targets.begin(); at != group.targets.end();) {
    const auto& [key, target] = *at;
    if (!target.status.removed || target.status.drain_ends_unix_ms > now_unix_ms) {
      ++at;
      continue;
    }
    if (flows_of(target.status.id).value_or(1) != 0) {
      group.lingering = true;
      ++at;
      continue;
    }
    note(now_unix_ms, object_of(key), to_string(target.status.state), "removed", to_string(StateReason::not_registered), "");
    leaving_ids_.push_back({target.status.id, {}});
    const auto sharing = by_address_.find(key.address);
    sharing->second.erase(key);
    if (sharing->second.empty()) by_address_.erase(sharing);
    at = group.targets.erase(at);
    ++membership_;
    reshaped_ = true;
  }
}

bool Roster::settle_listeners(std::int64_t now_unix_ms) {
  bool changed = false;
  for (ListenerRecord& listener : listeners_) {
    changed |= std::erase_if(listener.former, [&](const FormerGroup& former) {
                 return former.ends_unix_ms <= now_unix_ms || !groups_.contains(former.name);
               }) != 0;
  }
  const auto over = [&](const ListenerRecord& listener) {
    return listener.draining && listener.drain_ends_unix_ms <= now_unix_ms;
  };
  for (const ListenerRecord& listener : listeners_) {
    if (!over(listener)) continue;
    leaving_counter_pairs_.push_back({listener.counter_index / 2, {}});
    note(now_unix_ms, "listener " + listener.config.name, "draining", "removed", "", "");
    changed = true;
  }
  std::erase_if(listeners_, over);
  listeners_changed_ |= changed;
  return changed;
}

std::optional<std::int64_t> Roster::next_deadline(std::int64_t now_unix_ms) const {
  std::int64_t next = kNever;
  for (const auto& [name, group] : groups_) next = std::min(next, group.dirty ? now_unix_ms : group.next_unix_ms);
  for (const ListenerRecord& listener : listeners_) {
    if (listener.draining) next = std::min(next, listener.drain_ends_unix_ms);
    for (const FormerGroup& former : listener.former) next = std::min(next, former.ends_unix_ms);
  }
  if (!leaving_ids_.empty() || !leaving_counter_pairs_.empty()) next = std::min(next, now_unix_ms + kLingerCheckMs);
  return next == kNever ? std::nullopt : std::optional(next);
}

// ---- what is compiled ----

void Roster::rebuild_groups() {
  input_.groups.clear();
  input_.groups.reserve(groups_.size());
  for (auto& [name, group] : groups_) {
    group.input_index = input_.groups.size();
    GroupInput& input = input_.groups.emplace_back(GroupInput{group.config, group.fail_open, {}, next_version()});
    input.targets.reserve(group.targets.size());
    std::size_t i = 0;
    for (const auto& [key, target] : group.targets) {
      const TargetDecision& decision = group.decided[i++];
      input.targets.push_back({key, target.status.id, decision.weight, decision.state, decision.tracked, target.next_hop,
                               decision.ramp, target.server_id});
    }
  }
  reshaped_ = false;
}

void Roster::rebuild_listeners() {
  input_.fleet_seed = config_.seed;
  input_.vips = config_.vips;
  input_.hygiene = config_.hygiene;
  if (input_.security_groups != config_.security_groups) input_.security_groups = config_.security_groups;
  input_.tunnel_source_v4 = config_.tunnel_source_v4 ? config_.tunnel_source_v4 : default_tunnel_source_v4_;
  input_.tunnel_source_v6 = config_.tunnel_source_v6 ? config_.tunnel_source_v6 : default_tunnel_source_v6_;
  input_.routes = routes_;
  input_.listeners.clear();
  for (const ListenerRecord& record : listeners_) {
    Listener listener = record.config;
    for (const FormerGroup& former : record.former) {
      if (listener.groups.size() < abi::kMaxGroupsPerListener) listener.groups.push_back({former.name, 0});
    }
    std::erase_if(listener.groups, [&](const WeightedGroup& share) { return !groups_.contains(share.name); });
    if (listener.groups.empty()) continue;  // a removed one whose groups are gone already
    if (!listener.interface.empty()) {
      input_.listeners.push_back({std::move(listener), record.draining, record.counter_index});
      continue;
    }
    auto vip = std::ranges::find(input_.vips, record.address, &Vip::prefix);
    if (vip == input_.vips.end()) {
      // The VIP was removed, or moved to another address, while this listener still drains.
      const bool taken = std::ranges::find(input_.vips, listener.vip, &Vip::name) != input_.vips.end();
      input_.vips.push_back({taken ? listener.vip + "@" + format_prefix(record.address) : listener.vip,
                             record.address.address, record.address.length, true});
      vip = std::prev(input_.vips.end());
    }
    listener.vip = vip->name;
    input_.listeners.push_back({std::move(listener), record.draining, record.counter_index});
  }
  listeners_changed_ = false;
}

const SnapshotInput& Roster::snapshot(abi::Generation generation) {
  input_.generation = generation;
  for (auto* leaving : {&leaving_ids_, &leaving_counter_pairs_}) {
    for (Leaving& item : *leaving) {
      if (item.without == abi::Generation{}) item.without = generation;
    }
  }
  return input_;
}

void Roster::activated(abi::Generation generation) {
  active_ = std::max(active_, generation);
}

void Roster::release_finished_ids(const FlowsOf& flows_of) {
  const auto acknowledged = [&](const Leaving& item) {
    return item.without != abi::Generation{} && item.without <= active_;
  };
  std::erase_if(leaving_ids_, [&](const Leaving& item) {
    if (!acknowledged(item) || flows_of(item.id).value_or(1) != 0) return false;
    target_ids_.release(item.id);
    return true;
  });
  std::erase_if(leaving_counter_pairs_, [&](const Leaving& item) {
    if (!acknowledged(item)) return false;
    counter_pairs_.release(item.id);
    return true;
  });
}

}  // namespace lb::cp
