#include "dp/lb/rare.h"

#include "dp/lb/answer.h"
#include "dp/lb/decide.h"
#include "dp/lb/fragments.h"
#include "dp/lb/guard_hygiene.h"
#include "dp/lb/vip_table.h"
#include "dp/net/icmp.h"

namespace lb {
namespace {

// The target that has the flow, if its listener may still use it.
std::optional<std::uint32_t> tracked_target(Work& work, const abi::Listener& listener, const Hash128& hash) {
  const auto view = find_flow(work, hash);
  if (!view) return std::nullopt;
  const abi::Target* target = live_target(*work.snapshot, view->target);
  if (target == nullptr || !serves(listener, target->group)) return std::nullopt;
  return view->target;
}

void serve_error(Work& work, std::uint32_t i, const net::FlowKey& flow) {
  const Snapshot& snapshot = *work.snapshot;
  Burst& burst = *work.burst;
  const net::FlowKey& key = work.parsed[i].key;
  if (flow.destination != key.destination) return drop(work, i, abi::DropReason::icmp_no_flow);
  const std::uint32_t index = find_listener(snapshot, vip_table_of(snapshot), flow, vip_hash(flow));
  if (index >= kNoListener) return drop(work, i, abi::DropReason::icmp_no_flow);
  count_listed(work, i, index);
  if (work.parsed[i].ttl <= 1) return drop(work, i, abi::DropReason::ttl_expired);
  for (const net::FlowKey& claimed : {key, flow}) {
    const abi::DropReason fault = source_fault(snapshot, claimed);
    if (fault != abi::DropReason::none) return drop(work, i, fault);
  }

  const abi::Listener& listener = snapshot.listeners()[index];
  work.hash[i] = work.hash_of(work.options.flows->hash_keys(), flow);
  if (const auto tracked = tracked_target(work, listener, work.hash[i])) {
    burst.target[i] = *tracked;
    burst.group[i] = snapshot.targets()[*tracked].group;
    burst.flow[i] = FlowResult::hit;
  } else {
    const Pick picked =
        pick(snapshot, listener, flow, [&](const net::FlowKey& part) { return work.hash_of(snapshot.slot_keys(), part); });
    burst.group[i] = picked.group;
    burst.slot[i] = picked.slot;
    burst.target[i] = picked.target;
    if (picked.reason != abi::DropReason::none) return drop(work, i, picked.reason);
  }
  send_on(work, i, burst.target[i]);
}

void serve_echo(Work& work, std::uint32_t i, const abi::Vip& vip) {
  const abi::DropReason fault = source_fault(*work.snapshot, work.parsed[i].key);
  if (fault != abi::DropReason::none) return drop(work, i, fault);
  if ((vip.flags & abi::kVipAnswersEcho) == 0) return drop(work, i, abi::DropReason::echo_disabled);
  if (!work.echoes.take(work.now_ns)) return drop(work, i, abi::DropReason::icmp_rate_limited);
  answer_echo(work, i);
}

}  // namespace

std::optional<FlowView> find_elsewhere(Work& work, const Hash128& hash) {
  const auto tables = work.options.tables;
  std::optional<FlowView> freshest;
  for (std::uint32_t worker = 0; worker < tables.size() && work.peer_looks > 0; ++worker) {
    if (worker == work.options.worker) continue;
    --work.peer_looks;
    ++count(work, abi::Counter::peer_looks);
    const auto view = FlowTable::peek(tables[worker], hash, work.now_ns);
    if (view && (!freshest || view->idle_ns < freshest->idle_ns)) freshest = view;
  }
  return freshest;
}

std::optional<FlowView> find_flow(Work& work, const Hash128& hash) {
  const FlowTableState& own = work.options.flows->state();
  if (const auto view = FlowTable::peek({own.lines, own.line_count}, hash, work.now_ns)) return view;
  return find_elsewhere(work, hash);
}

bool is_alive_elsewhere(Work& work, const Hash128& hash) {
  const auto view = find_elsewhere(work, hash);
  const abi::Target* target = view ? live_target(*work.snapshot, view->target) : nullptr;
  if (target == nullptr || view->state == FlowState::reset) return false;
  return view->idle_ns / kTickNs < idle_limit_ticks(work.snapshot->groups()[target->group], view->state);
}

void send_on(Work& work, std::uint32_t i, std::uint32_t id) {
  const abi::Target& target = work.snapshot->targets()[id];
  if ((target.flags & abi::kTargetResolved) == 0) return drop(work, i, abi::DropReason::next_hop_unresolved);
  work.target[i] = &target;
  work.burst->out_port[i] = target.out_port;
  push(work.sent, i);
}

void count_listed(Work& work, std::uint32_t i, std::uint32_t listener) {
  work.burst->listener[i] = listener;
  work.runs[work.run_count++] = Run{.listener = listener,
                                    .counter_index = work.snapshot->listeners()[listener].counter_index,
                                    .packets = 1,
                                    .bytes = work.burst->length[i]};
}

void serve_rare(Work& work) {
  note_first_fragments(work);
  for (std::uint32_t n = 0; n < work.rare.count; ++n) {
    const std::uint32_t i = work.rare.at[n];
    const std::uint8_t protocol = work.parsed[i].protocol;
    const bool icmp = protocol == static_cast<std::uint8_t>(abi::Protocol::icmp) ||
                      protocol == static_cast<std::uint8_t>(abi::Protocol::icmpv6);
    icmp ? serve_icmp(work, i) : serve_later_fragment(work, i);
  }
}

void serve_icmp(Work& work, std::uint32_t i) {
  const net::ParsedPacket& packet = work.parsed[i];
  const std::uint32_t vip = find_vip(vip_table_of(*work.snapshot), packet.key.destination);
  const net::IcmpMessage message = net::read_icmp(work.burst->data[i], packet);
  switch (message.kind) {
    case net::IcmpKind::error: return serve_error(work, i, message.flow);
    case net::IcmpKind::echo_request: return serve_echo(work, i, work.snapshot->vips()[vip]);
    case net::IcmpKind::error_other: return drop(work, i, abi::DropReason::icmp_no_flow);
    case net::IcmpKind::bad: return drop(work, i, abi::DropReason::bad_icmp);
    case net::IcmpKind::other: return punt(work, i, abi::DropReason::punt_failed);
  }
}

}  // namespace lb
