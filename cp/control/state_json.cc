// The body of the state file. Names are those of the structs; a field that is missing keeps its default, so that a newer
// lb-cp reads an older one's file.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cp/control/durable.h"
#include "cp/control/state_file.h"

namespace lb::cp {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kHead = R"({"lb_state":1,"checksum":")";
constexpr std::string_view kMiddle = R"(","body":)";
constexpr std::string_view kTail = "}\n";
constexpr std::size_t kChecksumLetters = 16;

template <typename T>
void read(const Json& json, const char* name, T& value) {
  const auto at = json.find(name);
  if (at == json.end()) return;
  if constexpr (std::is_enum_v<T>) {
    value = static_cast<T>(at->get<std::underlying_type_t<T>>());
  } else {
    value = at->get<T>();
  }
}

void read(const Json& json, const char* name, std::chrono::seconds& value) {
  if (const auto at = json.find(name); at != json.end()) value = std::chrono::seconds(at->get<std::int64_t>());
}

void read(const Json& json, const char* name, abi::IpAddress& value) {
  const auto at = json.find(name);
  if (at == json.end()) return;
  const auto address = parse_address(at->get<std::string>());
  if (!address) throw std::runtime_error(std::string(name) + " is not an address");
  value = *address;
}

void read(const Json& json, const char* name, AddressPrefix& value) {
  const auto at = json.find(name);
  if (at == json.end()) return;
  const auto prefix = parse_prefix(at->get<std::string>());
  if (!prefix) throw std::runtime_error(std::string(name) + " is not an address or prefix");
  value = *prefix;
}

Json to_json(const HealthCheck& check) {
  Json matcher = Json::array();
  for (const StatusRange& range : check.matcher) matcher.push_back({range.first, range.last});
  return {{"protocol", check.protocol},
          {"port", check.port},
          {"path", check.path},
          {"host", check.host},
          {"matcher", matcher},
          {"interval", check.interval.count()},
          {"timeout", check.timeout.count()},
          {"healthy_threshold", check.healthy_threshold},
          {"unhealthy_threshold", check.unhealthy_threshold},
          {"http2", check.http2},
          {"tls_verify", check.tls_verify},
          {"send", check.send},
          {"expect", check.expect},
          {"removal_limit", check.removal_limit_percent},
          {"flap_damping", check.flap_damping},
          {"through_tunnel", check.through_tunnel}};
}

void read(const Json& json, HealthCheck& check) {
  read(json, "protocol", check.protocol);
  read(json, "port", check.port);
  read(json, "path", check.path);
  read(json, "host", check.host);
  if (json.contains("matcher")) check.matcher.clear();
  for (const Json& range : json.value("matcher", Json::array())) check.matcher.push_back({range.at(0), range.at(1)});
  read(json, "interval", check.interval);
  read(json, "timeout", check.timeout);
  read(json, "healthy_threshold", check.healthy_threshold);
  read(json, "unhealthy_threshold", check.unhealthy_threshold);
  read(json, "http2", check.http2);
  read(json, "tls_verify", check.tls_verify);
  read(json, "send", check.send);
  read(json, "expect", check.expect);
  read(json, "removal_limit", check.removal_limit_percent);
  read(json, "flap_damping", check.flap_damping);
  read(json, "through_tunnel", check.through_tunnel);
}

Json to_json(const std::vector<QuicConfig>& configs) {
  Json list = Json::array();
  for (const QuicConfig& config : configs) {
    list.push_back({config.id, config.server_id_bytes, config.nonce_bytes, config.key ? format_hex(*config.key) : ""});
  }
  return list;
}

void read(const Json& json, const char* name, std::vector<QuicConfig>& configs) {
  for (const Json& from : json.value(name, Json::array())) {
    QuicConfig& config = configs.emplace_back();
    config.id = from.at(0);
    config.server_id_bytes = from.at(1);
    config.nonce_bytes = from.at(2);
    const auto key = parse_hex(from.at(3).get<std::string>());
    if (!key || (!key->empty() && key->size() != 16)) throw std::runtime_error("a key of " + std::string(name) + " is none");
    if (!key->empty()) std::ranges::copy(*key, config.key.emplace().begin());
  }
}

