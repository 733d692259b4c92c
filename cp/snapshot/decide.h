// The rules: what state each target of a group is in, which weight it has in the Maglev table and what becomes of its
// tracked flows. Pure functions of facts and time, shared by lb-cp and lb-replay. What becomes of a flow at each
// event stands in docs/architecture.md; attribute names, thresholds and reasons are those of AWS NLB.
//
//   leaving (drained or removed)   draining until its delay ends, then unused/NotRegistered; no new flows.
//                                  Tracked flows: keep; after the delay left, reset or re-hashed as configured.
//   nobody's group                 unused/NotInUse
//   no probes                      unavailable/HealthCheckDisabled, in rotation
//   no probe can be made           unavailable/InternalError instead of healthy or initial: all else as if it still were
//   initial                        no new flows unless the group is fail-open
//   healthy                        in rotation; with a share that grows while it is in slow start
//   unhealthy                      no new flows unless fail-open. Tracked flows: reset one probe interval later (TCP with
//                                  connection termination); else keep for the draining interval, if there is one;
//                                  else re-hash; geneve: keep, unless target_failover says rebalance.
//
// Fail-open comes first: fewer healthy targets than the group's minimum means all its targets take new flows and every
// tracked flow is kept; a reset then waits one interval from the moment the group recovers.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "cp/model/model.h"

namespace lb::cp {

// Slow start: the share of the Maglev table grows in so many steps, so that few flows move at each.
inline constexpr std::uint32_t kRampSteps = 64;

inline constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

struct TargetFacts {
  std::uint32_t weight = 1;  // configured
  Health health = Health::initial;
  StateReason failure = StateReason::none;      // of the last failed probe; none: no probe has come back yet
  bool not_asked = false;                       // lb could not make its last probe
  bool probed = true;                           // false: its group checks nothing
  bool invalid = false;                         // its address is lb's own or a VIP
  bool leaving = false;                         // drained by the operator or removed
  std::int64_t drain_ends_unix_ms = 0;          // if leaving
  std::optional<abi::TrackedFlows> drain_then;  // if leaving: what becomes of its flows then; else the group's attribute
  std::int64_t unhealthy_since_unix_ms = 0;     // if unhealthy
  std::int64_t ramp_from_unix_ms = 0;           // its slow start began then; 0: it has none
};

struct TargetDecision {
  abi::TargetState state = abi::TargetState::initial;
  StateReason reason = StateReason::none;
  std::uint32_t weight = 0;  // in the table
  abi::TrackedFlows tracked = abi::TrackedFlows::keep;
  std::uint32_t ramp = kRampSteps;  // 1-kRampSteps: how much of its weight counts, in kRampSteps-ths
  bool operator==(const TargetDecision&) const = default;
};

struct GroupFacts {
  bool in_use = true;  // a listener that is not draining names it
  bool was_fail_open = false;
  std::int64_t recovered_unix_ms = 0;  // when it last ceased to be fail-open
};

struct GroupDecision {
  bool fail_open = false;
  std::int64_t recovered_unix_ms = 0;
  std::int64_t next_unix_ms = kNever;   // when time alone will change a decision
  std::vector<TargetDecision> targets;  // same order as the facts
};

GroupDecision decide(const TargetGroup& group, const GroupFacts& facts, std::span<const TargetFacts> targets,
                     std::int64_t now_unix_ms);

// Holds back targets that time out together (rule 8): in groups of at least 20 targets, at most max(1, `percent`) may become
// unhealthy by `Timeout` within 10 s, unless a probe to another group has succeeded in that time (then lb's own
// network is not what is broken).
class RemovalLimit {
 public:
  // Whether one more removal is allowed now; if so, it is counted.
  bool allow(std::size_t group_targets, StateReason reason, std::int64_t last_success_elsewhere_unix_ms,
             std::int64_t now_unix_ms, std::uint32_t percent = 10);
  void shift_times(std::int64_t ms) {
    for (std::int64_t& at : removals_) at += ms;
  }

 private:
  static constexpr std::int64_t kWindowMs = 10'000;
  std::vector<std::int64_t> removals_;  // times within the window
};

}  // namespace lb::cp
