#include "cp/explain/why.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "cp/explain/rates.h"
#include "cp/explain/sentences.h"
#include "cp/model/model.h"
#include "dp/abi/counters.h"
#include "dp/lb/explain_flow.h"
#include "dp/lb/forward_ops.h"
#include "dp/lb/fullnat.h"
#include "dp/lb/gateway.h"
#include "dp/lb/nat.h"
#include "dp/lb/translations.h"
#include "dp/lb/vip_table.h"

namespace lb::cp::explain {

namespace {

constexpr std::size_t kMaxCandidatesListed = 8;
constexpr std::size_t kMaxWorkersListed = 16;  // those without an entry are summed up in one line above this

std::optional<std::uint32_t> some(std::uint32_t index) {
  return index == abi::kNoIndex ? std::nullopt : std::optional(index);
}

std::string seconds(std::uint64_t ns) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f s", static_cast<double>(ns) / 1e9);
  return text;
}

}  // namespace

std::string_view help(abi::DropReason reason) {
  return abi::kCounters[static_cast<std::size_t>(abi::drop_counter(reason))].help;
}

std::vector<Candidate> candidates_of(const lb::Snapshot& snapshot, std::uint32_t group) {
  const abi::TargetGroup& table = snapshot.groups()[group];
  std::vector<std::uint32_t> slots(table.target_count);
  for (std::uint32_t slot = 0; slot < table.slot_count; ++slot) ++slots[snapshot.slots(group)[slot]];
  std::vector<Candidate> found;
  for (std::uint32_t i = 0; i < table.target_count; ++i) {
    if (slots[i] == 0) continue;
    found.push_back({snapshot.group_targets()[table.first_target + i], static_cast<double>(slots[i]) / table.slot_count});
  }
  std::ranges::stable_sort(found, std::ranges::greater{}, &Candidate::share);
  return found;
}

std::string target_text(const abi::Target& target, const net::FlowKey& key) {
  return format_address_port(target.address, target.port != 0 ? target.port : key.destination_port);
}

namespace {

// Puts one answer together. Lives for one call.
class Explainer {
 public:
  Explainer(const Context& context, const net::FlowKey& key, const WhyOptions& options)
      : context_(context), snapshot_(*context.snapshot), key_(key), options_(options) {}

  Answer answer(std::uint64_t now_ns) {
    if (explain_snat_reply() || explain_reply(now_ns)) return std::move(answer_);
    look_into_tables(now_ns);
    look_for_translation(now_ns);
    decision_ = explain_flow(snapshot_, key_, answer_.entry, &context_.secret, options_.tcp_flags, options_.connection_id);
    ask_rates(now_ns);
    answer_.listener = some(decision_.listener);
    answer_.group = some(decision_.group);
    answer_.target = some(decision_.target);
    answer_.slot = some(decision_.slot);
    answer_.slot_target = some(decision_.slot_target);
    answer_.outer_source = decision_.outer_source;
    answer_.reason = abi::to_string(decision_.reason);
    switch (decision_.verdict) {
      case Verdict::tx: answer_.verdict = "tx"; break;
      case Verdict::punt: answer_.verdict = "punt"; break;
      case Verdict::drop:
      case Verdict::held:
      case Verdict::answer: answer_.verdict = "drop"; break;
    }
    switch (decision_.flow) {
      case FlowResult::hit: answer_.flow = "hit"; break;
      case FlowResult::fresh: answer_.flow = "new"; break;
      case FlowResult::none: answer_.flow = "none"; break;
    }
    const bool stays = decision_.verdict != Verdict::answer && !goes_by_cid() && decision_.flow == FlowResult::hit &&
                       answer_.entry && answer_.target == answer_.entry->target;
    answer_.pinned_elsewhere = stays && answer_.slot_target && *answer_.slot_target != *answer_.target;
    if (answer_.pinned_elsewhere) answer_.pinned_because = because();
    write_steps();
    answer_.explanation = explanation();
    return std::move(answer_);
  }

 private:
  const abi::Target* target(std::optional<std::uint32_t> id) const {
    return id && *id < snapshot_.targets().size() ? &snapshot_.targets()[*id] : nullptr;
  }