std::string dumped(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// JSON text without a tree of values: there may be a hundred thousand targets.
void append(std::string& out, std::int64_t number) {
  std::array<char, 24> digits{};
  out.append(digits.data(), std::to_chars(digits.begin(), digits.end(), number).ptr);
}

void append(std::string& out, std::string_view text) {
  // Tabs and line ends aside, what is not plain ASCII is left to the library: it knows UTF-8.
  const auto plain = [](char c) { return (c >= 0x20 && c < 0x7f) || c == '\n' || c == '\t'; };
  if (!std::ranges::all_of(text, plain)) {
    out += dumped(text);
    return;
  }
  out += '"';
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find_first_of("\"\\\n\t", at), text.size());
    out.append(text.substr(at, end - at));
    if (end < text.size()) (out += '\\') += text[end] == '\n' ? 'n' : text[end] == '\t' ? 't' : text[end];
    at = end + 1;
  }
  out += '"';
}

// A value that the reader has by default is left out.
template <typename T>
void append_field(std::string& out, const char* name, const T& value, const T& usual) {
  if (value == usual) return;
  (((out += out.back() == '{' ? "" : ",") += '"') += name) += "\":";
  if constexpr (std::is_convertible_v<T, std::string_view>) {
    append(out, std::string_view(value));
  } else if constexpr (std::is_same_v<T, bool>) {
    out += value ? "true" : "false";
  } else {
    append(out, static_cast<std::int64_t>(value));
  }
}

void append(std::string& out, const TargetRecord& target) {
  static const TargetRecord kUsual;
  const TargetStatus& status = target.status;
  out += '{';
  append_field(out, "address", format_address(target.key.address), std::string());
  append_field(out, "port", target.key.port, kUsual.key.port);
  append_field(out, "weight", target.weight, kUsual.weight);
  append_field(out, "server_id", target.server_id, kUsual.server_id);
  append_field(out, "id", status.id, kUsual.status.id);
  append_field(out, "health", target.health, kUsual.health);
  append_field(out, "failure", target.failure, kUsual.failure);
  append_field(out, "unhealthy_since", target.unhealthy_since_unix_ms, kUsual.unhealthy_since_unix_ms);
  append_field(out, "joined_late", target.joined_late, kUsual.joined_late);
  append_field(out, "ramp_from", target.ramp_from_unix_ms, kUsual.ramp_from_unix_ms);
  append_field(out, "state", status.state, kUsual.status.state);
  append_field(out, "reason", status.reason, kUsual.status.reason);
  append_field(out, "detail", status.detail, kUsual.status.detail);
  append_field(out, "since", status.since_unix_ms, kUsual.status.since_unix_ms);
  append_field(out, "drained", status.drained_by_operator, kUsual.status.drained_by_operator);
  append_field(out, "removed", status.removed, kUsual.status.removed);
  append_field(out, "drain_ends", status.drain_ends_unix_ms, kUsual.status.drain_ends_unix_ms);
  if (status.drain_then) append_field(out, "drain_then", then_word(*status.drain_then), std::string_view());
  out += '}';
}

TargetRecord target_of(const Json& json, const std::string& group) {
  TargetRecord target;
  TargetStatus& status = target.status;
  target.key.group = group;
  read(json, "address", target.key.address);
  read(json, "port", target.key.port);
  read(json, "weight", target.weight);
  read(json, "server_id", target.server_id);
  read(json, "id", status.id);
  read(json, "health", target.health);
  read(json, "failure", target.failure);
  read(json, "unhealthy_since", target.unhealthy_since_unix_ms);
  read(json, "joined_late", target.joined_late);
  read(json, "ramp_from", target.ramp_from_unix_ms);
  read(json, "state", status.state);
  read(json, "reason", status.reason);
  read(json, "detail", status.detail);
  read(json, "since", status.since_unix_ms);
  read(json, "drained", status.drained_by_operator);
  read(json, "removed", status.removed);
  read(json, "drain_ends", status.drain_ends_unix_ms);
  if (const auto then = json.find("drain_then"); then != json.end())
    status.drain_then = parse_then(then->get<std::string>());
  return target;
}

