#include "cp/snapshot/decide.h"

#include <algorithm>

namespace lb::cp {
namespace {

using abi::TargetState;
using abi::TrackedFlows;

// Takes part in its group's rotation, healthy or not.
bool registered(const TargetFacts& target) {
  return !target.invalid && !target.leaving && target.weight > 0;
}

bool counts_as_healthy(const TargetFacts& target) {
  return !target.probed || target.health == Health::healthy;
}

bool below_minimum(const TargetGroup& group, std::span<const TargetFacts> targets) {
  std::uint64_t members = 0;
  std::uint64_t healthy = 0;
  for (const TargetFacts& target : targets) {
    if (!registered(target)) continue;
    ++members;
    healthy += counts_as_healthy(target) ? 1 : 0;
  }
  if (members == 0 || healthy == members) return false;
  return healthy < group.minimum_healthy_count || healthy * 100 < members * group.minimum_healthy_percentage;
}

struct Moment {
  std::int64_t now;
  std::int64_t next = kNever;
  // Whether `at` is past; if not, decisions are due again then.
  bool past(std::int64_t at) {
    if (now >= at) return true;
    next = std::min(next, at);
    return false;
  }
};

TargetDecision decide_leaving(const TargetGroup& group, bool fail_open, const TargetFacts& target, Moment& moment) {
  if (!moment.past(target.drain_ends_unix_ms)) {
    return {TargetState::draining, StateReason::deregistration_in_progress, 0, TrackedFlows::keep};
  }
  const TrackedFlows then = target.drain_then.value_or(group.after_deregistration);
  const bool spared = fail_open && then == TrackedFlows::reset;
  return {TargetState::unused, StateReason::not_registered, 0, spared ? TrackedFlows::keep : then};
}

TargetDecision decide_unhealthy(const TargetGroup& group, bool fail_open, std::int64_t recovered, const TargetFacts& target,
                                Moment& moment) {
  TargetDecision decision{TargetState::unhealthy, target.failure, fail_open ? target.weight : 0, TrackedFlows::keep};
  const bool terminates = group.terminate_on_unhealthy && group.protocol != ListenerProtocol::udp;
  if (!terminates && group.unhealthy_draining_interval.count() > 0) {
    using std::chrono::milliseconds;
    if (!moment.past(target.unhealthy_since_unix_ms + milliseconds(group.unhealthy_draining_interval).count())) {
      decision.state = TargetState::unhealthy_draining;
      return decision;
    }
  }
  if (fail_open) return decision;
  if (!terminates) {
    decision.tracked = group.keep_unhealthy_flows ? TrackedFlows::keep : TrackedFlows::rehash;
    return decision;
  }
  const auto interval_ms = std::chrono::milliseconds(group.health_check.interval).count();
  if (moment.past(std::max(target.unhealthy_since_unix_ms, recovered) + interval_ms)) decision.tracked = TrackedFlows::reset;
  return decision;
}

// Linear: step k of kRampSteps begins after (k - 1) / kRampSteps of the duration.
std::uint32_t ramp_of(const TargetGroup& group, const TargetFacts& target, Moment& moment) {
  const std::int64_t duration = std::chrono::milliseconds(group.slow_start).count();
  if (duration == 0 || target.ramp_from_unix_ms == 0) return kRampSteps;
  const std::int64_t passed = std::max<std::int64_t>(moment.now - target.ramp_from_unix_ms, 0);
  const auto step = static_cast<std::uint32_t>(std::min<std::int64_t>(passed * kRampSteps / duration, kRampSteps - 1)) + 1;
  if (step < kRampSteps) moment.past(target.ramp_from_unix_ms + (step * duration + kRampSteps - 1) / kRampSteps);
  return step;
}

TargetDecision in_rotation(TargetState state, StateReason reason, const TargetGroup& group, bool fail_open,
                           const TargetFacts& target, Moment& moment) {
  const std::uint32_t ramp = fail_open ? kRampSteps : ramp_of(group, target, moment);
  return {state, reason, target.weight, TrackedFlows::keep, ramp};
}

TargetDecision decide_by_health(const TargetGroup& group, const GroupDecision& decided, const TargetFacts& target,
                                Moment& moment) {
  switch (target.health) {
    case Health::healthy:
      return in_rotation(TargetState::healthy, StateReason::none, group, decided.fail_open, target, moment);
    case Health::unhealthy: return decide_unhealthy(group, decided.fail_open, decided.recovered_unix_ms, target, moment);
    case Health::initial: break;
  }
  const StateReason reason =
      target.failure == StateReason::none ? StateReason::registration_in_progress : StateReason::initial_health_checking;
  return {TargetState::initial, reason, decided.fail_open ? target.weight : 0, TrackedFlows::keep};
}

TargetDecision decide_target(const TargetGroup& group, const GroupFacts& facts, const GroupDecision& decided,
                             const TargetFacts& target, Moment& moment) {
  if (target.invalid) return {TargetState::unused, StateReason::invalid_target, 0, TrackedFlows::rehash};
  if (target.leaving) return decide_leaving(group, decided.fail_open, target, moment);
  if (!facts.in_use) return {TargetState::unused, StateReason::not_in_use, 0, TrackedFlows::keep};
  if (!target.probed)
    return in_rotation(TargetState::unavailable, StateReason::health_check_disabled, group, false, target, moment);
  TargetDecision decision = decide_by_health(group, decided, target, moment);
  if (target.not_asked && target.health != Health::unhealthy) {
    decision.state = TargetState::unavailable;
    decision.reason = StateReason::internal_error;
  }
  return decision;
}

}  // namespace

GroupDecision decide(const TargetGroup& group, const GroupFacts& facts, std::span<const TargetFacts> targets,
                     std::int64_t now_unix_ms) {
  GroupDecision decided;
  decided.fail_open = facts.in_use && below_minimum(group, targets);
  decided.recovered_unix_ms = facts.was_fail_open && !decided.fail_open ? now_unix_ms : facts.recovered_unix_ms;
  Moment moment{now_unix_ms};
  decided.targets.reserve(targets.size());
  for (const TargetFacts& target : targets) decided.targets.push_back(decide_target(group, facts, decided, target, moment));
  decided.next_unix_ms = moment.next;
  return decided;
}

bool RemovalLimit::allow(std::size_t group_targets, StateReason reason, std::int64_t last_success_elsewhere_unix_ms,
                         std::int64_t now_unix_ms, std::uint32_t percent) {
  if (group_targets < 20 || reason != StateReason::timeout) return true;
  std::erase_if(removals_, [&](std::int64_t at) { return at <= now_unix_ms - kWindowMs || at > now_unix_ms; });
  const bool lifted = last_success_elsewhere_unix_ms > now_unix_ms - kWindowMs;
  if (!lifted && removals_.size() >= std::max<std::size_t>(1, group_targets * percent / 100)) return false;
  removals_.push_back(now_unix_ms);
  return true;
}

}  // namespace lb::cp