  std::string label(std::optional<std::uint32_t> id) const {
    const abi::Target* found = target(id);
    if (found == nullptr || (found->flags & abi::kTargetLive) == 0) return "a target that is gone";
    return target_text(*found, key_);
  }

  std::string group_name(std::uint32_t group) const { return std::string(snapshot_.name(snapshot_.groups()[group].name)); }

  // A fullnat flow's translation, told by its client's or its target's tuple.
  template <typename Wanted>
  std::optional<abi::Translation> find_translation(const Wanted& wanted) {
    std::optional<abi::Translation> newest;
    for (std::uint32_t worker = 0; worker < context_.translations.size(); ++worker) {
      const auto slots = context_.translations[worker];
      for (std::uint32_t slot = 0; slot < slots.size(); ++slot) {
        if (slots[slot].snat_port == 0) continue;
        const auto flow = Translations::peek_in(slots, slot);
        if (!flow || flow->protocol != key_.protocol || !wanted(*flow)) continue;
        if (newest && static_cast<std::int32_t>(flow->tick - newest->tick) < 0) continue;
        newest = flow;
        translated_by_ = worker;
      }
    }
    return newest;
  }

  bool uses_snat() const { return !snapshot_.snat_addresses().empty() && !context_.translations.empty(); }

  // A flow whose entry is gone is known by its translation all the same.
  void look_for_translation(std::uint64_t now_ns) {
    if (!uses_snat() || !is_vip(vip_table_of(snapshot_), key_.destination)) return;
    translation_ = find_translation([&](const abi::Translation& flow) {
      return flow.client == key_.source && flow.client_port == key_.source_port && flow.vip == key_.destination &&
             flow.vip_port == key_.destination_port;
    });
    if (!translation_ || answer_.entry) return;
    answer_.entry = view_of(snapshot_, *translation_, static_cast<std::uint32_t>(now_ns / kTickNs));
    if (answer_.entry) answer_.worker = translated_by_;
  }

  // Whether the key is of a packet to a SNAT address: a fullnat target's reply, or nothing of lb's.
  bool explain_snat_reply() {
    const auto addresses = snapshot_.snat_addresses();
    if (std::find(addresses.begin(), addresses.end(), key_.destination) == addresses.end()) return false;
    const std::string to = format_address_port(key_.destination, key_.destination_port);
    const auto flow = find_translation([&](const abi::Translation& candidate) {
      return candidate.snat == key_.destination && candidate.snat_port == key_.destination_port &&
             candidate.target == key_.source && candidate.target_port == key_.source_port;
    });
    answer_.flow = flow ? "hit" : "none";
    answer_.verdict = flow ? "tx" : "drop";
    if (!flow) {
      answer_.reason = abi::to_string(abi::DropReason::no_translation);
      step("translation",
           "no worker has given " + to + " to a flow to " + format_address_port(key_.source, key_.source_port));
      answer_.explanation =
          "The packet is for a SNAT address and belongs to no flow: its sender is answered with a reset or " +
          std::string("\"port unreachable\", at a limited rate.");
      return true;
    }
    answer_.worker = translated_by_;
    if (const abi::Target* found = target(flow->target_id); found != nullptr && found->address == flow->target) {
      answer_.target = flow->target_id;
      answer_.group = found->group;
    }
    const std::string client = format_address_port(flow->client, flow->client_port);
    const std::string vip = format_address_port(flow->vip, flow->vip_port);
    step("translation, worker " + std::to_string(translated_by_), translation_text(*flow));
    step("fullnat", "source becomes " + vip + ", destination " + client + ", and the packet leaves the way its flow's came");
    answer_.explanation = "A reply of " + format_address_port(key_.source, key_.source_port) + " to the flow of " + client +
                          ", which worker " + std::to_string(translated_by_) + " has given " + to + ": it leaves from " +
                          vip + ", on whichever worker it lands.";
    return true;
  }