// Without its targets.
Json to_json(const GroupRecord& group) {
  const TargetGroup& config = group.config;
  Json snat_addresses = Json::array();
  for (const abi::IpAddress& address : config.snat_addresses) snat_addresses.push_back(format_address(address));
  return {{"name", config.name},
          {"protocol", config.protocol},
          {"port", config.port},
          {"mode", config.mode},
          {"stickiness", config.stickiness},
          {"gue_port", config.gue_port},
          {"gue_ipv6_zero_checksum", config.gue_ipv6_zero_checksum},
          {"gre_key", config.gre_key ? Json(*config.gre_key) : Json()},
          {"table_size", config.table_size},
          {"deregistration_delay", config.deregistration_delay.count()},
          {"after_deregistration", config.after_deregistration},
          {"algorithm", config.algorithm},
          {"keep_unhealthy_flows", config.keep_unhealthy_flows},
          {"geneve_class", config.geneve_class},
          {"geneve_vpce_id", config.geneve_vpce_id},
          {"geneve_attachment_id", config.geneve_attachment_id},
          {"snat_addresses", std::move(snat_addresses)},
          {"proxy_protocol_v2", config.proxy_protocol_v2},
          {"client_address_option", config.client_address_option},
          {"mss_clamp", config.mss_clamp},
          {"outer_fragmentation", config.outer_fragmentation},
          {"slow_start", config.slow_start.count()},
          {"terminate_on_unhealthy", config.terminate_on_unhealthy},
          {"unhealthy_draining_interval", config.unhealthy_draining_interval.count()},
          {"minimum_healthy_count", config.minimum_healthy_count},
          {"minimum_healthy_percentage", config.minimum_healthy_percentage},
          {"tcp_idle_timeout", config.tcp_idle_timeout.count()},
          {"udp_idle_timeout", config.udp_idle_timeout.count()},
          {"quic", to_json(config.quic)},
          {"health_check", to_json(config.health_check)},
          {"removed", group.removed},
          {"fail_open", group.fail_open},
          {"recovered", group.recovered_unix_ms}};
}

void append(std::string& out, const GroupRecord& group) {
  out += dumped(to_json(group));
  out.back() = ',';  // the object goes on
  out += "\"targets\":[";
  for (const auto& [key, target] : group.targets) {
    append(out, target);
    out += ',';
  }
  if (out.back() == ',') out.pop_back();
  out += "]}";
}

GroupRecord group_of(const Json& json) {
  GroupRecord group;
  TargetGroup& config = group.config;
  read(json, "name", config.name);
  read(json, "protocol", config.protocol);
  read(json, "port", config.port);
  read(json, "mode", config.mode);
  read(json, "stickiness", config.stickiness);
  read(json, "gue_port", config.gue_port);
  read(json, "gue_ipv6_zero_checksum", config.gue_ipv6_zero_checksum);
  if (const auto key = json.find("gre_key"); key != json.end() && !key->is_null())
    config.gre_key = key->get<std::uint32_t>();
  read(json, "table_size", config.table_size);
  read(json, "deregistration_delay", config.deregistration_delay);
  read(json, "after_deregistration", config.after_deregistration);
  read(json, "algorithm", config.algorithm);
  read(json, "keep_unhealthy_flows", config.keep_unhealthy_flows);
  read(json, "geneve_class", config.geneve_class);
  read(json, "geneve_vpce_id", config.geneve_vpce_id);
  read(json, "geneve_attachment_id", config.geneve_attachment_id);
  for (const Json& address : json.value("snat_addresses", Json::array())) {
    const auto parsed = parse_address(address.get<std::string>());
    if (!parsed) throw std::runtime_error("one of snat_addresses is no address");
    config.snat_addresses.push_back(*parsed);
  }
  read(json, "proxy_protocol_v2", config.proxy_protocol_v2);
  read(json, "client_address_option", config.client_address_option);
  read(json, "mss_clamp", config.mss_clamp);
  read(json, "outer_fragmentation", config.outer_fragmentation);
  read(json, "slow_start", config.slow_start);
  read(json, "terminate_on_unhealthy", config.terminate_on_unhealthy);
  read(json, "unhealthy_draining_interval", config.unhealthy_draining_interval);
  read(json, "minimum_healthy_count", config.minimum_healthy_count);
  read(json, "minimum_healthy_percentage", config.minimum_healthy_percentage);
  read(json, "tcp_idle_timeout", config.tcp_idle_timeout);
  read(json, "udp_idle_timeout", config.udp_idle_timeout);
  read(json, "quic", config.quic);
  read(json.value("health_check", Json::object()), config.health_check);
  read(json, "removed", group.removed);
  read(json, "fail_open", group.fail_open);
  read(json, "recovered", group.recovered_unix_ms);
  for (const Json& target : json.at("targets")) {
    TargetRecord record = target_of(target, config.name);
    TargetKey key = record.key;
    group.targets.emplace(std::move(key), std::move(record));
  }
  return group;
}

