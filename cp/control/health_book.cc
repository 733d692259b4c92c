#include "cp/control/health_book.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>
#include <utility>

namespace lb::cp {
namespace {

constexpr std::array<const char*, 5> kVerdictNames{"ok", "failed", "timeout", "response_code_mismatch", "not_asked"};

// The VIP that probes through the tunnel ask: of the first listener that sends to the group.
std::map<std::string_view, abi::IpAddress> vips_of(const Roster& roster) {
  std::map<std::string_view, abi::IpAddress> vips;
  for (const ListenerRecord& listener : roster.listeners()) {
    if (listener.draining) continue;
    for (const WeightedGroup& group : listener.config.groups) vips.emplace(group.name, listener.address.address);
  }
  return vips;
}

ProbeSpec spec_of(const TargetGroup& group, const TargetKey& target, const abi::IpAddress& vip) {
  const HealthCheck& check = group.health_check;
  ProbeSpec spec{.protocol = check.protocol,
                 .address = target.address,
                 .port = check.port != 0 ? check.port : target.port,
                 .interval = check.interval,
                 .timeout = check.timeout};
  switch (check.protocol) {
    case ProbeProtocol::http:
    case ProbeProtocol::https:
      spec.path = check.path;
      spec.host = check.host;
      spec.matcher = format_matcher(check.matcher);
      spec.http2 = check.http2;
      spec.tls_verify = check.tls_verify;
      break;
    case ProbeProtocol::udp:  // both have been judged with the configuration
      spec.send = unescape(check.send).value_or("");
      spec.expect = unescape(check.expect).value_or("");
      break;
    case ProbeProtocol::icmp: spec.port = 0; break;  // of no port: groups share it
    case ProbeProtocol::tcp:
    case ProbeProtocol::none: break;
  }
  const bool stream = check.protocol != ProbeProtocol::udp && check.protocol != ProbeProtocol::icmp;
  spec.proxy_v2 = group.proxy_protocol_v2 && stream;
  if (check.through_tunnel) {
    const bool gue = group.mode == abi::ForwardingMode::gue;
    spec.through = TunnelledProbe{.mode = group.mode, .vip = vip};
    if (gue) spec.through->gue_port = group.gue_port;
    spec.through->gue_ipv6_zero_checksum = gue && group.gue_ipv6_zero_checksum;
    if (group.mode == abi::ForwardingMode::gre) spec.through->gre_key = group.gre_key;
  }
  return spec;
}

}  // namespace

std::vector<ProbeSpec> HealthBook::plan(const Roster& roster) {
  users_.clear();
  auto vips = vips_of(roster);
  std::map<TargetKey, Counting> before = std::exchange(counting_, {});
  std::map<TargetKey, Watched> seen = std::exchange(watched_, {});
  for (const auto& [name, group] : roster.groups()) {
    if (!group.in_use || group.config.health_check.protocol == ProbeProtocol::none) continue;
    for (const auto& [key, target] : group.targets) {
      if (target.status.removed || target.local) continue;
      const auto probe = users_.try_emplace(spec_of(group.config, key, vips[name])).first;
      probe->second.push_back(key);
      if (sees_replies(group.config.mode)) {
        const Watched& was = seen[key];
        watched_[key] = {target.status.id, &probe->first, was.target_id == target.status.id ? was.troubles : std::nullopt};
      }
      const auto known = before.find(key);
      counting_.emplace(key, known != before.end() ? known->second : Counting{RiseFall(target.health)});
    }
  }
  std::erase_if(limits_, [&](const auto& item) { return !roster.groups().contains(item.first); });
  std::vector<ProbeSpec> specs;
  specs.reserve(users_.size());
  for (const auto& [spec, keys] : users_) specs.push_back(spec);
  return specs;
}

std::vector<ProbeSpec> HealthBook::troubled(const std::function<std::uint32_t(std::uint32_t)>& troubles_of) {
  std::vector<ProbeSpec> probes;
  for (auto& [key, watched] : watched_) {
    const std::uint32_t now = troubles_of(watched.target_id);
    if (watched.troubles && *watched.troubles != now && now != 0) probes.push_back(*watched.probe);
    watched.troubles = now;
  }
  return probes;
}

bool HealthBook::take(const ProbeSpec& spec, const ProbeResult& result, Roster& roster, std::int64_t now_unix_ms) {
  ++verdicts_[static_cast<std::size_t>(result.verdict)];
  const auto users = users_.find(spec);
  if (users == users_.end()) return false;
  bool changed = false;
  for (const TargetKey& key : users->second) {
    const TargetRecord* target = roster.find(key);
    if (target == nullptr) continue;
    const GroupRecord& group = roster.groups().at(key.group);
    const HealthCheck& check = group.config.health_check;
    if (result.verdict == ProbeVerdict::ok) note_success(key.group, now_unix_ms);
    Counting& counting = counting_.at(key);
    const std::uint32_t wanted = successes_wanted(check, counting);
    const Health before = counting.health.health();
    const bool falls = before != Health::unhealthy &&
                       counting.health.after(result.verdict, wanted, check.unhealthy_threshold) == Health::unhealthy;
    const bool hold =
        falls && !limits_[key.group].allow(group.targets.size(), reason_of(result.verdict), last_success_outside(key.group),
                                           now_unix_ms, check.removal_limit_percent);
    counting.health.observe(result.verdict, wanted, check.unhealthy_threshold, hold);
    if (before == Health::healthy && counting.health.health() == Health::unhealthy) {
      const bool again = counting.fell_unix_ms != 0 && now_unix_ms - counting.fell_unix_ms < kFlapWindowMs;
      counting.flaps = again ? std::min(counting.flaps + 1, kMostFlaps) : 0;
      counting.fell_unix_ms = now_unix_ms;
    }
    if (result.verdict == ProbeVerdict::not_asked) {
      changed |= roster.set_not_asked(key, result.text);
      continue;
    }
    const StateReason reason = reason_of(result.verdict);
    const StateReason failure = reason == StateReason::none ? target->failure : reason;
    changed |= target->not_asked || target->health != counting.health.health() ||
               (counting.health.health() != Health::healthy && target->failure != failure);
    roster.set_health(key, counting.health.health(), failure, result.text, now_unix_ms);
  }
  return changed;
}

void HealthBook::show(const ProbeSpec& spec, const ProbeResult& result, Roster& roster) {
  ++verdicts_[static_cast<std::size_t>(result.verdict)];
  const auto users = users_.find(spec);
  if (users == users_.end()) return;
  for (const TargetKey& key : users->second) roster.set_detail(key, result.text);
}

std::uint32_t HealthBook::successes_wanted(const HealthCheck& check, const Counting& counting) {
  return check.flap_damping ? check.healthy_threshold << counting.flaps : check.healthy_threshold;
}

void HealthBook::shift_times(std::int64_t ms) {
  for (auto& [key, counting] : counting_) counting.fell_unix_ms += counting.fell_unix_ms != 0 ? ms : 0;
  for (auto& [group, limit] : limits_) limit.shift_times(ms);
  for (Success* success : {&last_, &last_other_}) success->unix_ms += success->unix_ms != 0 ? ms : 0;
}

void HealthBook::note_success(const std::string& group, std::int64_t now_unix_ms) {
  if (last_.group != group) last_other_ = std::exchange(last_, {group, 0});
  last_.unix_ms = now_unix_ms;
}

std::int64_t HealthBook::last_success_outside(const std::string& group) const {
  return last_.group == group ? last_other_.unix_ms : last_.unix_ms;
}

std::map<std::string, std::uint64_t> HealthBook::counts() const {
  std::map<std::string, std::uint64_t> all;
  for (std::size_t i = 0; i < kVerdictNames.size(); ++i) all[kVerdictNames[i]] = verdicts_[i];
  return all;
}

}  // namespace lb::cp