  // Whether the key is of a packet from a nat target's port: a reply goes back to its client, anything else is the kernel's.
  bool explain_reply(std::uint64_t now_ns) {
    if (is_vip(vip_table_of(snapshot_), key_.destination)) return false;
    const auto listeners = return_listeners(snapshot_, key_.source, key_.source_port, key_.protocol);
    if (listeners.empty()) return false;
    const std::string from = format_address_port(key_.source, key_.source_port);
    step("return lookup", from + " is a nat target of " + std::to_string(listeners.size()) +
                              (listeners.size() == 1 ? " listener" : " listeners"));
    for (const std::uint32_t listener : listeners) look_for_flow_of_reply(listener, now_ns);
    answer_.flow = answer_.entry ? "hit" : "none";
    answer_.verdict = answer_.entry ? "tx" : "punt";
    if (!answer_.entry) {
      answer_.explanation =
          "The packet comes from a nat target, but no worker holds a flow that it answers: it is the kernel's.";
      return true;
    }
    answer_.target = answer_.entry->target;
    answer_.group = snapshot_.targets()[*answer_.target].group;
    const net::FlowKey flow = forward_key(snapshot_, snapshot_.listeners()[*answer_.listener], key_);
    const std::string vip = format_address_port(flow.destination, flow.destination_port);
    step("nat", "source becomes " + vip + ", and the packet leaves the way its flow's packets come");
    answer_.explanation = "A reply of " + from + " to a flow that worker " + std::to_string(*answer_.worker) +
                          " holds: it leaves from " + vip + ", on whichever worker it lands.";
    return true;
  }

  void look_for_flow_of_reply(std::uint32_t listener, std::uint64_t now_ns) {
    const net::FlowKey flow = forward_key(snapshot_, snapshot_.listeners()[listener], key_);
    const std::string tuple = format_address_port(flow.source, flow.source_port) + " to " +
                              format_address_port(flow.destination, flow.destination_port);
    for (std::uint32_t worker = 0; worker < context_.worker_tables.size(); ++worker) {
      const auto view = FlowTable::peek(context_.worker_tables[worker], context_.secret, flow, now_ns);
      const abi::Target* held = view ? target(view->target) : nullptr;
      if (held == nullptr || held->address != key_.source || (held->port != 0 && held->port != key_.source_port)) continue;
      step("flow lookup, worker " + std::to_string(worker),
           tuple + ": " + to_string(view->state) + ", idle " + seconds(view->idle_ns));
      if (answer_.entry && answer_.entry->idle_ns <= view->idle_ns) continue;
      answer_.entry = view;
      answer_.worker = worker;
      answer_.listener = listener;
    }
  }

  // Both directions of a gateway listener's flow have one entry.
  net::FlowKey entry_key() const {
    const std::uint32_t gateway = gateway_listener_for(snapshot_, key_);
    const VipTable vips = vip_table_of(snapshot_);
    const bool taken = gateway == abi::kNoIndex || find_listener(snapshot_, vips, key_, vip_hash(key_)) < kNoListener;
    return taken ? key_ : either_way(key_);
  }

  void look_into_tables(std::uint64_t now_ns) {
    const net::FlowKey key = entry_key();
    views_.reserve(context_.worker_tables.size());
    for (std::uint32_t worker = 0; worker < context_.worker_tables.size(); ++worker) {
      views_.push_back(FlowTable::peek(context_.worker_tables[worker], context_.secret, key, now_ns));
      const auto& view = views_.back();
      if (!view || (answer_.entry && answer_.entry->idle_ns <= view->idle_ns)) continue;
      answer_.entry = view;
      answer_.worker = worker;
    }
  }

  // Why new flows do not go where this flow is.
  std::string because() const {
    const abi::Target* pinned = target(answer_.target);
    switch (pinned->state) {
      case abi::TargetState::draining: return "drain";
      case abi::TargetState::unhealthy:
      case abi::TargetState::unhealthy_draining:
        if ((pinned->flags & abi::kTargetNoNewFlows) != 0) return "health";
        break;
      default: break;
    }
    if (pinned->weight == 0) return "weight";
    if (decision_.slot_group != abi::kNoIndex && decision_.slot_group != pinned->group) return "group weights";
    return "new table";
  }

