#include "dp/lb/explain_flow.h"

#include "dp/lb/decide.h"
#include "dp/lb/forward_ops.h"
#include "dp/lb/gateway.h"
#include "dp/lb/guard_hygiene.h"
#include "dp/lb/guard_security.h"
#include "dp/lb/vip_table.h"

namespace lb {
namespace {

void set_drop(FlowDecision& decision, abi::DropReason reason) {
  decision.verdict = Verdict::drop;
  decision.reason = reason;
}

void set_target(const Snapshot& snapshot, FlowDecision& decision, std::uint32_t id, FlowResult flow) {
  const abi::Target& target = snapshot.targets()[id];
  decision.group = target.group;
  decision.target = id;
  decision.flow = flow;
  decision.verdict = Verdict::tx;
  decision.reason = abi::DropReason::none;
  if ((target.flags & abi::kTargetResolved) == 0) set_drop(decision, abi::DropReason::next_hop_unresolved);
}

// What a new flow gets.
void set_picked(const Snapshot& snapshot, FlowDecision& decision, const Pick& picked) {
  decision.group = picked.group;
  if (picked.reason != abi::DropReason::none) return set_drop(decision, picked.reason);
  set_target(snapshot, decision, picked.target, FlowResult::fresh);
  if (decision.verdict == Verdict::drop) decision.flow = FlowResult::none;
}

// A connection ID that names a target: the packet goes there, and its flow's entry may stay as it is.
void set_by_cid(const Snapshot& snapshot, FlowDecision& decision, const std::optional<FlowView>& entry) {
  const std::uint32_t id = decision.cid->target;
  const abi::Target& target = snapshot.targets()[id];
  FlowResult flow = FlowResult::fresh;
  if (entry) {
    const auto idle = static_cast<std::uint32_t>(entry->idle_ns / kTickNs);
    const bool taken_over =
        needs_entry(target.mode) || idle >= idle_limit_ticks(snapshot.groups()[target.group], FlowState::udp);
    flow = entry->target == id || taken_over ? FlowResult::hit : FlowResult::none;
  }
  set_target(snapshot, decision, id, flow);
  if (decision.verdict == Verdict::drop) decision.flow = FlowResult::none;
}

FlowDecision decide(const Snapshot& snapshot, const net::FlowKey& key, const std::optional<FlowView>& entry,
                    std::optional<std::uint8_t> tcp_flags, std::span<const std::uint8_t> cid) {
  FlowDecision decision;
  const VipTable vips = vip_table_of(snapshot);
  const bool tcp = key.protocol == static_cast<std::uint8_t>(abi::Protocol::tcp);
  const bool udp = key.protocol == static_cast<std::uint8_t>(abi::Protocol::udp);
  const auto icmp = static_cast<std::uint8_t>(key.is_v6 != 0 ? abi::Protocol::icmpv6 : abi::Protocol::icmp);
  const std::uint32_t gateway = gateway_listener_for(snapshot, key);
  if (!tcp && !udp && gateway == abi::kNoIndex) {
    const std::uint32_t vip = find_vip(vips, key.destination);
    if (vip == kNotVip) return {.verdict = Verdict::punt};
    set_drop(decision, abi::DropReason::no_listener);
    if (key.protocol != icmp) return decision;
    if ((snapshot.vips()[vip].flags & abi::kVipAnswersEcho) == 0) {
      set_drop(decision, abi::DropReason::echo_disabled);
    } else {
      decision = {.verdict = Verdict::answer, .reason = abi::DropReason::answered_echo};
    }
    return decision;
  }
  std::uint32_t index = find_listener(snapshot, vips, key, vip_hash(key));
  if (index >= kNoListener && gateway != abi::kNoIndex) index = gateway;
  if (index == kNotVip) return {.verdict = Verdict::punt};
  set_drop(decision, abi::DropReason::no_listener);
  if (index == kNoListener) return decision;

  decision.listener = index;
  if (const abi::DropReason fault = source_fault(snapshot, key); fault != abi::DropReason::none) {
    set_drop(decision, fault);
    return decision;
  }
  const abi::Listener& listener = snapshot.listeners()[index];
  // A tracked flow has been asked by the present rules, or will be by its next packet.
  const SecurityAnswer answer = ask_security(snapshot, listener, key);
  decision.security_asked = true;
  decision.security_rule = answer.rule;
  if (!answer.allowed) {
    set_drop(decision, abi::DropReason::security_group);
    return decision;
  }
  const Pick picked =
      pick(snapshot, listener, key, [&](const net::FlowKey& part) { return flow_hash(snapshot.slot_keys(), part); });
  decision.slot_group = picked.group;
  decision.slot = picked.slot;
  decision.slot_target = picked.target;
  if (listener.has_quic != 0) {
    decision.cid = route_by_cid(snapshot, listener, cid);
    if (decision.cid->result == CidResult::routed) {
      set_by_cid(snapshot, decision, entry);
      return decision;
    }
  }
  if (!entry) {
    set_picked(snapshot, decision, picked);
    return decision;
  }
  const std::uint8_t flags = tcp ? tcp_flags.value_or(net::kTcpAck) : std::uint8_t{0};
  const auto idle = static_cast<std::uint32_t>(entry->idle_ns / kTickNs);
  const Judgement judgement = judge(snapshot, listener, entry->target, entry->state, idle, flags);
  switch (judgement.fate) {
    case Fate::forward: set_target(snapshot, decision, entry->target, FlowResult::hit); break;
    case Fate::repick:
    case Fate::renew: set_picked(snapshot, decision, picked); break;
    case Fate::reset:
    case Fate::late:
      set_target(snapshot, decision, entry->target, FlowResult::hit);
      decision.verdict = Verdict::answer;
      decision.reason = abi::DropReason::answered_rst;
      break;
  }
  return decision;
}

}  // namespace

FlowDecision explain_flow(const Snapshot& snapshot, const net::FlowKey& key, const std::optional<FlowView>& entry,
                          const NodeSecret* secret, std::optional<std::uint8_t> tcp_flags,
                          std::span<const std::uint8_t> cid) {
  FlowDecision decision = decide(snapshot, key, entry, tcp_flags, cid);
  if (decision.verdict != Verdict::tx) return decision;
  const abi::Target& target = snapshot.targets()[decision.target];
  if (target.mode == abi::ForwardingMode::l2dsr || target.mode >= abi::ForwardingMode::nat) return decision;
  const abi::TunnelSource& source = tunnel_source_of(snapshot, target);
  if (source.present == 0) {
    set_drop(decision, abi::DropReason::no_tunnel_source);
  } else if (secret != nullptr) {
    const bool gateway = snapshot.listeners()[decision.listener].protocol == abi::kAllProtocols;
    const Hash128 hash = flow_hash(make_hash_keys(*secret), gateway ? either_way(key) : key);
    const std::uint64_t on_wire = wire_hash(hash);
    if (target.mode == abi::ForwardingMode::geneve)
      decision.cookie = flow_cookie(flow_hash(snapshot.slot_keys(), either_way(key)));
    decision.outer_source = net::tunnel_source(source, on_wire);
    if (target.mode == abi::ForwardingMode::gue || target.mode == abi::ForwardingMode::geneve)
      decision.outer_source_port = net::tunnel_source_port(on_wire);
  }
  return decision;
}

}  // namespace lb