Json to_json(const RateSet& set) {
  return {set.new_flows_per_second, set.packets_per_second, set.bytes_per_second, set.concurrent_flows};
}

Json to_json(const RateLimits& limits) {
  return {{"per_source", to_json(limits.per_source)},
          {"per_listener", to_json(limits.per_listener)},
          {"action", limits.action},
          {"dscp", limits.dscp},
          {"prefix_v4", limits.prefix_v4},
          {"prefix_v6", limits.prefix_v6}};
}

void read(const Json& json, const char* name, RateSet& set) {
  const auto at = json.find(name);
  if (at == json.end()) return;
  set = {at->at(0).get<std::uint64_t>(), at->at(1).get<std::uint64_t>(), at->at(2).get<std::uint64_t>(),
         at->at(3).get<std::uint64_t>()};
}

void read(const Json& json, RateLimits& limits) {
  read(json, "per_source", limits.per_source);
  read(json, "per_listener", limits.per_listener);
  read(json, "action", limits.action);
  read(json, "dscp", limits.dscp);
  read(json, "prefix_v4", limits.prefix_v4);
  read(json, "prefix_v6", limits.prefix_v6);
}

Json to_json(const ListenerRecord& listener) {
  Json groups = Json::array();
  for (const WeightedGroup& share : listener.config.groups) groups.push_back({share.name, share.weight});
  Json former = Json::array();
  for (const FormerGroup& group : listener.former) former.push_back({group.name, group.ends_unix_ms});
  return {{"name", listener.config.name},
          {"vip", listener.config.vip},
          {"address", format_prefix(listener.address)},
          {"protocol", listener.config.protocol},
          {"first_port", listener.config.first_port},
          {"last_port", listener.config.last_port},
          {"groups", std::move(groups)},
          {"security_group", listener.config.security_group},
          {"interface", listener.config.interface},
          {"rate_limits", to_json(listener.config.rate_limits)},
          {"former", std::move(former)},
          {"counter_index", listener.counter_index},
          {"draining", listener.draining},
          {"drain_ends", listener.drain_ends_unix_ms}};
}

ListenerRecord listener_of(const Json& json) {
  ListenerRecord listener;
  read(json, "name", listener.config.name);
  read(json, "vip", listener.config.vip);
  read(json, "address", listener.address);
  read(json, "protocol", listener.config.protocol);
  read(json, "first_port", listener.config.first_port);
  read(json, "last_port", listener.config.last_port);
  for (const Json& share : json.at("groups")) listener.config.groups.push_back({share.at(0), share.at(1)});
  for (const Json& group : json.at("former")) listener.former.push_back({group.at(0), group.at(1)});
  read(json, "security_group", listener.config.security_group);
  read(json, "interface", listener.config.interface);
  read(json.value("rate_limits", Json::object()), listener.config.rate_limits);
  read(json, "counter_index", listener.counter_index);
  read(json, "draining", listener.draining);
  read(json, "drain_ends", listener.drain_ends_unix_ms);
  return listener;
}

SavedState state_of(const Json& body) {
  SavedState state;
  read(body, "config_text", state.config_text);
  read(body, "config_file", state.config_file);
  read(body, "epoch", state.epoch);
  if (const auto record = body.find("config_record"); record != body.end()) state.record = record_of(*record);
  for (const Json& group : body.at("groups")) state.roster.groups.push_back(group_of(group));
  for (const Json& listener : body.at("listeners")) state.roster.listeners.push_back(listener_of(listener));
  read(body, "leaving_ids", state.roster.leaving_ids);
  read(body, "stats_instance", state.stats_instance);
  read(body, "frozen_since", state.freeze.since_unix_ms);
  read(body, "frozen_note", state.freeze.note);
  for (const Json& start : body.value("listener_starts", Json::array()))
    state.listener_starts.push_back({start.at(0), start.at(1), start.at(2), start.at(3)});
  read(body, "leaving_counter_pairs", state.roster.leaving_counter_pairs);
  return state;
}

}  // namespace

nlohmann::json to_json(const ConfigRecord& record) {
  return {{"number", record.number},           {"unix_ms", record.unix_ms}, {"epoch", record.generation.epoch},
          {"generation", record.generation.n}, {"cause", record.cause},     {"file", record.file},
          {"changes", record.changes}};
}