  void step(std::string stage, const std::string& text) { answer_.steps.push_back(std::move(stage) + ": " + text); }

  void write_steps() {
    step("listener lookup", listener_text(snapshot_, decision_.listener, key_));
    if (decision_.listener == abi::kNoIndex) return;
    write_guard_step();
    write_connection_id_step();
    write_flow_steps();
    write_slot_steps();
    write_target_steps();
  }

  // What the guard says of the client: hygiene first, then the listener's security group.
  void write_guard_step() {
    if (!decision_.security_asked) {
      answer_.guard = answer_.reason;
    } else if (snapshot_.listeners()[decision_.listener].security_group == abi::kNoIndex) {
      answer_.guard = "pass";
    } else {
      answer_.guard = (decision_.reason == abi::DropReason::security_group ? "deny: " : "allow: ") +
                      security_text(snapshot_, decision_.listener, decision_.security_rule);
    }
    if (!rates_.empty()) answer_.guard += "; " + rates_;
    step("guard", answer_.guard);
  }

  bool goes_by_cid() const { return decision_.cid && decision_.cid->result == CidResult::routed; }

  void write_connection_id_step() {
    if (!decision_.cid) return;
    answer_.connection_id =
        connection_id_text(snapshot_, *decision_.cid, options_.connection_id, label(some(decision_.cid->target)));
    step("connection ID", answer_.connection_id);
  }

  // A flow that would begin now may be over a limit.
  void ask_rates(std::uint64_t now_ns) {
    if (decision_.listener == abi::kNoIndex || !decision_.security_asked) return;
    const RateFinding finding = rates_of(context_, decision_.listener, key_, now_ns);
    rates_ = finding.text;
    if (decision_.verdict != Verdict::tx || decision_.flow == FlowResult::hit || finding.reason == abi::DropReason::none)
      return;
    decision_.verdict = Verdict::drop;
    decision_.reason = finding.reason;
    decision_.flow = FlowResult::none;
    decision_.target = abi::kNoIndex;
  }

  void write_flow_steps() {
    if (views_.empty()) return step("flow lookup", "lb-dp is away, so there is no flow table to look into");
    std::size_t unlisted = 0;
    for (std::size_t worker = 0; worker < views_.size(); ++worker) {
      const auto& view = views_[worker];
      if (!view && views_.size() > kMaxWorkersListed) {
        ++unlisted;
        continue;
      }
      step("flow lookup, worker " + std::to_string(worker),
           view ? std::string(to_string(view->state)) + ", idle " + seconds(view->idle_ns) + ", on " + label(view->target)
                : "no entry");
    }
    if (unlisted > 0)
      step("flow lookup", std::to_string(unlisted) + (unlisted < views_.size() ? " other" : "") + " workers have no entry");
  }

  void write_slot_steps() {
    const abi::Listener& listener = snapshot_.listeners()[decision_.listener];
    if (decision_.slot_group == abi::kNoIndex) {
      return step("group by weight", listener.total_weight == 0 ? "all weights are 0: no new flows" : "not reached");
    }
    std::uint32_t before = 0;
    for (std::uint32_t i = 0; i < listener.group_count; ++i) {
      const abi::ListenerGroup& part = listener.groups[i];
      if (part.group == decision_.slot_group) {
        step("group by weight", group_name(part.group) + ", weight " + std::to_string(part.cumulative_weight - before) +
                                    " of " + std::to_string(listener.total_weight));
        break;
      }
      before = part.cumulative_weight;
    }
    const abi::TargetGroup& group = snapshot_.groups()[decision_.slot_group];
    if (decision_.slot == abi::kNoIndex)
      return step("slot", "group " + group_name(decision_.slot_group) + " has no target in rotation");
    write_candidates_step();
    step("slot", std::to_string(decision_.slot) + " of " + std::to_string(group.slot_count) + " → " +
                     label(decision_.slot_target) +
                     (group.fail_open != 0 ? " (fail-open: too few healthy targets, all get traffic)" : ""));
  }

