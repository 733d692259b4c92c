// The rules of a flow's fate (docs/architecture.md), free of packets, tables and side effects: the packet path, the
// sweep and explain_flow all ask here.
//
//   entry + packet ── judge ──▶ forward   to the entry's target
//                              repick    the target is gone or its flows are to be re-hashed: pick, keep the entry
//                              renew     the old flow is over: this packet starts a new one
//                              reset     tell both ends that the flow is dead; the entry stays as `reset`
//                              late      the same, once: the entry has expired and goes
//   no entry       ── pick ───▶ group by weight, slot by hash, target by slot
#pragma once

#include <cstdint>

#include "dp/abi/counters.h"
#include "dp/abi/snapshot.h"
#include "dp/base/compiler.h"
#include "dp/lb/flow_hash.h"
#include "dp/lb/flow_table.h"
#include "dp/lb/snapshot.h"
#include "dp/net/parse.h"

namespace lb {

inline constexpr std::uint32_t kTicksPerSecond = 4;

enum class Fate : std::uint8_t { forward, repick, renew, reset, late };

struct Judgement {
  Fate fate = Fate::forward;
  FlowState next = FlowState::empty;  // of the entry after this packet
};

// Modes whose flows cannot exist without an entry: without it, replies would not find their client.
LB_INLINE bool needs_entry(abi::ForwardingMode mode) {
  return mode == abi::ForwardingMode::nat || mode == abi::ForwardingMode::fullnat || mode == abi::ForwardingMode::geneve;
}

LB_INLINE bool is_udp(FlowState state) {
  return state == FlowState::udp || state == FlowState::udp_fresh;
}
LB_INLINE bool is_unproven(FlowState state) {
  return state == FlowState::fresh || state == FlowState::udp_fresh || state == FlowState::short_lived;
}

// A SYN that opens a flow; SYN+ACK comes from a server and opens nothing.
LB_INLINE bool is_opening(std::uint8_t tcp_flags) {
  return (tcp_flags & (net::kTcpSyn | net::kTcpAck | net::kTcpRst | net::kTcpFin)) == net::kTcpSyn;
}

// Idle time after which an entry no longer stands for its flow.
LB_INLINE std::uint32_t idle_limit_ticks(const abi::TargetGroup& group, FlowState state) {
  if (state == FlowState::reset) return kResetTimeoutTicks;
  if (state == FlowState::short_lived) return kShortTimeoutTicks;
  return (is_udp(state) ? group.udp_idle_timeout_s : group.tcp_idle_timeout_s) * kTicksPerSecond;
}

// Idle time after which the sweep takes an entry out. A SYN alone goes early; what was established stays as long again, so
// that a late packet can be told.
LB_INLINE std::uint32_t sweep_limit_ticks(const abi::TargetGroup& group, FlowState state) {
  const std::uint32_t limit = idle_limit_ticks(group, state);
  if (state == FlowState::fresh) return limit < kFreshTimeoutTicks ? limit : kFreshTimeoutTicks;
  return state == FlowState::assumed || state == FlowState::closing ? 2 * limit : limit;
}

// Whether an id names a live target. Everything the table holds comes from an earlier snapshot, or from a file.
LB_INLINE const abi::Target* live_target(const Snapshot& snapshot, std::uint32_t id) {
  const auto targets = snapshot.targets();
  if (id >= targets.size() || (targets[id].flags & abi::kTargetLive) == 0) return nullptr;
  return &targets[id];
}

LB_INLINE bool serves(const abi::Listener& listener, std::uint32_t group) {
  if (listener.groups[0].group == group) return true;
  for (std::uint32_t i = 1; i < listener.group_count; ++i) {
    if (listener.groups[i].group == group) return true;
  }
  return false;
}

// Rule 7: a SYN does not go back to such a target, even on a live entry.
LB_INLINE bool refuses_syn(const abi::Target& target) {
  if (target.tracked != abi::TrackedFlows::keep) return true;
  if ((target.flags & abi::kTargetNoNewFlows) == 0) return false;
  return target.state == abi::TargetState::unhealthy || target.state == abi::TargetState::unhealthy_draining ||
         target.state == abi::TargetState::unused;
}

LB_INLINE FlowState state_after(FlowState state, std::uint8_t tcp_flags) {
  if (is_udp(state)) return FlowState::udp;
  if ((tcp_flags & net::kTcpRst) != 0) return FlowState::short_lived;
  if (state == FlowState::reset || state == FlowState::short_lived || is_opening(tcp_flags)) return state;
  if ((tcp_flags & net::kTcpFin) != 0) return FlowState::closing;
  return state == FlowState::fresh ? FlowState::assumed : state;
}

LB_INLINE FlowState first_state(bool udp, std::uint8_t tcp_flags) {
  if (udp) return FlowState::udp_fresh;
  return (tcp_flags & net::kTcpRst) != 0 ? FlowState::short_lived : FlowState::fresh;
}

// What becomes of a packet that found an entry. tcp_flags: 0 for UDP.
LB_INLINE Judgement judge(const Snapshot& snapshot, const abi::Listener& listener, std::uint32_t target_id, FlowState state,
                          std::uint32_t idle_ticks, std::uint8_t tcp_flags) {
  const bool udp = is_udp(state);
  const Judgement renewed{Fate::renew, first_state(udp, tcp_flags)};
  const bool opening = !udp && is_opening(tcp_flags);
  const abi::Target* target = live_target(snapshot, target_id);
  if (target == nullptr || !serves(listener, target->group)) {
    return opening || state == FlowState::reset ? renewed : Judgement{Fate::repick, state_after(state, tcp_flags)};
  }
  const bool reset_by_client = (tcp_flags & net::kTcpRst) != 0;
  if (idle_ticks >= idle_limit_ticks(snapshot.groups()[target->group], state)) {
    const bool established = state == FlowState::assumed || state == FlowState::closing;
    return established && !opening && !reset_by_client ? Judgement{Fate::late, FlowState::empty} : renewed;
  }
  if (opening) {
    const bool over = state == FlowState::closing || state == FlowState::reset || state == FlowState::short_lived;
    return over || refuses_syn(*target) ? renewed : Judgement{Fate::forward, state};
  }
  const bool dead = state == FlowState::reset || (target->tracked == abi::TrackedFlows::reset && !udp);
  if (dead && !reset_by_client) return {Fate::reset, FlowState::reset};  // never a reset for a reset (RFC 9293 §3.5.2)
  if (target->tracked != abi::TrackedFlows::keep && !dead) return {Fate::repick, state_after(state, tcp_flags)};
  return {Fate::forward, state_after(state, tcp_flags)};
}

struct Pick {
  std::uint32_t group = abi::kNoIndex;
  std::uint32_t slot = abi::kNoIndex;
  std::uint32_t target = abi::kNoIndex;
  abi::DropReason reason = abi::DropReason::none;  // why there is no target
};

// h scaled to 0 … range-1, without division (Lemire 2019, "Fast random integer generation in an interval").
LB_INLINE std::uint64_t fastrange(std::uint64_t h, std::uint64_t range) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>(static_cast<Wide>(h) * range >> 64);
}

