// LB_MARCH names the instruction set this file is being compiled for (meson.build). Everything here has internal linkage but
// the table of functions at the end.
#include "dp/lb/kernel.h"

#include <cpuid.h>

#include "dp/lb/answer.h"
#include "dp/lb/decide.h"
#include "dp/lb/flow_hash_ops.h"
#include "dp/lb/flow_ops.h"
#include "dp/lb/forward_ops.h"
#include "dp/lb/fullnat.h"
#include "dp/lb/gateway.h"
#include "dp/lb/guard_hygiene.h"
#include "dp/lb/guard_security.h"
#include "dp/lb/hit_ops.h"
#include "dp/lb/nat.h"
#include "dp/lb/outer_fragments.h"
#include "dp/lb/own_outer.h"
#include "dp/lb/rare.h"
#include "dp/lb/serve_ops.h"
#include "dp/lb/sweep_ops.h"
#include "dp/lb/vip_table.h"
#include "dp/net/parse.h"

namespace lb {
namespace {

// ---- parse, and where to look

template <typename T>
LB_INLINE void fill(std::array<T, kBurst>& all, T value) {
  for (std::uint32_t i = 0; i < kBurst; ++i) all[i] = value;
}

// What is not a whole TCP or UDP packet: the kernel's, unless it is for a VIP.
LB_COLD void end_unusual(Work& work, std::uint32_t i, net::ParseStatus status) {
  if (status.result == net::ParseResult::not_ip) return punt(work, i, abi::DropReason::not_ip);
  if (status.result == net::ParseResult::drop) return drop(work, i, status.reason);
  const net::FlowKey& key = work.parsed[i].key;
  const auto icmp = static_cast<std::uint8_t>(key.is_v6 != 0 ? abi::Protocol::icmpv6 : abi::Protocol::icmp);
  if (!is_vip(vip_table_of(*work.snapshot), key.destination)) {
    if (is_own_outer(*work.snapshot, work.parsed[i])) return drop(work, i, abi::DropReason::own_outer);
    return work.parsed[i].protocol == icmp ? take_return_error(work, i) : punt(work, i, abi::DropReason::punt_failed);
  }
  const abi::DropReason fault = unusual_fault(*work.snapshot, work.parsed[i], work.burst->data[i]);
  if (fault != abi::DropReason::none) return drop(work, i, fault);
  if (work.parsed[i].protocol == icmp) return push(work.rare, i);
  drop_unlistened(work, i);
}

// True: a first fragment, to be served like the whole packet; its key is complete.
LB_COLD bool take_unusual(Work& work, std::uint32_t i, net::ParseStatus status) {
  if (const auto served = take_for_gateway(work, i, status)) return *served;
  if (status.reason == abi::DropReason::fragment && is_vip(vip_table_of(*work.snapshot), work.parsed[i].key.destination)) {
    return take_fragment(work, i);
  }
  end_unusual(work, i, status);
  return false;
}

// Tells one run of neighbours from the next.
LB_INLINE std::uint8_t begin_run(Work& work, const VipTable& vips, std::uint32_t hash) {
  Run& run = work.runs[work.run_count];
  run.vip_hash = hash;
  run.packets = 0;
  run.new_flows = 0;
  run.bytes = 0;
  prefetch(&vips.cells[hash & vips.mask]);
  return static_cast<std::uint8_t>(work.run_count++);
}

[[gnu::noinline]] void take_any(Work& work, std::uint32_t i) {
  const Burst& burst = *work.burst;
  work.general |= std::uint64_t{1} << i;
  work.form[i] = Form::parsed;
  work.run[i] = kNoRun;
  const net::ParseStatus status =
      net::parse_inline(burst.data[i], burst.length[i], !burst.ip_checksum_checked, work.parsed[i]);
  if (status.result != net::ParseResult::ok && !take_unusual(work, i, status)) return;
  const net::ParsedPacket& packet = work.parsed[i];
  work.run[i] = begin_run(work, vip_table_of(*work.snapshot), vip_hash(packet.key));
  work.tcp_flags[i] = packet.protocol == kTcp ? packet.tcp_flags : net::kTcpAck;
  push(work.uncommon, i);
}

LB_INLINE void ask_for_frames(const Burst& burst) {
  for (std::uint32_t i = 0; i < burst.count; ++i) prefetch(burst.data[i]);
}

// Reads the frames and hashes the flows, and asks for all that the next stages read.
LB_INLINE void parse(Work& work) {
  const Burst& burst = *work.burst;
  const VipTable vips = vip_table_of(*work.snapshot);
  const bool checked = burst.ip_checksum_checked;
  const std::uint32_t packets = burst.count;
  std::uint64_t bytes = 0;
  __m128i last = _mm_setzero_si128();
  std::uint8_t run = kNoRun;
  for (std::uint32_t i = 0; i < packets; ++i) {
    const std::uint8_t* frame = burst.data[i];
    const std::uint32_t length = burst.length[i];
    bytes += length;
    if (length < kPlainBytes || !is_servable_frame(frame, length) ||
        (!checked && net::checksum_fold(net::ipv4_header_sum(frame + kPlainIp)) != 0xffff)) [[unlikely]] {
      take_any(work, i);
      continue;
    }
    const __m128i tuple = plain_tuple(frame);
    if (!is_same_listener(tuple, last)) {
      last = tuple;
      const PlainVipKey vip = plain_vip_key(frame);
      run = begin_run(work, vips, vip_hash(0, vip.low, plain_protocol(frame), static_cast<std::uint16_t>(vip.rest)));
    }
    _mm_store_si128(reinterpret_cast<__m128i*>(&work.tuple[i]), tuple);
    work.run[i] = run;
    work.tcp_flags[i] = plain_path_flags(frame);
  }
  work.bytes = bytes;
  const HashKeys& keys = work.options.flows->hash_keys();
  hash_v4_burst(keys, work.tuple.data(), work.hash.data(), packets);
  for (std::uint32_t n = 0; n < work.uncommon.count; ++n) {
    const std::uint32_t i = work.uncommon.at[n];
    work.hash[i] = flow_hash_fast(keys, work.parsed[i].key);
  }
  const FlowTableState table = work.options.flows->state();
  for (std::uint32_t i = 0; i < packets; ++i) {
    work.first[i] = first_line(work.hash[i], table.line_count);
    prefetch(&table.lines[work.first[i]]);
    prefetch_for_write(burst.data[i] - 1);  // where the outer header goes
  }
}

// ---- vip

// Finds the listener of the run that packet `i` begins. False: the packet goes no further, and the next one has to ask
// again.
[[gnu::noinline]] bool enter_run(Work& work, const VipTable& vips, std::uint32_t i) {
  const Snapshot& snapshot = *work.snapshot;
  Run& run = work.runs[work.run[i]];
  const net::FlowKey& key = packet_of(work, i).key;
  run.listener = find_listener(snapshot, vips, key, run.vip_hash);
  if (run.listener >= kNoListener) run.listener = find_gateway(work, i, run.listener);
  if (run.listener >= kNoListener) {
    run.listener == kNotVip ? take_return(work, i) : drop_unlistened(work, i);
    return false;
  }
  const abi::Listener& listener = snapshot.listeners()[run.listener];
  run.group = abi::first_group_of(listener);
  run.counter_index = listener.counter_index;
  return true;
}

// The same for the common case: the first cell of its probe answers for a plain frame, and tells all that a hit needs.
LB_INLINE bool enter_plain_run(Work& work, const VipTable& vips, std::uint32_t i, Run& run) {
  const PlainVipKey vip = plain_vip_key(work.burst->data[i]);
  const abi::VipCell& cell = vips.cells[run.vip_hash & vips.mask];
  if (!is_exact(cell, 0, vip.low, vip.rest)) return false;
  run.listener = cell.index;
  run.group = cell.first_group;
  run.counter_index = cell.counter_index;
  return true;
}

// A frame that was parsed in general: what a plain one has been asked already.
[[gnu::noinline]] bool may_go_on(Work& work, std::uint32_t i) {
  if (work.parsed[i].ttl <= 1) {
    drop(work, i, abi::DropReason::ttl_expired);
    return false;
  }
  if (!has_odd_header(work.parsed[i])) return true;
  const abi::DropReason fault = header_fault(*work.snapshot, work.parsed[i], work.burst->data[i]);
  if (fault != abi::DropReason::none) drop(work, i, fault);
  return fault == abi::DropReason::none;
}

LB_INLINE void count_run(Work& work, std::uint32_t run, std::uint32_t packets, std::uint64_t bytes) {
  work.runs[run].packets += packets;
  work.runs[run].bytes += bytes;
}

// Packet i begins a run, or asks again. False: it has come to its end.
LB_INLINE bool enter(Work& work, const VipTable& vips, std::uint32_t i) {
  Burst& burst = *work.burst;
  Run& run = work.runs[work.run[i]];
  const bool parsed = work.form[i] == Form::parsed;
  if ((parsed || !enter_plain_run(work, vips, i, run)) && !enter_run(work, vips, i)) return false;
  prefetch_for_write(&work.options.listener_stats[run.counter_index]);
  if (!parsed || may_go_on(work, i)) return true;
  burst.listener[i] = run.listener;
  count_run(work, work.run[i], 1, burst.length[i]);
  return false;
}

// Every frame that was parsed in general is a run of its own: what is asked where a run begins, all of them are asked.
void find_listeners(Work& work) {
  Burst& burst = *work.burst;
  const VipTable vips = vip_table_of(*work.snapshot);
  const std::uint32_t packets = burst.count;
  constexpr std::uint32_t kAskAgain = kNoRun + 1U;  // equal to no packet's run
  std::uint32_t last = kAskAgain;
  std::uint32_t in_run = 0;
  std::uint64_t bytes = 0;
  std::uint32_t listener = 0;
  std::uint32_t group = 0;
  for (std::uint32_t i = 0; i < packets; ++i) {
    if (work.run[i] != last) {
      if (in_run != 0) count_run(work, last, in_run, bytes);
      in_run = 0;
      bytes = 0;
      last = kAskAgain;
      if (work.run[i] == kNoRun) continue;
      if (!enter(work, vips, i)) {
        work.run[i] = kNoRun;
        continue;
      }
      last = work.run[i];
      listener = work.runs[last].listener;
      group = work.runs[last].group;
    }
    ++in_run;
    bytes += burst.length[i];
    burst.listener[i] = listener;
    burst.group[i] = group;
  }
  if (in_run != 0) count_run(work, last, in_run, bytes);
}

// The same where all packets are plain and neighbours. False: it was not that simple.
LB_INLINE bool find_the_listener(Work& work) {
  if (work.general != 0 || work.run_count != 1 || !enter_plain_run(work, vip_table_of(*work.snapshot), 0, work.runs[0]))
    return false;
  const Run& run = work.runs[0];
  prefetch_for_write(&work.options.listener_stats[run.counter_index]);
  fill(work.burst->listener, run.listener);
  fill(work.burst->group, run.group);
  count_run(work, 0, work.burst->count, work.bytes);
  return true;
}

void stage_vip(Work& work) {
  if (!find_the_listener(work)) find_listeners(work);
  if ((work.snapshot->root().hygiene & abi::kHygieneEveryPacket) != 0) [[unlikely]]
    guard_every_packet(work);
}

// ---- pick: group and slot of packets without an entry

void stage_pick(Work& work) {
  const std::uint32_t missed = work.missed.count;
  if (missed == 0) return;
  const Snapshot& snapshot = *work.snapshot;
  const FlowTableState& table = work.options.flows->state();
  const HashKeys& keys = snapshot.slot_keys();
  alignas(abi::kCacheLineBytes) std::array<PlainTuple, kBurst> tuples;
  alignas(abi::kCacheLineBytes) std::array<Hash128, kBurst> hashes;
  for (std::uint32_t n = 0; n < missed; ++n) tuples[n] = work.tuple[work.missed.at[n]];
  hash_v4_burst(keys, tuples.data(), hashes.data(), missed);
  for (std::uint32_t n = 0; n < missed; ++n) {
    const std::uint32_t i = work.missed.at[n];
    const abi::Listener& listener = snapshot.listeners()[work.burst->listener[i]];
    Pick& picked = work.picked[i];
    if (work.form[i] == Form::plain && pick_slot_plain(snapshot, listener, hashes[n], picked)) [[likely]] {
      work.ready |= std::uint64_t{1} << i;
    } else {
      picked = pick_slot(snapshot, listener, packet_of(work, i).key,
                         [&](const net::FlowKey& key) { return flow_hash_fast(keys, key); });
    }
    if (picked.reason == abi::DropReason::none) prefetch(snapshot.slots(picked.group) + picked.slot);
  }
  for (std::uint32_t n = 0; n < missed; ++n) {
    const std::uint32_t i = work.missed.at[n];
    Pick& picked = work.picked[i];
    picked.target = target_in_slot(snapshot, picked);
    if (picked.reason == abi::DropReason::none) prefetch(&snapshot.targets()[picked.target]);
    const Place place = choose_place(table, work.first[i], work.second[i], work.hash[i].high, work.tick);
    work.place[i] = place;
    if (place.room != Room::unproven) continue;
    const std::uint32_t meta = place.slot.line->meta[place.slot.index];
    if ((meta & kSecondLine) == 0) continue;  // else its first line has to be told
    prefetch_for_write(&table.lines[other_line(static_cast<std::uint64_t>(place.slot.line - table.lines),
                                               place.slot.line->key[place.slot.index], table.line_count)]);
  }
}

// ---- decide

// Enters a flow at the place that the pick stage chose. False: there is none, or it has been taken since.
LB_INLINE bool enter_plain(Work& work, const Place& place, const NewFlow& flow) {
  FlowTableState& table = work.options.flows->state();
  const FlowSlot slot = place.slot;
  if (place.room == Room::free) {
    if (slot.line->key[slot.index] != 0) return false;
    lb::place(table, flow, static_cast<std::uint64_t>(slot.line - table.lines), slot.index);
  } else {
    if (place.room != Room::unproven || !is_unproven(meta_state(slot.line->meta[slot.index]))) return false;
    replace(table, flow, slot);
    ++count(work, abi::Counter::flow_evicted);
  }
  return true;
}

// The common new flow: a SYN or a UDP packet without an entry, to a target that needs none. Does what serve_without_entry()
// does. Returns its target, or nullptr: not that common.
LB_INLINE const abi::Target* plain_new(Work& work, Burst& burst, std::uint32_t i, std::span<const abi::Target> targets) {
  if ((work.ready >> i & 1) == 0) return nullptr;
  const bool udp = work.tuple[i].bytes[12] == kUdp;
  const Pick& picked = work.picked[i];
  const abi::Target& target = targets[picked.target];
  if ((!udp && !is_opening(work.tcp_flags[i])) ||
      (target.flags & (abi::kTargetResolved | abi::kTargetClampsMss)) != abi::kTargetResolved ||
      target.mode > abi::ForwardingMode::ipip) {
    return nullptr;
  }
  const FlowTableState& table = work.options.flows->state();
  const abi::FlowLine& first = table.lines[work.first[i]];
  const abi::FlowLine& second = table.lines[work.second[i]];
  const std::uint64_t fingerprint = fingerprint_of(work.hash[i]);
  // An earlier packet of this burst may have entered the same flow.
  if (work.inserted && (match(first, fingerprint) | match(second, fingerprint)) != 0) return nullptr;
  if (first.overflow != 0 && work.first[i] == work.second[i]) return nullptr;
  const Place place = work.place[i];
  const FlowState state = udp ? FlowState::udp_fresh : FlowState::fresh;
  const bool tracked = place.room != Room::none;
  if (tracked && !enter_plain(work, place, {work.first[i], fingerprint, make_meta(picked.target, state), work.tick})) {
    return nullptr;
  }
  work.inserted = true;
  ++count(work, tracked ? abi::Counter::flow_new : abi::Counter::flow_untracked);
  work.runs[work.run[i]].new_flows += tracked;
  burst.flow[i] = tracked ? FlowResult::fresh : FlowResult::none;
  burst.group[i] = picked.group;
  burst.slot[i] = picked.slot;
  burst.target[i] = picked.target;
  burst.out_port[i] = target.out_port;
  return &target;
}

LB_INLINE bool rewrite_plain(const Work& work, Burst& burst, std::uint32_t i, const abi::Target& target,
                             const PlainSources& sources) {
  return work.form[i] != Form::parsed &&
         forward_plain(target, work.hash[i], sources, burst.headroom[i], burst.data[i], burst.length[i]);
}

// Whatever is not a plain hit.
[[gnu::noinline]] void serve_otherwise(Work& work, std::uint32_t i) {
  const FlowSlot slot = work.slot[i];
  work.burst->group[i] = abi::kNoIndex;
  if (slot.line == nullptr) return serve_without_entry(work, i, true);
  if ((slot.line->key[slot.index] ^ fingerprint_of(work.hash[i])) > kTickMask) {
    return serve_without_entry(work, i, false);  // moved or evicted by an earlier packet of this burst
  }
  serve_entry(work, i, slot);
}

// Rewrites common hits, those that go this way; the others' indices stay for the rewrite stage.
template <PlainWay kWay>
void forward_hits_by(Work& work, std::uint64_t hits, const PlainSources& sources) {
  Burst& burst = *work.burst;
  const abi::Target* targets = work.snapshot->targets().data();
  constexpr bool kTunnel = kWay != PlainWay::l2dsr;
  constexpr auto kMode = static_cast<std::uint64_t>(kTunnel ? abi::ForwardingMode::ipip : abi::ForwardingMode::l2dsr);
  std::uint64_t refused = 0;
  std::uint64_t left = 0;
  for (std::uint64_t bits = hits; bits != 0; bits &= bits - 1) {
    const auto i = static_cast<std::uint32_t>(__builtin_ctzll(bits));
    const std::uint32_t id = meta_target(work.meta[i]);
    const abi::Target& target = targets[id];
    const std::uint64_t word = target_word(target);
    if (!is_usable(word) || target.group != burst.group[i]) [[unlikely]] {
      refused |= std::uint64_t{1} << i;
      continue;
    }
    burst.flow[i] = FlowResult::hit;
    burst.target[i] = id;
    burst.out_port[i] = static_cast<std::uint8_t>(word >> 24);
    const bool this_way = kWay != PlainWay::other && (word >> 32 & 0xff) == kMode && target.vlan == 0 &&
                          (!kTunnel || is_v4(target.address) == (kWay == PlainWay::ipip_v4));
    if (!this_way || !forward_by<kWay>(target, work.hash[i].high, sources, burst.headroom[i], burst.data[i],
                                       burst.length[i])) [[unlikely]] {
      left |= std::uint64_t{1} << i;
    }
  }
  work.rest |= refused;
  for (std::uint64_t bits = left; bits != 0; bits &= bits - 1) {
    const auto i = static_cast<std::uint32_t>(__builtin_ctzll(bits));
    work.target[i] = &targets[burst.target[i]];
    push(work.sent, i);
  }
  const std::uint64_t known = hits & ~refused;
  work.forwarded += static_cast<std::uint32_t>(__builtin_popcountll(known & ~left));
  count(work, abi::Counter::flow_hits) += static_cast<std::uint64_t>(__builtin_popcountll(known));
}

// By the way of the first of them: most bursts have one.
LB_INLINE void forward_hits(Work& work, std::uint64_t hits, const PlainSources& sources) {
  const std::uint64_t plain = hits & ~work.general;
  if (plain != 0) {
    const std::uint32_t id = meta_target(work.meta[static_cast<std::uint32_t>(__builtin_ctzll(plain))]);
    switch (plain_way(work.snapshot->targets()[id])) {
      case PlainWay::ipip_v4: forward_hits_by<PlainWay::ipip_v4>(work, plain, sources); break;
      case PlainWay::ipip_v6: forward_hits_by<PlainWay::ipip_v6>(work, plain, sources); break;
      case PlainWay::l2dsr: forward_hits_by<PlainWay::l2dsr>(work, plain, sources); break;
      case PlainWay::other: forward_hits_by<PlainWay::other>(work, plain, sources); break;
    }
  }
  if (hits != plain) forward_hits_by<PlainWay::other>(work, hits & work.general, sources);
}

// All that is no common hit, in the order in which it came.
template <bool kApart>
[[gnu::noinline]] void serve_rest(Work& work, const PlainSources& sources) {
  Burst& burst = *work.burst;
  const auto targets = work.snapshot->targets();
  for (std::uint64_t rest = work.rest; rest != 0; rest &= rest - 1) {
    const auto i = static_cast<std::uint32_t>(__builtin_ctzll(rest));
    const abi::Target* target = work.slot[i].line != nullptr ? nullptr : plain_new(work, burst, i, targets);
    if (target == nullptr) {
      serve_otherwise(work, i);
    } else if (!kApart && rewrite_plain(work, burst, i, *target, sources)) {
      ++work.forwarded;
    } else {
      work.target[i] = target;
      push(work.sent, i);
    }
  }
}

// ---- rewrite

// Out of the common case: tags, IPv6 inside, or something does not fit.
[[gnu::noinline]] bool forward_any(Work& work, std::uint32_t i) {
  Burst& burst = *work.burst;
  const abi::Target& target = *work.target[i];
  if (target.mode == abi::ForwardingMode::fullnat) return forward_fullnat(work, i, target);
  if (target.mode == abi::ForwardingMode::nat && !note_way_back(work, i, target)) return false;
  if (target.mode == abi::ForwardingMode::geneve) work.hash[i] = named_hash(work, i);
  const OutFrame out =
      forward(*work.snapshot, target, packet_of(work, i), work.hash[i], burst.data[i], burst.length[i], burst.headroom[i]);
  if (out.reason == abi::DropReason::none) {
    burst.data[i] = out.data;
    burst.length[i] = out.length;
    return true;
  }
  if (out.reason == abi::DropReason::too_big) {
    if ((target.tunnel_flags & abi::kTunnelFragment) != 0) return send_fragmented(work, i, target);
    answer_too_big(work, i, target);
  } else {
    drop(work, i, out.reason);
  }
  return false;
}

void stage_rewrite(Work& work) {
  Burst& burst = *work.burst;
  const PlainSources sources = plain_sources(*work.snapshot);
  std::uint32_t forwarded = 0;
  for (std::uint32_t n = 0; n < work.sent.count; ++n) {
    const std::uint32_t i = work.sent.at[n];
    if (rewrite_plain(work, burst, i, *work.target[i], sources) || forward_any(work, i)) ++forwarded;
  }
  work.forwarded += forwarded;
}

// ---- count

// Packets for a listener that did not go to a target.
[[gnu::noinline]] void count_dropped(Work& work) {
  const Burst& burst = *work.burst;
  for (std::uint32_t i = 0; i < burst.count; ++i) {
    if (burst.listener[i] == abi::kNoIndex || burst.verdict[i] == Verdict::tx) continue;
    abi::ListenerStats& stats = work.options.listener_stats[work.snapshot->listeners()[burst.listener[i]].counter_index];
    add(stats.dropped_packets, 1);
  }
}

void stage_count(Work& work) {
  std::uint32_t listed = 0;
  for (std::uint32_t r = 0; r < work.run_count; ++r) {
    const Run& run = work.runs[r];
    if (run.packets == 0) continue;
    abi::ListenerStats& stats = work.options.listener_stats[run.counter_index];
    add(stats.packets, run.packets);
    add(stats.bytes, run.bytes);
    if (run.new_flows != 0) add(stats.new_flows, run.new_flows);
    listed += run.packets;
  }
  if (listed != work.forwarded) count_dropped(work);
  count(work, abi::Counter::rx_packets) += work.burst->count;
  count(work, abi::Counter::rx_bytes) += work.bytes;
  count(work, abi::Counter::forwarded_packets) += work.forwarded;
  flush_counts(work);
}

void begin(Work& work) {
  Burst& burst = *work.burst;
  work.uncommon.count = work.elsewhere.count = work.missed.count = work.sent.count = 0;
  work.first_fragments.count = work.rare.count = 0;
  work.run_count = work.forwarded = 0;
  work.ready = work.rest = work.general = 0;
  work.inserted = false;
  fill(work.form, Form::plain);
  fill(burst.verdict, Verdict::tx);
  fill(burst.reason, abi::DropReason::none);
  fill(burst.flow, FlowResult::none);
  fill(burst.listener, abi::kNoIndex);
  fill(burst.group, abi::kNoIndex);
  fill(burst.target, abi::kNoIndex);
  fill(burst.slot, abi::kNoIndex);
}

void process(Work& work) {
  begin(work);
  ask_for_frames(*work.burst);
  parse(work);
  stage_vip(work);
  const FlowStage flows = flow_stage_of(work);
  const PlainSources sources = plain_sources(*work.snapshot);
  forward_hits(work, find_flows(work, flows), sources);
  if (work.elsewhere.count != 0) forward_hits(work, find_in_second_lines(work, flows), sources);
  if (work.rest != 0) {
    stage_pick(work);
    serve_rest<false>(work, sources);
  }
  if ((work.first_fragments.count | work.rare.count) != 0) [[unlikely]]
    serve_rare(work);
  stage_rewrite(work);
  stage_count(work);
}

// ---- one stage after the other, for the bench

void stage_parse(Work& work) {
  ask_for_frames(*work.burst);
  parse(work);
}

void stage_flow(Work& work) {
  const FlowStage flows = flow_stage_of(work);
  work.hits = find_flows(work, flows);
  work.hits |= find_in_second_lines(work, flows);
}

void stage_decide(Work& work) {
  const PlainSources sources = plain_sources(*work.snapshot);
  forward_hits_by<PlainWay::other>(work, work.hits, sources);
  serve_rest<true>(work, sources);
}

void sweep(Work& work, std::uint32_t lines) {
  sweep_lines(work, lines);
}

Hash128 hash_one(const HashKeys& keys, const net::FlowKey& key) {
  return flow_hash_fast(keys, key);
}

#if defined(__AVX512F__)
// Not every compiler's __builtin_cpu_supports() knows the name.
bool has_vaes() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (c >> 9 & 1) != 0;
}
#endif

bool supported() {
  __builtin_cpu_init();
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("aes") && has_vaes();
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
