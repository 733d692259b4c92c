// LB_MARCH names the instruction set this file is being compiled for (meson.build). Everything here has internal linkage but
// the table of functions at the end.
#include "dp/lb/kernel.h"

#include "dp/lb/answer.h"
#include "dp/lb/decide.h"
#include "dp/lb/flow_hash_ops.h"
#include "dp/lb/flow_ops.h"
#include "dp/lb/forward_ops.h"
#include "dp/lb/vip_table.h"
#include "dp/net/parse.h"

namespace lb {
namespace {

// ---- parse, and where to look

// What is not a whole TCP or UDP packet: the kernel's, unless it is for a VIP.
LB_COLD void take_unusual(Work& work, std::uint32_t i, net::ParseStatus status) {
  if (status.result == net::ParseResult::not_ip) return punt(work, i, abi::DropReason::not_ip);
  if (status.result == net::ParseResult::drop) return drop(work, i, status.reason);
  const net::FlowKey& key = work.parsed[i].key;
  const auto icmp = static_cast<std::uint8_t>(key.is_v6 != 0 ? abi::Protocol::icmpv6 : abi::Protocol::icmp);
  if (work.parsed[i].protocol == icmp || !is_vip(vip_table_of(*work.snapshot), key.destination)) {
    return punt(work, i, abi::DropReason::punt_failed);
  }
  drop(work, i, status.reason == abi::DropReason::fragment ? abi::DropReason::fragment : abi::DropReason::no_listener);
}

// Where the packet's flow would stand is asked from memory at once.
LB_INLINE void look_ahead(Work& work, const FlowTableState& table, std::uint32_t i, const Hash128& hash,
                          std::uint8_t tcp_flags) {
  work.hash[i] = hash;
  work.first[i] = first_line(hash, table.line_count);
  work.tcp_flags[i] = tcp_flags;
  prefetch(&table.lines[work.first[i]]);
  prefetch_for_write(work.burst->data[i] - 1);  // where the outer header goes
  push(work.whole, i);
}

[[gnu::noinline]] void take_any(Work& work, std::uint32_t i) {
  const Burst& burst = *work.burst;
  work.form[i] = Form::parsed;
  const net::ParseStatus status =
      net::parse_inline(burst.data[i], burst.length[i], !burst.ip_checksum_checked, work.parsed[i]);
  if (status.result != net::ParseResult::ok) return take_unusual(work, i, status);
  const net::ParsedPacket& packet = work.parsed[i];
  const VipTable vips = vip_table_of(*work.snapshot);
  work.vip_hash[i] = vip_hash(packet.key);
  prefetch(&vips.cells[work.vip_hash[i] & vips.mask]);
  look_ahead(work, work.options.flows->state(), i, flow_hash_fast(work.options.flows->hash_keys(), packet.key),
             packet.tcp_flags);
}

void stage_parse(Work& work) {
  const Burst& burst = *work.burst;
  const FlowTableState table = work.options.flows->state();
  const HashKeys& keys = work.options.flows->hash_keys();
  const VipTable vips = vip_table_of(*work.snapshot);
  const bool checked = burst.ip_checksum_checked;
  const std::uint32_t packets = burst.count;
  std::uint64_t bytes = 0;
  PlainVipKey last;  // neighbours often go to one listener
  std::uint32_t last_hash = 0;
  for (std::uint32_t i = 0; i < packets; ++i) prefetch(burst.data[i]);
  for (std::uint32_t i = 0; i < packets; ++i) {
    const std::uint8_t* frame = burst.data[i];
    const std::uint32_t length = burst.length[i];
    bytes += length;
    work.rx_bytes[i] = length;
    if (!is_plain_frame(frame, length) || (!checked && net::checksum_fold(net::ipv4_header_sum(frame + kPlainIp)) != 0xffff))
        [[unlikely]] {
      take_any(work, i);
      continue;
    }
    work.form[i] = Form::plain;
    const PlainVipKey vip = plain_vip_key(frame);
    if (vip.low != last.low || vip.rest != last.rest) {
      last = vip;
      last_hash = vip_hash(0, vip.low, static_cast<std::uint8_t>(vip.rest >> 16), static_cast<std::uint16_t>(vip.rest));
      prefetch(&vips.cells[last_hash & vips.mask]);
    }
    work.vip_hash[i] = last_hash;
    const auto addresses = load<std::uint64_t>(frame + kPlainIp + net::kIpv4SourceAt);
    const std::uint64_t rest = load<std::uint32_t>(frame + kPlainL4) | std::uint64_t{plain_protocol(frame)} << 32;
    look_ahead(work, table, i, hash_v4(keys, addresses, rest), plain_tcp_flags(frame));
  }
  count(work, abi::Counter::rx_packets) += packets;
  count(work, abi::Counter::rx_bytes) += bytes;
}

// ---- vip

// The listener of a plain frame: the cell that answered last, or the first one of its probe, or as for any other packet.
LB_INLINE std::uint32_t listener_of_plain(Work& work, const VipTable& vips, std::uint32_t i, const abi::VipCell*& last) {
  const PlainVipKey vip = plain_vip_key(work.burst->data[i]);
  if (is_exact(*last, 0, vip.low, vip.rest)) return last->index;
  const abi::VipCell* cell = &vips.cells[work.vip_hash[i] & vips.mask];
  if (!is_exact(*cell, 0, vip.low, vip.rest)) {
    return find_listener(*work.snapshot, vips, packet_of(work, i).key, work.vip_hash[i]);
  }
  last = cell;
  return cell->index;
}

LB_INLINE bool has_bad_source(Work& work, std::uint32_t i) {
  if (work.form[i] != Form::parsed && !is_suspicious_source(work.burst->data[i])) return false;
  return net::is_bad_source(packet_of(work, i).key);
}

void stage_vip(Work& work) {
  Burst& burst = *work.burst;
  const Snapshot& snapshot = *work.snapshot;
  const VipTable vips = vip_table_of(snapshot);
  const abi::VipCell* last = vips.cells;
  std::uint32_t last_listener = kNoListener;
  for (std::uint32_t n = 0; n < work.whole.count; ++n) {
    const std::uint32_t i = work.whole.at[n];
    const bool plain = work.form[i] != Form::parsed;
    const std::uint32_t listener =
        plain ? listener_of_plain(work, vips, i, last) : find_listener(snapshot, vips, work.parsed[i].key, work.vip_hash[i]);
    if (listener >= kNoListener) [[unlikely]] {
      listener == kNotVip ? punt(work, i, abi::DropReason::punt_failed) : drop(work, i, abi::DropReason::no_listener);
      continue;
    }
    if (listener != last_listener) prefetch(&snapshot.listeners()[listener]);
    last_listener = listener;
    burst.listener[i] = listener;
    push(work.listed, i);
    const std::uint8_t ttl = plain ? burst.data[i][kPlainIp + net::kIpv4TtlAt] : work.parsed[i].ttl;
    if (ttl <= 1) [[unlikely]] {
      drop(work, i, abi::DropReason::ttl_expired);
    } else if (has_bad_source(work, i)) [[unlikely]] {
      drop(work, i, abi::DropReason::bad_source);
    } else {
      push(work.served, i);
    }
  }
}

// ---- flow

void stage_flow(Work& work) {
  const FlowTableState& table = work.options.flows->state();
  const abi::Target* targets = work.snapshot->targets().data();
  Lane elsewhere;
  for (std::uint32_t n = 0; n < work.served.count; ++n) {
    const std::uint32_t i = work.served.at[n];
    abi::FlowLine* line = &table.lines[work.first[i]];
    const std::uint64_t fingerprint = fingerprint_of(work.hash[i]);
    const FlowSlot slot = find_in(line, fingerprint);
    work.slot[i] = slot;
    if (slot.line != nullptr) [[likely]] {
      prefetch(&targets[meta_target(line->meta[slot.index])]);
    } else if (line->overflow != 0 || match(*line, 0) == 0) {  // it may be there, or have to go there
      prefetch(&table.lines[other_line(work.first[i], fingerprint, table.line_count)]);
      push(elsewhere, i);
    } else {
      push(work.missed, i);
    }
  }
  for (std::uint32_t n = 0; n < elsewhere.count; ++n) {
    const std::uint32_t i = elsewhere.at[n];
    const std::uint64_t fingerprint = fingerprint_of(work.hash[i]);
    const FlowSlot slot = find_in(&table.lines[other_line(work.first[i], fingerprint, table.line_count)], fingerprint);
    work.slot[i] = slot;
    if (slot.line != nullptr) {
      prefetch(&targets[meta_target(slot.line->meta[slot.index])]);
    } else {
      push(work.missed, i);
    }
  }
}

// ---- pick: group and slot of packets without an entry

void stage_pick(Work& work) {
  const Snapshot& snapshot = *work.snapshot;
  const HashKeys& keys = snapshot.slot_keys();
  for (std::uint32_t n = 0; n < work.missed.count; ++n) packet_of(work, work.missed.at[n]);
  for (std::uint32_t n = 0; n < work.missed.count; ++n) {
    const std::uint32_t i = work.missed.at[n];
    const Pick picked = pick_slot(snapshot, snapshot.listeners()[work.burst->listener[i]], packet_of(work, i).key,
                                  [&](const net::FlowKey& key) { return flow_hash_fast(keys, key); });
    if (picked.reason == abi::DropReason::none) prefetch(snapshot.slots(picked.group) + picked.slot);
    work.picked[i] = picked;
  }
  for (std::uint32_t n = 0; n < work.missed.count; ++n) {
    Pick& picked = work.picked[work.missed.at[n]];
    picked.target = target_in_slot(snapshot, picked);
    if (picked.reason == abi::DropReason::none) prefetch(&snapshot.targets()[picked.target]);
  }
}

// ---- decide

LB_INLINE void send_to(Work& work, std::uint32_t i, const abi::Target& target) {
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

// The packet goes by hash: with no entry yet, or with one (`slot`) that is to be pointed elsewhere.
[[gnu::noinline]] void send_by_hash(Work& work, std::uint32_t i, const FlowSlot& slot, const Pick& picked,
                                    Judgement judgement) {
  Burst& burst = *work.burst;
  burst.group[i] = picked.group;
  burst.slot[i] = picked.slot;
  burst.target[i] = picked.target;
  if (picked.reason != abi::DropReason::none) return drop(work, i, picked.reason);
  const abi::Target& target = work.snapshot->targets()[picked.target];
  if ((target.flags & abi::kTargetResolved) == 0) return drop(work, i, abi::DropReason::next_hop_unresolved);
  count(work, abi::Counter::fail_open_flows) += work.snapshot->groups()[picked.group].fail_open;
  bool tracked = true;
  if (slot.line != nullptr) {
    repoint(work.options.flows->state(), slot, picked.target, judgement.next, work.tick);
  } else {
    tracked = insert(work, i, picked.target, judgement.next);
  }
  burst.flow[i] = tracked ? FlowResult::fresh : FlowResult::none;
  if (!tracked) {
    ++count(work, abi::Counter::flow_untracked);
  } else if (judgement.fate == Fate::repick) {
    ++count(work, abi::Counter::flow_rehashed);
  } else {
    ++count(work, abi::Counter::flow_new);
    abi::ListenerStats& stats = work.options.listener_stats[work.snapshot->listeners()[burst.listener[i]].counter_index];
    put(stats.new_flows, stats.new_flows + 1);
  }
  send_to(work, i, target);
}

LB_INLINE Pick pick_again(Work& work, std::uint32_t i) {
  const Snapshot& snapshot = *work.snapshot;
  return pick(snapshot, snapshot.listeners()[work.burst->listener[i]], packet_of(work, i).key,
              [&](const net::FlowKey& key) { return flow_hash_fast(snapshot.slot_keys(), key); });
}

// An entry that is not plainly live, or a packet that changes it.
[[gnu::noinline]] void serve_entry(Work& work, std::uint32_t i, const FlowSlot& slot) {
  const Snapshot& snapshot = *work.snapshot;
  const std::uint32_t meta = slot.line->meta[slot.index];
  const std::uint32_t id = meta_target(meta);
  const FlowState state = meta_state(meta);
  const std::uint32_t idle = idle_ticks(slot.line->key[slot.index], work.tick);
  const Judgement judgement =
      judge(snapshot, snapshot.listeners()[work.burst->listener[i]], id, state, idle, work.tcp_flags[i]);
  if (judgement.fate == Fate::repick || judgement.fate == Fate::renew) {
    return send_by_hash(work, i, slot, pick_again(work, i), judgement);
  }
  const abi::Target& target = snapshot.targets()[id];
  note(work, i, FlowResult::hit, target.group, id);
  ++count(work, abi::Counter::flow_hits);
  if (judgement.fate == Fate::forward) {
    touch(slot, work.tick);
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

// No entry when the flow stage looked. Another packet of this burst may have made one since.
[[gnu::noinline]] void serve_without_entry(Work& work, std::uint32_t i, bool has_pick) {
  if (work.inserted) {
    const FlowSlot slot = find(work.options.flows->state(), work.first[i], fingerprint_of(work.hash[i]));
    if (slot.line != nullptr) return serve_entry(work, i, slot);
  }
  const net::ParsedPacket& packet = packet_of(work, i);
  const bool udp = packet.protocol == static_cast<std::uint8_t>(abi::Protocol::udp);
  send_by_hash(work, i, {}, has_pick ? work.picked[i] : pick_again(work, i),
               {Fate::renew, first_state(udp, packet.tcp_flags)});
}

inline constexpr std::uint32_t kPlainStates =
    1U << static_cast<std::uint32_t>(FlowState::assumed) | 1U << static_cast<std::uint32_t>(FlowState::udp);

// The common hit: a live, proven flow to a target in good order, and a packet that changes nothing. judge() says `forward`
// and the same state for all of these (a test walks through them).
LB_INLINE bool is_plain(const abi::Target& target, const abi::Listener& listener, std::uint32_t meta, std::uint32_t idle,
                        std::uint8_t tcp_flags) {
  static_assert(offsetof(abi::Target, tracked) == offsetof(abi::Target, flags) + 1 &&
                abi::TrackedFlows::keep == abi::TrackedFlows{});
  constexpr std::uint16_t kUsable = abi::kTargetLive | abi::kTargetResolved;  // and in the byte above it, tracked: keep
  const std::uint32_t state = kPlainStates >> (meta >> 20 & 0xf) & 1;
  const std::uint32_t flags = tcp_flags & (net::kTcpFin | net::kTcpSyn | net::kTcpRst);
  const bool usable = (load<std::uint16_t>(&target.flags) & (0xff00 | kUsable)) == kUsable;
  return (static_cast<unsigned>(usable) & state & static_cast<unsigned>(flags == 0) &
          static_cast<unsigned>(listener.groups[0].group == target.group) &
          static_cast<unsigned>(idle < kMinIdleLimitTicks)) != 0;
}

void stage_decide(Work& work) {
  const auto targets = work.snapshot->targets();
  const abi::Listener* listeners = work.snapshot->listeners().data();
  std::uint64_t hits = 0;
  for (std::uint32_t n = 0; n < work.served.count; ++n) {
    const std::uint32_t i = work.served.at[n];
    FlowSlot slot = work.slot[i];
    if (slot.line == nullptr) {
      serve_without_entry(work, i, true);
      continue;
    }
    const std::uint64_t key = slot.line->key[slot.index];
    if (((key ^ fingerprint_of(work.hash[i])) & ~kTickMask) != 0) [[unlikely]] {
      serve_without_entry(work, i, false);  // moved or evicted by an earlier packet of this burst
      continue;
    }
    const std::uint32_t meta = slot.line->meta[slot.index];
    const std::uint32_t id = meta_target(meta);
    if (id < targets.size() && is_plain(targets[id], listeners[work.burst->listener[i]], meta, idle_ticks(key, work.tick),
                                        work.tcp_flags[i])) [[likely]] {
      ++hits;
      touch(slot, work.tick);
      prefetch_for_write(&work.options.listener_stats[listeners[work.burst->listener[i]].counter_index]);
      note(work, i, FlowResult::hit, targets[id].group, id);
      send_to(work, i, targets[id]);
    } else {
      serve_entry(work, i, slot);
    }
  }
  count(work, abi::Counter::flow_hits) += hits;
}

// ---- rewrite

// Out of the common case: tags, IPv6 inside, or something does not fit.
[[gnu::noinline]] bool forward_any(Work& work, std::uint32_t i) {
  Burst& burst = *work.burst;
  const abi::Target& target = *work.target[i];
  const OutFrame out =
      forward(*work.snapshot, target, packet_of(work, i), work.hash[i], burst.data[i], burst.length[i], burst.headroom[i]);
  if (out.reason == abi::DropReason::none) {
    burst.data[i] = out.data;
    burst.length[i] = out.length;
    return true;
  }
  if (out.reason == abi::DropReason::too_big) {
    answer_too_big(work, i, target);
  } else {
    drop(work, i, out.reason);
  }
  return false;
}

void stage_rewrite(Work& work) {
  Burst& burst = *work.burst;
  const PlainSources sources = plain_sources(*work.snapshot);
  const std::uint32_t packets = work.sent.count;
  std::uint64_t forwarded = 0;
  for (std::uint32_t n = 0; n < packets; ++n) {
    const std::uint32_t i = work.sent.at[n];
    const bool sent = work.form[i] != Form::parsed && forward_plain(*work.target[i], work.hash[i], sources,
                                                                    burst.headroom[i], burst.data[i], burst.length[i]);
    if (sent || forward_any(work, i)) [[likely]] {
      burst.verdict[i] = Verdict::tx;
      ++forwarded;
    }
  }
  count(work, abi::Counter::forwarded_packets) += forwarded;
}

// ---- count

LB_INLINE void add(std::uint64_t& word, std::uint64_t value) {
  put(word, word + value);
}

void flush_counts(Work& work) {
  for (std::size_t c = 0; c < abi::kCounterCount; ++c) {
    if (work.counts[c] == 0) continue;
    add(work.options.stats->counters[c], work.counts[c]);
    work.counts[c] = 0;
  }
  put(work.options.stats->flows, work.options.flows->flows());
}

// Neighbours in a burst are often of one listener: its block is written once for each run of them.
void stage_count(Work& work) {
  const Burst& burst = *work.burst;
  const abi::Listener* listeners = work.snapshot->listeners().data();
  for (std::uint32_t n = 0; n < work.listed.count;) {
    const std::uint32_t listener = burst.listener[work.listed.at[n]];
    abi::ListenerStats run;
    for (; n < work.listed.count && burst.listener[work.listed.at[n]] == listener; ++n) {
      const std::uint32_t i = work.listed.at[n];
      ++run.packets;
      run.bytes += work.rx_bytes[i];
      run.dropped_packets += burst.verdict[i] == Verdict::tx ? 0 : 1;
    }
    abi::ListenerStats& stats = work.options.listener_stats[listeners[listener].counter_index];
    add(stats.packets, run.packets);
    add(stats.bytes, run.bytes);
    if (run.dropped_packets != 0) add(stats.dropped_packets, run.dropped_packets);
  }
  flush_counts(work);
}

template <typename T>
LB_INLINE void fill(std::array<T, kBurst>& all, T value) {
  for (std::uint32_t i = 0; i < kBurst; ++i) all[i] = value;
}

void begin(Work& work) {
  Burst& burst = *work.burst;
  work.whole.count = work.listed.count = work.served.count = work.missed.count = work.sent.count = 0;
  work.inserted = false;
  fill(burst.reason, abi::DropReason::none);
  fill(burst.flow, FlowResult::none);
  fill(burst.listener, abi::kNoIndex);
  fill(burst.group, abi::kNoIndex);
  fill(burst.target, abi::kNoIndex);
  fill(burst.slot, abi::kNoIndex);
}

void process(Work& work) {
  begin(work);
  stage_parse(work);
  stage_vip(work);
  stage_flow(work);
  stage_pick(work);
  stage_decide(work);
  stage_rewrite(work);
  stage_count(work);
}

// ---- sweep

// An entry that the sweep may find over: idle for some time, or any while targets are to lose their flows.
LB_INLINE bool is_due(Work& work, const abi::FlowLine& line, std::uint32_t i) {
  const std::uint32_t meta = line.meta[i];
  const FlowState state = meta_state(meta);
  const abi::Target* target = live_target(*work.snapshot, meta_target(meta));
  const bool to_forget = target == nullptr || target->tracked == abi::TrackedFlows::rehash ||
                         (target->tracked == abi::TrackedFlows::reset && is_udp(state));
  if (to_forget) {
    ++count(work, abi::Counter::flow_rehashed);
    return true;
  }
  const std::uint32_t idle = idle_ticks(line.key[i], work.tick);
  if (idle < kMinIdleLimitTicks || idle < sweep_limit_ticks(work.snapshot->groups()[target->group], state)) return false;
  ++count(work, abi::Counter::flow_expired);
  return true;
}

void sweep(Work& work, std::uint32_t lines) {
  FlowTableState& table = work.options.flows->state();
  const bool look_at_all = work.snapshot->forgets_flows();
  for (std::uint64_t n = lines < table.line_count ? lines : table.line_count; n > 0; --n) {
    abi::FlowLine& line = table.lines[table.sweep_line];
    for (std::uint32_t i = 0; i < abi::kFlowsPerLine; ++i) {
      const bool idle = idle_ticks(line.key[i], work.tick) >= kMinIdleLimitTicks;
      if (line.key[i] != 0 && (idle || look_at_all) && is_due(work, line, i)) erase(table, {&line, i});
    }
    table.sweep_line = table.sweep_line + 1 == table.line_count ? 0 : table.sweep_line + 1;
  }
  flush_counts(work);
}

Hash128 hash_one(const HashKeys& keys, const net::FlowKey& key) {
  return flow_hash_fast(keys, key);
}

bool supported() {
  __builtin_cpu_init();
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("aes");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("fma") && __builtin_cpu_supports("aes");
#else
  return true;
#endif
}

}  // namespace

extern const Kernel LB_KERNEL;
const Kernel LB_KERNEL = {
    .name = LB_MARCH,
    .supported = supported,
    .process = process,
    .begin = begin,
    .stages = {stage_parse, stage_vip, stage_flow, stage_pick, stage_decide, stage_rewrite, stage_count},
    .sweep = sweep,
    .hash = hash_one,
};

}  // namespace lb
