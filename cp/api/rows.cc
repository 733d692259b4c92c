#include "cp/api/rows.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "cp/explain/counters.h"
#include "proto/api.pb.h"

namespace lb::cp {

namespace {

template <typename T>
const T* find(const std::map<std::string_view, const T*>& map, std::string_view name) {
  const auto found = map.find(name);
  return found == map.end() ? nullptr : found->second;
}

std::string ports_text(const Listener& listener) {
  if (listener.first_port == 0 && listener.last_port == 65535) return "any";
  if (listener.first_port == listener.last_port) return std::to_string(listener.first_port);
  return std::to_string(listener.first_port) + "-" + std::to_string(listener.last_port);
}

std::string groups_text(const Listener& listener) {
  std::string text;
  for (const WeightedGroup& group : listener.groups) {
    text += (text.empty() ? "" : ",") + group.name + ":" + std::to_string(group.weight);
  }
  return text;
}

// Length of the valid UTF-8 sequence at `at` (RFC 3629 §4), 0 if there is none.
std::size_t sequence_length(std::string_view bytes, std::size_t at) {
  const auto byte = [&](std::size_t i) { return at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0U; };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xc0U) == 0x80U; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continues(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const bool overlong = first == 0xe0 && byte(1) < 0xa0;
    const bool surrogate = first == 0xed && byte(1) > 0x9f;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const bool overlong = first == 0xf0 && byte(1) < 0x90;
    const bool too_high = first == 0xf4 && byte(1) > 0x8f;
    return continues(1) && continues(2) && continues(3) && !overlong && !too_high ? 4 : 0;
  }
  return 0;
}

// In one-way modes lb counts a flow as long as the client's side of it shows.
std::string algorithm_text(const TargetGroup& group) {
  const bool one_sided = group.algorithm == abi::Algorithm::least_connections && !sees_replies(group.mode);
  return std::string(abi::to_string(group.algorithm)) + (one_sided ? " (client side)" : "");
}

const Config& empty_config() {
  static const Config config;
  return config;
}

}  // namespace

std::string to_utf8(std::string_view bytes) {
  std::string out;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t length = sequence_length(bytes, at);
    out += length == 0 ? std::string_view("\xef\xbf\xbd") : bytes.substr(at, length);
    at += std::max<std::size_t>(length, 1);
  }
  return out;
}

Index::Index(const LiveState& live) : live_(live), config_(live.config ? live.config.get() : &empty_config()) {
  for (const Vip& vip : config_->vips) vips_[vip.name] = &vip;
  for (const TargetGroup& group : config_->groups) configured_[group.name] = &group;
  for (const LiveGroup& group : live_.groups) groups_[group.name] = &group;
  for (const LiveListener& listener : live_.listeners) listeners_of_[listener.config.vip].push_back(&listener);
}

const Vip* Index::vip(std::string_view name) const {
  return find(vips_, name);
}
const TargetGroup* Index::configured_group(std::string_view name) const {
  return find(configured_, name);
}
const LiveGroup* Index::group(std::string_view name) const {
  return find(groups_, name);
}

const std::vector<const LiveListener*>& Index::listeners_of(std::string_view vip) const {
  static const std::vector<const LiveListener*> kNone;
  const auto found = listeners_of_.find(vip);
  return found == listeners_of_.end() ? kNone : found->second;
}

void fill(api::VipRow& row, const Index& index, const Vip& vip) {
  row.set_name(vip.name);
  row.set_address(format_prefix(vip.prefix()));
  const auto& listeners = index.listeners_of(vip.name);
  row.set_listeners(static_cast<std::uint32_t>(listeners.size()));
  ListenerCounters sum;
  for (const LiveListener* listener : listeners) {
    sum.packets += listener->counters.packets;
    sum.bytes += listener->counters.bytes;
    sum.new_flows += listener->counters.new_flows;
  }
  row.set_packets(sum.packets);
  row.set_bytes(sum.bytes);
  row.set_new_flows(sum.new_flows);
}

void fill(api::ListenerRow& row, const Index& index, const LiveListener& listener) {
  const Vip* vip = index.vip(listener.config.vip);
  row.set_name(listener.name);
  row.set_vip(listener.config.interface.empty() ? listener.config.vip : "interface " + listener.config.interface);
  if (vip != nullptr) row.set_address(format_prefix(vip->prefix()));
  row.set_protocol(std::string(to_string(listener.config.protocol)));
  row.set_port(ports_text(listener.config));
  row.set_target_groups(groups_text(listener.config));
  row.set_draining(listener.draining);
  row.set_packets(listener.counters.packets);
  row.set_bytes(listener.counters.bytes);
  row.set_new_flows(listener.counters.new_flows);
  row.set_dropped_packets(listener.counters.dropped_packets);
}

