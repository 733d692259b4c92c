#include "cp/config/render.h"

#include <algorithm>
#include <string_view>

#include "cp/config/fields.h"
#include "cp/config/values.h"

namespace lb::cp {
namespace {

// Text that YAML would read as something else stands in quotes.
std::string scalar(std::string_view text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '-' ||
           c == '/';
  });
  if (plain && text[0] != '-' && text != "null" && text != "Null" && text != "NULL") return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

// `attributes.x.y` and `health_check.z` stand in maps of their own, the rest of the name stays a path.
std::string map_of(const Fields& fields) {
  std::string text;
  std::string_view open;
  for (const auto& [name, value] : fields) {
    if (value.empty()) continue;
    const std::size_t dot = name.find('.');
    const std::string_view section = dot == std::string::npos ? std::string_view{} : std::string_view(name).substr(0, dot);
    if (section != open && !section.empty()) text.append(section).append(":\n");
    open = section;
    text.append(section.empty() ? "" : "  ").append(section.empty() ? name : name.substr(dot + 1));
    text.append(": ").append(scalar(value)).append("\n");
  }
  return text;
}

std::string named(const std::string& name, const Fields& fields) {
  return "name: " + scalar(name) + "\n" + map_of(fields);
}

// As an entry of a list below a top-level key.
std::string entry(const std::string& map) {
  std::string text;
  for (std::size_t at = 0; at < map.size();) {
    const std::size_t end = map.find('\n', at) + 1;
    text.append(at == 0 ? "  - " : "    ").append(map, at, end - at);
    at = end;
  }
  return text;
}

template <typename List>
void add_list(std::string& text, const char* key, const List& list) {
  if (list.empty()) return;
  text.append("\n").append(key).append(":\n");
  for (const auto& object : list) text += entry(render(object));
}

}  // namespace

std::string render(const StaticNeighbour& neighbour) {
  return "address: " + scalar(format_address(neighbour.address)) + "\n" + map_of(fields_of(neighbour));
}

std::string render(const Vip& vip) {
  return named(vip.name, fields_of(vip));
}

std::string render(const Listener& listener) {
  Fields fields = fields_of(listener);
  std::erase_if(fields, [](const auto& field) { return field.first == "target_groups"; });
  std::string text = named(listener.name, fields) + "target_groups:\n";
  for (const WeightedGroup& group : listener.groups) {
    text += "  - {name: " + scalar(group.name) + ", weight: " + std::to_string(group.weight) + "}\n";
  }
  return text;
}

std::string render(const Target& target) {
  std::string text = "{address: " + scalar(format_address(target.address));
  if (target.port != 0) text += ", port: " + std::to_string(target.port);
  if (!target.server_id.empty()) text += ", server_id: " + scalar(target.server_id);
  return text + ", weight: " + std::to_string(target.weight) + "}\n";
}

std::string render(const TargetGroup& group, Secrets secrets) {
  std::string text = named(group.name, fields_of(group));
  if (!group.quic.empty()) text += "quic:\n  configs:\n";
  for (const QuicConfig& config : group.quic) {
    text += "    - {id: " + std::to_string(config.id);
    if (config.key) text += ", key: " + (secrets == Secrets::hidden ? "hidden" : scalar(format_hex(*config.key)));
    text += ", server_id_length: " + std::to_string(config.server_id_bytes) +
            ", nonce_length: " + std::to_string(config.nonce_bytes) + "}\n";
  }
  if (!group.targets.empty()) text += "targets:\n";
  for (const Target& target : group.targets) text += "  - " + render(target);
  return text;
}

std::string render(const SecurityGroup& group) {
  std::string text = named(group.name, fields_of(group));
  if (!group.rules.empty()) text += "rules:\n";
  for (const SecurityRule& rule : group.rules) {
    text += std::string("  - {action: ") + (rule.allow ? "allow" : "deny") +
            ", source: " + scalar(rule.any_source ? "any" : format_prefix(rule.source));
    if (rule.protocol != ListenerProtocol::tcp_udp) text += ", protocol: " + std::string(to_string(rule.protocol));
    const PortRange ports{rule.first_port, rule.last_port};
    if (ports != kAnyPort) text += ", port: " + scalar(format_port_range(ports));
    text += "}\n";
  }
  return text;
}

std::string render(const Config& config, Secrets secrets) {
  std::string text = "version: 1\n" + map_of(global_fields_of(config));
  add_list(text, "vips", config.vips);
  add_list(text, "listeners", config.listeners);
  if (!config.groups.empty()) text += "\ntarget_groups:\n";
  for (const TargetGroup& group : config.groups) text += entry(render(group, secrets));
  add_list(text, "security_groups", config.security_groups);
  add_list(text, "static_neighbours", config.static_neighbours);
  return text;
}

}  // namespace lb::cp