ConfigRecord record_of(const nlohmann::json& json) {
  ConfigRecord record;
  read(json, "number", record.number);
  read(json, "unix_ms", record.unix_ms);
  read(json, "epoch", record.generation.epoch);
  read(json, "generation", record.generation.n);
  read(json, "cause", record.cause);
  read(json, "file", record.file);
  read(json, "changes", record.changes);
  return record;
}

std::string encode_state(const SavedState& state) {
  Json starts = Json::array();
  for (const ListenerCounters& start : state.listener_starts)
    starts.push_back({start.packets, start.bytes, start.new_flows, start.dropped_packets});
  std::size_t targets = 0;
  for (const GroupRecord& group : state.roster.groups) targets += group.targets.size();
  constexpr std::size_t kTargetBytes = 96;  // about
  std::string file;
  file.reserve(2 * state.config_text.size() + targets * kTargetBytes + (1U << 16));
  file.append(kHead).append(kChecksumLetters, '0').append(kMiddle);
  const std::size_t begin = file.size();
  file += Json{{"epoch", state.epoch},
               {"config_record", to_json(state.record)},
               {"leaving_ids", state.roster.leaving_ids},
               {"stats_instance", state.stats_instance},
               {"frozen_since", state.freeze.since_unix_ms},
               {"frozen_note", state.freeze.note},
               {"listener_starts", std::move(starts)},
               {"leaving_counter_pairs", state.roster.leaving_counter_pairs}}
              .dump(-1, ' ', false, Json::error_handler_t::replace);
  file.back() = ',';  // the object goes on
  append(file += "\"config_file\":", state.config_file);
  append(file += ",\"config_text\":", state.config_text);
  file += ",\"listeners\":[";
  for (const ListenerRecord& listener : state.roster.listeners)
    (file += file.back() == '[' ? "" : ",") += dumped(to_json(listener));
  file += "],\"groups\":[";
  for (const GroupRecord& group : state.roster.groups) append(file += file.back() == '[' ? "" : ",", group);
  file += "]}";
  file.replace(kHead.size(), kChecksumLetters, checksum(std::string_view(file).substr(begin)));
  return file.append(kTail);
}

std::string checksum_of(std::string_view encoded) {
  return std::string(encoded.substr(std::min(kHead.size(), encoded.size()), kChecksumLetters));
}

std::string encode_change(std::span<const TargetRecord* const> targets) {
  std::string body = "[";
  for (const TargetRecord* target : targets) {
    (body += body.back() == '[' ? "[" : ",[") += dumped(target->key.group);
    append(body += ',', *target);
    body += ']';
  }
  body += ']';
  return checksum(body) + " " + body + "\n";
}

bool apply_change(std::string_view line, RosterMemory& roster) {
  if (line.size() < kChecksumLetters + 1 || line[kChecksumLetters] != ' ') return false;
  const std::string_view body = line.substr(kChecksumLetters + 1);
  if (line.substr(0, kChecksumLetters) != checksum(body)) return false;
  std::vector<TargetRecord> targets;
  try {
    for (const Json& item : Json::parse(body)) targets.push_back(target_of(item.at(1), item.at(0).get<std::string>()));
  } catch (const std::exception&) {
    return false;
  }
  for (TargetRecord& target : targets) {
    const auto group =
        std::ranges::find(roster.groups, target.key.group, [](const GroupRecord& record) { return record.config.name; });
    if (group == roster.groups.end()) continue;
    if (const auto known = group->targets.find(target.key); known != group->targets.end()) known->second = std::move(target);
  }
  return true;
}

tl::expected<SavedState, std::string> decode_state(std::string_view bytes) {
  constexpr std::size_t kBodyOffset = kHead.size() + kChecksumLetters + kMiddle.size();
  if (bytes.size() < kBodyOffset + kTail.size() || !bytes.ends_with(kTail))
    return tl::unexpected<std::string>("it is cut short");
  if (!bytes.starts_with(kHead)) return tl::unexpected<std::string>("it is not a state file of this version");
  const std::string_view written = bytes.substr(kHead.size(), kChecksumLetters);
  const std::string_view text = bytes.substr(kBodyOffset, bytes.size() - kBodyOffset - kTail.size());
  if (bytes.substr(kBodyOffset - kMiddle.size(), kMiddle.size()) != kMiddle || written != checksum(text)) {
    return tl::unexpected<std::string>("its checksum is wrong");
  }
  try {
    return state_of(Json::parse(text));
  } catch (const std::exception& error) {
    return tl::unexpected<std::string>("its body: " + std::string(error.what()));
  }
}

}  // namespace lb::cp