  void write_candidates_step() {
    if (!options_.candidates) return;
    answer_.candidates = candidates_of(snapshot_, decision_.slot_group);
    std::string text;
    for (std::size_t i = 0; i < std::min(answer_.candidates.size(), kMaxCandidatesListed); ++i) {
      const Candidate& candidate = answer_.candidates[i];
      char share[16];
      std::snprintf(share, sizeof(share), " %.1f%%", candidate.share * 100);
      text += (i == 0 ? "" : ", ") + label(candidate.target) + share;
    }
    if (answer_.candidates.size() > kMaxCandidatesListed)
      text += " and " + std::to_string(answer_.candidates.size() - kMaxCandidatesListed) + " more";
    step("candidates", text);
  }

  void write_target_steps() {
    const abi::Target* found = target(answer_.target);
    if (found == nullptr) return;
    std::string text = label(answer_.target) + " is " + std::string(abi::to_string(found->state));
    if ((found->flags & abi::kTargetNoNewFlows) != 0) text += ", takes no new flows";
    switch (found->tracked) {
      case abi::TrackedFlows::keep: break;
      case abi::TrackedFlows::reset: text += ", its tracked flows are reset"; break;
      case abi::TrackedFlows::rehash: text += ", its tracked flows are picked anew"; break;
    }
    step("target", text);
    if ((found->flags & abi::kTargetResolved) == 0) {
      answer_.next_hop = "unresolved";
      return step("next hop", "no MAC address is known");
    }
    answer_.next_hop = format_mac(found->next_hop_mac);
    if (found->out_port < snapshot_.ports().size()) {
      const auto& name = snapshot_.ports()[found->out_port].name;
      answer_.next_hop += " via " + std::string(name, ::strnlen(name, sizeof(name)));
    }
    step("next hop", answer_.next_hop + (found->vlan != 0 ? ", VLAN " + std::to_string(found->vlan) : "") + ", MTU " +
                         std::to_string(found->mtu_bytes));
    if (decision_.verdict != Verdict::tx) return;
    if (found->mode == abi::ForwardingMode::l2dsr)
      return step("l2dsr", "MAC addresses rewritten, the IP packet stays as it is");
    if (found->mode == abi::ForwardingMode::nat) {
      return step("nat", "destination becomes " + label(answer_.target) +
                             ", the client's address stays; replies leave from " +
                             format_address_port(key_.destination, key_.destination_port));
    }
    if (found->mode == abi::ForwardingMode::fullnat) {
      if (translation_) step("translation, worker " + std::to_string(translated_by_), translation_text(*translation_));
      return step("fullnat", "destination becomes " + label(answer_.target) + ", source " +
                                 (translation_ ? format_address_port(translation_->snat, translation_->snat_port)
                                               : "a SNAT address and port that are free") +
                                 client_address_text(snapshot_.groups()[found->group].client_address));
    }
    answer_.outer_header = outer_header_text(decision_, *found);
    step(std::string(abi::to_string(found->mode)), answer_.outer_header);
  }

  std::string explanation() const {
    const std::string held =
        answer_.worker ? "Worker " + std::to_string(*answer_.worker) + " holds this flow, on " + label(answer_.entry->target)
                       : std::string();
    if (decision_.verdict == Verdict::punt) return "The destination is no VIP: the packet is the kernel's.";
    if (decision_.verdict != Verdict::tx) {
      return (held.empty() ? "" : held + ". ") + "The next packet is dropped as " + answer_.reason + ": " +
             std::string(help(decision_.reason)) + rule_of_refusal() + "." + state_sentence();
    }
    const std::string group = decision_.group == abi::kNoIndex ? "" : group_name(decision_.group);
    if (goes_by_cid()) return cid_sentence(held);
    if (answer_.pinned_elsewhere)
      return held + ". A new flow would go to " + label(answer_.slot_target) + ": " + pinned_sentence();
    if (decision_.flow == FlowResult::hit) return held + ", where a new flow would go as well." + fail_open_sentence();
    std::string text = held.empty() ? "No worker holds this flow. " : held + ", and leaves it." + state_sentence() + " ";
    text += "The next packet takes slot " + (answer_.slot ? std::to_string(*answer_.slot) : "?") + " of target group " +
            group + ", which belongs to " + label(answer_.target) + ".";
    if (decision_.flow == FlowResult::none) text += " It gets no entry in the flow table.";
    text += algorithm_sentence();
    return text + fail_open_sentence();
  }

