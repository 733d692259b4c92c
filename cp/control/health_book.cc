#include "cp/control/health_book.h"

#include <array>
#include <utility>

namespace lb::cp {
namespace {

constexpr std::array<const char*, 4> kVerdictNames{"ok", "failed", "timeout", "response_code_mismatch"};

ProbeSpec spec_of(const TargetGroup& group, const TargetKey& target) {
  const HealthCheck& check = group.health_check;
  ProbeSpec spec{.protocol = check.protocol,
                 .address = target.address,
                 .port = check.port != 0 ? check.port : target.port,
                 .interval = check.interval,
                 .timeout = check.timeout};
  if (check.protocol == ProbeProtocol::http) {
    spec.path = check.path;
    spec.host = check.host;
    spec.matcher = matcher_text(check.matcher);
  }
  return spec;
}

}  // namespace

std::vector<ProbeSpec> HealthBook::plan(const Roster& roster) {
  users_.clear();
  std::map<TargetKey, RiseFall> before = std::exchange(counting_, {});
  for (const auto& [name, group] : roster.groups()) {
    if (!group.in_use || group.config.health_check.protocol == ProbeProtocol::none) continue;
    for (const auto& [key, target] : group.targets) {
      if (target.status.removed || target.local) continue;
      users_[spec_of(group.config, key)].push_back(key);
      const auto known = before.find(key);
      counting_.emplace(key, known != before.end() ? known->second : RiseFall(target.health));
    }
  }
  std::erase_if(limits_, [&](const auto& item) { return !roster.groups().contains(item.first); });
  std::vector<ProbeSpec> specs;
  specs.reserve(users_.size());
  for (const auto& [spec, keys] : users_) specs.push_back(spec);
  return specs;
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
    RiseFall& counting = counting_.at(key);
    const bool falls =
        counting.health() != Health::unhealthy &&
        counting.after(result.verdict, check.healthy_threshold, check.unhealthy_threshold) == Health::unhealthy;
    const bool hold = falls && !limits_[key.group].allow(group.targets.size(), reason_of(result.verdict),
                                                         last_success_outside(key.group), now_unix_ms);
    counting.observe(result.verdict, check.healthy_threshold, check.unhealthy_threshold, hold);
    const StateReason reason = reason_of(result.verdict);
    const StateReason failure = reason == StateReason::none ? target->failure : reason;
    changed |= target->health != counting.health() || (counting.health() != Health::healthy && target->failure != failure);
    roster.set_health(key, counting.health(), failure, result.text, now_unix_ms);
  }
  return changed;
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
