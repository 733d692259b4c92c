// The body of the state file. Names are those of the structs; a field that is missing keeps its default, so that a newer
// lb-cp reads an older one's file.
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cp/control/state_file.h"

namespace lb::cp {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kHead = R"({"lb_state":1,"checksum":")";
constexpr std::string_view kMiddle = R"(","body":)";
constexpr std::string_view kTail = "}\n";
constexpr std::size_t kChecksumLetters = 16;

// FNV-1a, 64 bits: finds torn and flipped bytes, keeps nobody out.
std::string checksum(std::string_view bytes) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  std::array<char, kChecksumLetters + 1> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(hash));
  return {text.data(), kChecksumLetters};
}

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
          {"unhealthy_threshold", check.unhealthy_threshold}};
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
}

Json to_json(const TargetRecord& target) {
  const TargetStatus& status = target.status;
  return {{"address", format_address(target.key.address)},
          {"port", target.key.port},
          {"weight", target.weight},
          {"id", status.id},
          {"health", target.health},
          {"failure", target.failure},
          {"unhealthy_since", target.unhealthy_since_unix_ms},
          {"state", status.state},
          {"reason", status.reason},
          {"detail", status.detail},
          {"since", status.since_unix_ms},
          {"drained", status.drained_by_operator},
          {"removed", status.removed},
          {"drain_ends", status.drain_ends_unix_ms}};
}

TargetRecord target_of(const Json& json, const std::string& group) {
  TargetRecord target;
  TargetStatus& status = target.status;
  target.key.group = group;
  read(json, "address", target.key.address);
  read(json, "port", target.key.port);
  read(json, "weight", target.weight);
  read(json, "id", status.id);
  read(json, "health", target.health);
  read(json, "failure", target.failure);
  read(json, "unhealthy_since", target.unhealthy_since_unix_ms);
  read(json, "state", status.state);
  read(json, "reason", status.reason);
  read(json, "detail", status.detail);
  read(json, "since", status.since_unix_ms);
  read(json, "drained", status.drained_by_operator);
  read(json, "removed", status.removed);
  read(json, "drain_ends", status.drain_ends_unix_ms);
  return target;
}

Json to_json(const GroupRecord& group) {
  const TargetGroup& config = group.config;
  Json targets = Json::array();
  for (const auto& [key, target] : group.targets) targets.push_back(to_json(target));
  return {{"name", config.name},
          {"protocol", config.protocol},
          {"port", config.port},
          {"mode", config.mode},
          {"stickiness", config.stickiness},
          {"table_size", config.table_size},
          {"deregistration_delay", config.deregistration_delay.count()},
          {"terminate_on_deregistration", config.terminate_on_deregistration},
          {"terminate_on_unhealthy", config.terminate_on_unhealthy},
          {"unhealthy_draining_interval", config.unhealthy_draining_interval.count()},
          {"minimum_healthy_count", config.minimum_healthy_count},
          {"minimum_healthy_percentage", config.minimum_healthy_percentage},
          {"tcp_idle_timeout", config.tcp_idle_timeout.count()},
          {"udp_idle_timeout", config.udp_idle_timeout.count()},
          {"health_check", to_json(config.health_check)},
          {"removed", group.removed},
          {"fail_open", group.fail_open},
          {"recovered", group.recovered_unix_ms},
          {"targets", std::move(targets)}};
}

GroupRecord group_of(const Json& json) {
  GroupRecord group;
  TargetGroup& config = group.config;
  read(json, "name", config.name);
  read(json, "protocol", config.protocol);
  read(json, "port", config.port);
  read(json, "mode", config.mode);
  read(json, "stickiness", config.stickiness);
  read(json, "table_size", config.table_size);
  read(json, "deregistration_delay", config.deregistration_delay);
  read(json, "terminate_on_deregistration", config.terminate_on_deregistration);
  read(json, "terminate_on_unhealthy", config.terminate_on_unhealthy);
  read(json, "unhealthy_draining_interval", config.unhealthy_draining_interval);
  read(json, "minimum_healthy_count", config.minimum_healthy_count);
  read(json, "minimum_healthy_percentage", config.minimum_healthy_percentage);
  read(json, "tcp_idle_timeout", config.tcp_idle_timeout);
  read(json, "udp_idle_timeout", config.udp_idle_timeout);
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

Json to_json(const ListenerRecord& listener) {
  Json groups = Json::array();
  for (const WeightedGroup& share : listener.config.groups) groups.push_back({share.name, share.weight});
  Json former = Json::array();
  for (const FormerGroup& group : listener.former) former.push_back({group.name, group.ends_unix_ms});
  return {{"name", listener.config.name},
          {"vip", listener.config.vip},
          {"address", format_address(listener.address)},
          {"protocol", listener.config.protocol},
          {"first_port", listener.config.first_port},
          {"last_port", listener.config.last_port},
          {"groups", std::move(groups)},
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
  for (const Json& group : body.at("groups")) state.roster.groups.push_back(group_of(group));
  for (const Json& listener : body.at("listeners")) state.roster.listeners.push_back(listener_of(listener));
  read(body, "leaving_ids", state.roster.leaving_ids);
  read(body, "leaving_counter_pairs", state.roster.leaving_counter_pairs);
  return state;
}

}  // namespace

std::string encode_state(const SavedState& state) {
  Json body = {{"config_text", state.config_text},
               {"config_file", state.config_file},
               {"epoch", state.epoch},
               {"groups", Json::array()},
               {"listeners", Json::array()},
               {"leaving_ids", state.roster.leaving_ids},
               {"leaving_counter_pairs", state.roster.leaving_counter_pairs}};
  for (const GroupRecord& group : state.roster.groups) body["groups"].push_back(to_json(group));
  for (const ListenerRecord& listener : state.roster.listeners) body["listeners"].push_back(to_json(listener));
  const std::string text = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string file;
  file.reserve(text.size() + 64);
  return file.append(kHead).append(checksum(text)).append(kMiddle).append(text).append(kTail);
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