// Which group of the listener; `h`: the high half of the slot hash.
LB_INLINE std::uint32_t pick_group(const abi::Listener& listener, std::uint64_t h) {
  const auto point = static_cast<std::uint32_t>(fastrange(h, listener.total_weight));
  std::uint32_t i = 0;
  while (listener.groups[i].cumulative_weight <= point) ++i;  // ends: point < total_weight, the last cumulative weight
  return listener.groups[i].group;
}

// The stickiness that chooses the group: its listener's first group's.
LB_INLINE abi::Stickiness group_stickiness(const Snapshot& snapshot, const abi::Listener& listener) {
  return snapshot.groups()[listener.groups[0].group].stickiness;
}

// Group and slot of a new flow. `hash`: net::FlowKey → Hash128 under snapshot.slot_keys().
template <typename Hash>
LB_INLINE Pick pick_slot(const Snapshot& snapshot, const abi::Listener& listener, const net::FlowKey& key,
                         const Hash& hash) {
  Pick picked;
  picked.reason = listener.draining != 0 ? abi::DropReason::listener_draining : abi::DropReason::no_target;
  if (listener.draining != 0 || listener.total_weight == 0) return picked;
  const abi::Stickiness stickiness = group_stickiness(snapshot, listener);
  Hash128 h = hash(sticky_key(key, stickiness));
  picked.group = pick_group(listener, h.high);
  const abi::TargetGroup& group = snapshot.groups()[picked.group];
  if (group.slot_count == 0) return picked;
  if (group.stickiness != stickiness) [[unlikely]]
    h = hash(sticky_key(key, group.stickiness));
  picked.slot = static_cast<std::uint32_t>(fastrange(h.low, group.slot_count));
  picked.reason = abi::DropReason::none;
  return picked;
}

// pick_slot() in the plain case: every part goes by the 5-tuple, whose slot hash `h` is. False: pick_slot() knows.
LB_INLINE bool pick_slot_plain(const Snapshot& snapshot, const abi::Listener& listener, const Hash128& h, Pick& picked) {
  if ((listener.draining | listener.has_quic) != 0 || listener.total_weight == 0 || listener.guards != 0) return false;
  const std::uint32_t index = listener.group_count == 1 ? listener.groups[0].group : pick_group(listener, h.high);
  const abi::TargetGroup& group = snapshot.groups()[index];
  const bool sticky = group.stickiness != abi::Stickiness::five_tuple ||
                      (listener.group_count != 1 && group_stickiness(snapshot, listener) != abi::Stickiness::five_tuple);
  if (sticky || group.slot_count == 0 || group.fail_open != 0 || group.algorithm != abi::Algorithm::maglev) return false;
  picked.group = index;
  picked.slot = static_cast<std::uint32_t>(fastrange(h.low, group.slot_count));
  picked.target = abi::kNoIndex;
  picked.reason = abi::DropReason::none;
  return true;
}

// What stands in the slot. Apart, so that a burst can ask for all its slots before it reads the first.
LB_INLINE std::uint32_t target_in_slot(const Snapshot& snapshot, const Pick& picked) {
  if (picked.reason != abi::DropReason::none) return abi::kNoIndex;
  return snapshot.group_targets()[snapshot.groups()[picked.group].first_target + snapshot.slots(picked.group)[picked.slot]];
}

template <typename Hash>
LB_INLINE Pick pick(const Snapshot& snapshot, const abi::Listener& listener, const net::FlowKey& key, const Hash& hash) {
  Pick picked = pick_slot(snapshot, listener, key, hash);
  picked.target = target_in_slot(snapshot, picked);
  return picked;
}

}  // namespace lb