void fill(api::TargetGroupRow& row, const Index& index, const LiveGroup& group) {
  row.set_name(group.name);
  if (const TargetGroup* config = index.configured_group(group.name); config != nullptr) {
    row.set_protocol(std::string(to_string(config->protocol)));
    row.set_forwarding_mode(std::string(abi::to_string(config->mode)));
    row.set_table_size(config->table_size);
    row.set_algorithm(algorithm_text(*config));
  }
  std::uint32_t healthy = 0;
  std::uint32_t unhealthy = 0;
  std::uint32_t draining = 0;
  std::uint64_t flows = 0;
  for (const LiveTarget& target : group.targets) {
    switch (target.status.state) {
      case abi::TargetState::healthy: ++healthy; break;
      case abi::TargetState::unhealthy:
      case abi::TargetState::unhealthy_draining: ++unhealthy; break;
      case abi::TargetState::draining: ++draining; break;
      case abi::TargetState::initial:
      case abi::TargetState::unused:
      case abi::TargetState::unavailable: break;
    }
    flows += target.status.flows;
  }
  row.set_targets(static_cast<std::uint32_t>(group.targets.size()));
  row.set_healthy(healthy);
  row.set_unhealthy(unhealthy);
  row.set_draining(draining);
  row.set_fail_open(group.fail_open);
  row.set_flows(flows);
  std::array<char, 17> hash{};
  std::snprintf(hash.data(), hash.size(), "%016llx", static_cast<unsigned long long>(group.table_hash));
  row.set_table_hash(hash.data());
}

void fill(api::TargetRow& row, const LiveTarget& target, std::int64_t now_unix_ms) {
  const TargetStatus& status = target.status;
  row.set_target_group(target.key.group);
  row.set_address(format_address_port(target.key.address, target.key.port));
  row.set_weight(target.weight);
  row.set_state(std::string(abi::to_string(status.state)));
  row.set_reason(status.reason == StateReason::none ? std::string() : std::string(to_string(status.reason)));
  row.set_detail(to_utf8(status.detail));
  row.set_share(target.share);
  row.set_flows(status.flows);
  row.set_id(status.id);
  row.set_next_hop(target.next_hop.resolved ? format_mac(target.next_hop.mac) + " via " + to_utf8(target.next_hop.interface)
                                            : "unresolved");
  row.set_since_unix_ms(static_cast<std::uint64_t>(std::max<std::int64_t>(status.since_unix_ms, 0)));
  const bool draining = status.state == abi::TargetState::draining || status.state == abi::TargetState::unhealthy_draining;
  if (status.state == abi::TargetState::draining) row.set_drain_then(std::string(then_word(target.drain_then)));
  row.set_drain_remaining_ms(draining ? std::max<std::int64_t>(status.drain_ends_unix_ms - now_unix_ms, 0) : -1);
}

void fill(api::WorkerRow& row, const LiveWorker& worker) {
  const explain::PacketTotals totals = explain::totals(worker);
  row.set_worker(worker.worker);
  row.set_lcore(worker.lcore);
  row.set_epoch(worker.generation.epoch);
  row.set_generation(worker.generation.n);
  row.set_flows(worker.flows);
  row.set_flow_capacity(worker.flow_capacity);
  row.set_rx_packets(totals.rx_packets);
  row.set_tx_packets(totals.tx_packets);
  row.set_forwarded_packets(totals.forwarded_packets);
  row.set_punted_packets(totals.punted_packets);
  row.set_dropped_packets(totals.dropped_packets);
  row.set_busy(worker.busy);
}

void fill(api::Event& row, const Event& event) {
  row.set_unix_ms(static_cast<std::uint64_t>(std::max<std::int64_t>(event.unix_ms, 0)));
  row.set_object(event.object);
  row.set_old_state(event.old_state);
  row.set_new_state(event.new_state);
  row.set_reason(event.reason);
  row.set_detail(to_utf8(event.detail));
  row.set_sequence(event.sequence);
}

void fill(api::Violation& row, const Violation& violation) {
  row.set_file(to_utf8(violation.file));
  row.set_line(violation.line);
  row.set_field(to_utf8(violation.field));
  row.set_text(to_utf8(violation.text));
}

void fill(api::Change& row, const Change& change) {
  row.set_kind(change.kind);
  row.set_object(to_utf8(change.object));
  row.set_field(change.field);
  row.set_old_value(to_utf8(change.old_value));
  row.set_new_value(to_utf8(change.new_value));
}

}  // namespace lb::cp