  std::string cid_sentence(const std::string& held) const {
    const std::string entry = held.empty()                         ? "No worker holds a flow with these addresses and ports."
                              : decision_.flow == FlowResult::none ? held + ", which stays as it is."
                              : answer_.entry->target == *answer_.target ? held + "."
                                                                         : held + ", and gives it to this one.";
    return "The connection ID names " + label(answer_.target) +
           ": the packet goes there, whatever its addresses and ports. " + entry;
  }

  std::string rule_of_refusal() const {
    const bool rate =
        decision_.reason == abi::DropReason::source_rate_limit || decision_.reason == abi::DropReason::listener_rate_limit;
    if (rate) return " (" + rates_ + ")";
    return decision_.reason == abi::DropReason::security_group
               ? " (" + security_text(snapshot_, decision_.listener, decision_.security_rule) + ")"
               : "";
  }

  // What is wrong with the target of the entry.
  std::string state_sentence() const {
    if (!answer_.entry) return "";
    const abi::Target* found = target(answer_.entry->target);
    if (found == nullptr || (found->flags & abi::kTargetLive) == 0) return " That target is gone.";
    if (found->state == abi::TargetState::healthy) return "";
    return " " + label(answer_.entry->target) + " is " + std::string(abi::to_string(found->state)) + ".";
  }

  std::string pinned_sentence() const {
    const std::string pinned = label(answer_.target);
    if (answer_.pinned_because == "drain") return pinned + " is draining and keeps only the flows it has.";
    if (answer_.pinned_because == "health") return pinned + " is unhealthy and takes no new flows; those it has are kept.";
    if (answer_.pinned_because == "weight") return pinned + " has weight 0 and keeps only the flows it has.";
    if (answer_.pinned_because == "group weights")
      return "the listener's weights give this tuple to group " + group_name(decision_.slot_group) + ".";
    return "the group's table has changed since this flow began, because targets or weights did.";
  }

  // What the slot does not say.
  std::string algorithm_sentence() const {
    const abi::TargetGroup& group = snapshot_.groups()[decision_.group];
    if (group.algorithm == abi::Algorithm::maglev) return "";
    if (group.algorithm == abi::Algorithm::per_packet) {
      return key_.protocol == static_cast<std::uint8_t>(abi::Protocol::udp)
                 ? " But every datagram takes a slot of its own (per_packet), and leaves no entry."
                 : "";
    }
    return " But a flow that begins goes by " + std::string(abi::to_string(group.algorithm)) +
           ", maybe to another target; the slot is for packets that begin none.";
  }

  std::string fail_open_sentence() const {
    if (decision_.group == abi::kNoIndex || snapshot_.groups()[decision_.group].fail_open == 0) return "";
    return " Group " + group_name(decision_.group) +
           " is fail-open: too few of its targets are healthy, so all of them get traffic.";
  }

  const Context& context_;
  const Snapshot& snapshot_;
  const net::FlowKey& key_;
  const WhyOptions& options_;
  std::vector<std::optional<FlowView>> views_;
  FlowDecision decision_;
  std::string rates_;                            // what the meters say; empty: the listener has no limits
  std::optional<abi::Translation> translation_;  // fullnat: of the flow asked about
  std::uint32_t translated_by_ = 0;              // worker
  Answer answer_;
};

}  // namespace

Answer why(const Context& context, const net::FlowKey& key, std::uint64_t now_ns, const WhyOptions& options) {
  if (context.snapshot != nullptr) return Explainer(context, key, options).answer(now_ns);
  Answer answer;
  answer.verdict = "drop";
  answer.reason = abi::to_string(abi::DropReason::no_snapshot);
  answer.flow = "none";
  answer.explanation = "No configuration has been accepted yet, so there is no snapshot to forward by.";
  answer.steps.push_back("snapshot: none is in force");
  return answer;
}

}  // namespace lb::cp::explain
