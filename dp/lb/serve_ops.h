// What becomes of the packets that are no plain hit and no plain new flow: entries that end or change, flows without an
// entry, flows of other workers. Part of kernel.cc, compiled once for each instruction set, hence the internal linkage.
#pragma once

#include <cstdint>

#include "dp/lb/algorithm.h"
#include "dp/lb/answer.h"
#include "dp/lb/decide.h"
#include "dp/lb/flow_hash_ops.h"
#include "dp/lb/flow_ops.h"
#include "dp/lb/fragments.h"
#include "dp/lb/fullnat.h"
#include "dp/lb/guard_hygiene.h"
#include "dp/lb/guard_rates.h"
#include "dp/lb/guard_security.h"
#include "dp/lb/mss.h"
#include "dp/lb/nat.h"
#include "dp/lb/passive.h"
#include "dp/lb/quic_route.h"
#include "dp/lb/rare.h"
#include "dp/lb/work.h"

namespace lb {
namespace {

LB_INLINE void send_to(Work& work, std::uint32_t i, const abi::Target& target) {
  if ((target.flags & abi::kTargetClampsMss) != 0 && (work.tcp_flags[i] & net::kTcpSyn) != 0) [[unlikely]]
    clamp_mss_for(work, i, target);
  work.target[i] = &target;
  work.burst->out_port[i] = target.out_port;
  push(work.sent, i);
}

LB_INLINE void note(Work& work, std::uint32_t i, FlowResult flow, std::uint32_t group, std::uint32_t target) {
  work.burst->flow[i] = flow;
  work.burst->group[i] = group;
  work.burst->target[i] = target;
}

[[gnu::noinline]] bool insert_where_crowded(Work& work, const NewFlow& flow) {
  FlowTableState& table = work.options.flows->state();
  const std::uint64_t second = other_line(flow.first, flow.fingerprint, table.line_count);
  const std::uint32_t free = match(table.lines[second], 0);
  if (free != 0) {
    place(table, flow, second, lowest_bit(free));
    return true;
  }
  FlowChanges changes;
  const bool done = insert_crowded(table, *work.snapshot, flow, second, changes);
  count(work, abi::Counter::flow_evicted) += changes.evicted;
  count(work, abi::Counter::flow_expired) += changes.expired;
  count(work, abi::Counter::flow_moved_lines) += changes.moved;
  return done;
}

// Enters a flow that has no entry. False: there is no room for it.
LB_INLINE bool insert(Work& work, std::uint32_t i, std::uint32_t target, FlowState state) {
  FlowTableState& table = work.options.flows->state();
  const NewFlow flow{work.first[i], fingerprint_of(work.hash[i]), make_meta(target, state), work.tick};
  work.inserted = true;
  const std::uint32_t free = match(table.lines[flow.first], 0);
  if (free == 0) return insert_where_crowded(work, flow);
  place(table, flow, flow.first, lowest_bit(free));
  return true;
}

// A datagram of a per_packet group: it takes a slot of its own and leaves no entry.
[[gnu::noinline]] void send_alone(Work& work, std::uint32_t i, const Pick& picked) {
  const Pick alone = pick_alone(work, picked);
  note(work, i, FlowResult::none, alone.group, alone.target);
  work.burst->slot[i] = alone.slot;
  const abi::Target& target = work.snapshot->targets()[alone.target];
  if ((target.flags & abi::kTargetResolved) == 0) return drop(work, i, abi::DropReason::next_hop_unresolved);
  ++count(work, abi::Counter::per_packet);
  send_to(work, i, target);
}

// The packet goes by hash: with no entry yet, or with one (`slot`) that is to be pointed elsewhere.
[[gnu::noinline]] void send_by_hash(Work& work, std::uint32_t i, const FlowSlot& slot, const Pick& picked,
                                    Judgement judgement) {
  Burst& burst = *work.burst;
  burst.group[i] = picked.group;
  burst.slot[i] = picked.slot;
  burst.target[i] = picked.target;
  if (picked.reason != abi::DropReason::none) return drop(work, i, picked.reason);
  const abi::Algorithm algorithm = work.snapshot->groups()[picked.group].algorithm;
  if (algorithm == abi::Algorithm::per_packet && slot.line == nullptr && is_udp(judgement.next))
    return send_alone(work, i, picked);
  std::uint32_t id = picked.target;
  if (algorithm != abi::Algorithm::maglev && begins_flow(judgement.next, work.tcp_flags[i])) {
    id = choose_by_algorithm(work, picked);
  }
  burst.target[i] = id;
  if ((work.snapshot->targets()[id].flags & abi::kTargetResolved) == 0) {
    return drop(work, i, abi::DropReason::next_hop_unresolved);
  }
  count(work, abi::Counter::fail_open_flows) += work.snapshot->groups()[picked.group].fail_open;
  bool tracked = true;
  if (slot.line != nullptr) {
    repoint(work.options.flows->state(), slot, id, judgement.next, work.tick);
  } else {
    tracked = insert(work, i, id, judgement.next);
    if (!tracked) id = burst.target[i] = picked.target;  // its later packets go by Maglev
  }
  const abi::Target& target = work.snapshot->targets()[id];
  if ((target.flags & abi::kTargetResolved) == 0) return drop(work, i, abi::DropReason::next_hop_unresolved);
  burst.flow[i] = tracked ? FlowResult::fresh : FlowResult::none;
  if (!tracked && needs_entry(target.mode)) return refuse_untracked(work, i);
  if (!tracked) {
    ++count(work, abi::Counter::flow_untracked);
  } else if (judgement.fate == Fate::repick) {
    ++count(work, abi::Counter::flow_rehashed);
  } else {
    ++count(work, abi::Counter::flow_new);
    ++work.runs[work.run[i]].new_flows;
  }
  send_to(work, i, target);
}

LB_INLINE Pick pick_again(Work& work, std::uint32_t i) {
  const Snapshot& snapshot = *work.snapshot;
  return pick(snapshot, snapshot.listeners()[work.burst->listener[i]], packet_of(work, i).key,
              [&](const net::FlowKey& key) { return flow_hash_fast(snapshot.slot_keys(), key); });
}

LB_COLD bool drop_bad_flags(Work& work, std::uint32_t i) {
  const abi::DropReason fault = flags_fault(*work.snapshot, packet_of(work, i));
  if (fault != abi::DropReason::none) drop(work, i, fault);
  return fault != abi::DropReason::none;
}

// A datagram of a listener that has_quic goes where its connection ID says, whatever its flow's entry (`slot`, if it has
// one) or the hash say. False: its connection ID is unroutable. An entry with another target is that of a flow that had the
// same addresses and ports: it stays as it is while it is live, so that nobody moves flows by forged sources; but modes
// whose replies come back need it for this one.
[[gnu::noinline]] bool send_by_cid(Work& work, std::uint32_t i, const FlowSlot& slot) {
  const std::uint32_t id = target_by_cid(work, i);
  if (id == abi::kNoIndex) return false;
  const abi::Target& target = work.snapshot->targets()[id];
  note(work, i, FlowResult::none, target.group, id);
  if ((target.flags & abi::kTargetResolved) == 0) {
    drop(work, i, abi::DropReason::next_hop_unresolved);
    return true;
  }
  if (slot.line == nullptr) {
    const bool tracked = insert(work, i, id, FlowState::udp_fresh);
    if (!tracked && needs_entry(target.mode)) {
      refuse_untracked(work, i);
      return true;
    }
    ++count(work, tracked ? abi::Counter::flow_new : abi::Counter::flow_untracked);
    work.runs[work.run[i]].new_flows += tracked;
    if (tracked) work.burst->flow[i] = FlowResult::fresh;
  } else if (meta_target(slot.line->meta[slot.index]) == id) {
    ++count(work, abi::Counter::flow_hits);
    work.burst->flow[i] = FlowResult::hit;
    touch(slot, work.tick);
    set_state(slot, FlowState::udp);
  } else {
    const std::uint32_t limit = idle_limit_ticks(work.snapshot->groups()[target.group], FlowState::udp);
    if (needs_entry(target.mode) || idle_ticks(slot.line->key[slot.index], work.tick) >= limit) {
      repoint(work.options.flows->state(), slot, id, FlowState::udp_fresh, work.tick);
      work.burst->flow[i] = FlowResult::hit;
    }
  }
  send_to(work, i, target);
  return true;
}

LB_INLINE bool has_quic(const Work& work, std::uint32_t i) {
  return work.snapshot->listeners()[work.burst->listener[i]].has_quic != 0;
}

// An entry that is not plainly live, or a packet that changes it.
[[gnu::noinline]] void serve_entry(Work& work, std::uint32_t i, const FlowSlot& slot) {
  const Snapshot& snapshot = *work.snapshot;
  if (has_odd_flags(work.tcp_flags[i]) && drop_bad_flags(work, i)) [[unlikely]]
    return;
  const std::uint32_t meta = slot.line->meta[slot.index];
  const std::uint32_t id = meta_target(meta);
  const FlowState state = meta_state(meta);
  const std::uint32_t idle = idle_ticks(slot.line->key[slot.index], work.tick);
  if (idle >= work.unasked_ticks && refuse_by_security(work, i)) [[unlikely]] {
    erase(work.options.flows->state(), slot);
    work.inserted = true;
    return;
  }
  if (has_quic(work, i) && send_by_cid(work, i, slot)) return;
  Judgement judgement = judge(snapshot, snapshot.listeners()[work.burst->listener[i]], id, state, idle, work.tcp_flags[i]);
  if (judgement.fate == Fate::late && is_alive_elsewhere(work, work.hash[i])) {  // it has been on another queue meanwhile
    judgement = {Fate::forward, state_after(state, work.tcp_flags[i])};
  }
  if (judgement.fate == Fate::repick || judgement.fate == Fate::renew) {
    return send_by_hash(work, i, slot, pick_again(work, i), judgement);
  }
  const abi::Target& target = snapshot.targets()[id];
  note(work, i, FlowResult::hit, target.group, id);
  ++count(work, abi::Counter::flow_hits);
  if (judgement.fate == Fate::forward) {
    touch(slot, work.tick);
    note_repeated_syn(work, target, id, state, work.tcp_flags[i]);
    if (judgement.next != state) set_state(slot, judgement.next);
    if ((target.flags & abi::kTargetResolved) == 0) return drop(work, i, abi::DropReason::next_hop_unresolved);
    return send_to(work, i, target);
  }
  if (judgement.fate == Fate::late) {
    ++count(work, abi::Counter::flow_expired);
    erase(work.options.flows->state(), slot);
    work.inserted = true;
  } else {
    touch(slot, work.tick);
    if (state != FlowState::reset) ++count(work, abi::Counter::flow_reset);
    set_state(slot, FlowState::reset);
  }
  answer_with_reset(work, i, target);
}

// A packet of which this table knows nothing, but something else does (`known`). True: it is served, with an entry of its
// own here from now on.
[[gnu::noinline]] bool adopt(Work& work, std::uint32_t i, const std::optional<FlowView>& known) {
  const Snapshot& snapshot = *work.snapshot;
  if (!known) return false;
  const auto idle = static_cast<std::uint32_t>(known->idle_ns / kTickNs);
  const Judgement judgement =
      judge(snapshot, snapshot.listeners()[work.burst->listener[i]], known->target, known->state, idle, work.tcp_flags[i]);
  if (judgement.fate != Fate::forward && judgement.fate != Fate::reset) return false;
  const abi::Target& target = snapshot.targets()[known->target];
  note(work, i, FlowResult::hit, target.group, known->target);
  ++count(work, abi::Counter::flow_adopted);
  insert(work, i, known->target, judgement.next);
  if (judgement.fate == Fate::reset) {
    answer_with_reset(work, i, target);
  } else if ((target.flags & abi::kTargetResolved) == 0) {
    drop(work, i, abi::DropReason::next_hop_unresolved);
  } else {
    send_to(work, i, target);
  }
  return true;
}

// No entry when the flow stage looked. Another packet of this burst may have made one since.
[[gnu::noinline]] void serve_without_entry(Work& work, std::uint32_t i, bool has_pick) {
  if (work.inserted) {
    const FlowSlot slot = find(work.options.flows->state(), work.first[i], fingerprint_of(work.hash[i]));
    if (slot.line != nullptr) return serve_entry(work, i, slot);
  }
  if (has_odd_flags(work.tcp_flags[i]) && drop_bad_flags(work, i)) [[unlikely]]
    return;
  const bool guarded = work.snapshot->listeners()[work.burst->listener[i]].guards != 0;
  if (guarded && refuse_new_flow(work, i)) return;
  const net::ParsedPacket& packet = packet_of(work, i);
  const bool udp = packet.protocol != kTcp;  // or, for a gateway listener, another protocol without connections
  // The other direction of a gateway listener's flow may come on another queue.
  const bool either_way = work.snapshot->listeners()[work.burst->listener[i]].protocol == abi::kAllProtocols;
  const bool under_way = either_way || (udp ? is_first_fragment(work, i) : !is_opening(packet.tcp_flags));
  if (has_quic(work, i) && send_by_cid(work, i, {})) {
    if (guarded) note_new_flow(work, i);
    return;
  }
  // A fullnat flow has its translation, which may outlive its entry.
  if (!work.snapshot->snat_addresses().empty() && adopt(work, i, translated_flow(work, i))) return;
  // Its flow may have moved here from another worker's queue (DESIGN rule 5), or fragments come on another than whole
  // packets.
  if (under_way && work.options.tables.size() > 1 && adopt(work, i, find_elsewhere(work, work.hash[i]))) return;
  send_by_hash(work, i, {}, has_pick ? work.picked[i] : pick_again(work, i),
               {Fate::renew, first_state(udp, packet.tcp_flags)});
  if (guarded) note_new_flow(work, i);
}

}  // namespace
}  // namespace lb
