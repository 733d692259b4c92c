#include "cp/config/fields.h"

#include "cp/config/values.h"

namespace lb::cp {
namespace {

std::string number(std::uint64_t value) {
  return std::to_string(value);
}
std::string seconds(std::chrono::seconds value) {
  return std::to_string(value.count());
}
std::string boolean(bool value) {
  return value ? "true" : "false";
}
std::string port(std::uint16_t value) {
  return value == 0 ? "" : std::to_string(value);
}

std::string type_of(abi::Stickiness stickiness) {
  switch (stickiness) {
    case abi::Stickiness::five_tuple:
    case abi::Stickiness::symmetric_five_tuple: return "";
    case abi::Stickiness::source_ip: return "source_ip";
    case abi::Stickiness::symmetric_ip:
    case abi::Stickiness::source_ip_dest_ip: return "source_ip_dest_ip";
    case abi::Stickiness::symmetric_ip_proto:
    case abi::Stickiness::source_ip_dest_ip_proto: return "source_ip_dest_ip_proto";
  }
  return "";
}

std::string name_of(ProbeProtocol protocol) {
  switch (protocol) {
    case ProbeProtocol::tcp: return "TCP";
    case ProbeProtocol::http: return "HTTP";
    case ProbeProtocol::https: return "HTTPS";
    case ProbeProtocol::udp: return "UDP";
    case ProbeProtocol::icmp: return "ICMP";
    case ProbeProtocol::none: return "NONE";
  }
  return "";
}

void add_geneve(Fields& fields, const TargetGroup& group) {
  const char* failover = group.keep_unhealthy_flows ? "no_rebalance" : "rebalance";
  fields.emplace_back("attributes.target_failover.on_deregistration", failover);
  fields.emplace_back("attributes.target_failover.on_unhealthy", failover);
  fields.emplace_back("attributes.geneve.option_class", number(group.geneve_class));
  fields.emplace_back("attributes.geneve.vpce_id", number(group.geneve_vpce_id));
  fields.emplace_back("attributes.geneve.attachment_id", number(group.geneve_attachment_id));
}

void add_health_check(Fields& fields, const HealthCheck& check) {
  const bool http = check.protocol == ProbeProtocol::http || check.protocol == ProbeProtocol::https;
  fields.emplace_back("health_check.protocol", name_of(check.protocol));
  fields.emplace_back("health_check.port", check.port == 0 ? "traffic-port" : number(check.port));
  if (http) {
    fields.emplace_back("health_check.path", check.path);
    fields.emplace_back("health_check.matcher", format_matcher(check.matcher));
    fields.emplace_back("health_check.host", check.host);
    fields.emplace_back("health_check.http_version", check.http2 ? "2" : "1.1");
  }
  if (check.protocol == ProbeProtocol::https) fields.emplace_back("health_check.tls_verify", boolean(check.tls_verify));
  if (check.protocol == ProbeProtocol::udp) {
    fields.emplace_back("health_check.send", check.send);
    fields.emplace_back("health_check.expect", check.expect);
  }
  fields.emplace_back("health_check.interval", seconds(check.interval));
  fields.emplace_back("health_check.timeout", seconds(check.timeout));
  fields.emplace_back("health_check.healthy_threshold", number(check.healthy_threshold));
  fields.emplace_back("health_check.unhealthy_threshold", number(check.unhealthy_threshold));
  fields.emplace_back("health_check.removal_limit", number(check.removal_limit_percent));
  fields.emplace_back("health_check.flap_damping", boolean(check.flap_damping));
  fields.emplace_back("health_check.through", check.through_tunnel ? "tunnel" : "direct");
}

void add_rate_set(Fields& fields, const std::string& path, const RateSet& set) {
  const auto add = [&](const char* name, std::uint64_t value) {
    fields.emplace_back(path + name, value == 0 ? "" : std::to_string(value));
  };
  add(".new_flows_per_second", set.new_flows_per_second);
  add(".packets_per_second", set.packets_per_second);
  add(".bytes_per_second", set.bytes_per_second);
  add(".concurrent_flows", set.concurrent_flows);
}

void add_rates(Fields& fields, const RateLimits& limits) {
  add_rate_set(fields, "rate_limits.per_source", limits.per_source);
  add_rate_set(fields, "rate_limits.per_listener", limits.per_listener);
  const bool mark = limits.action == RateAction::mark;
  fields.emplace_back("rate_limits.action", mark ? "mark" : limits.action == RateAction::reset ? "reset" : "drop");
  fields.emplace_back("rate_limits.dscp", mark ? number(limits.dscp) : "");
  fields.emplace_back("rate_limits.prefix_length_v4", number(limits.prefix_v4));
  fields.emplace_back("rate_limits.prefix_length_v6", number(limits.prefix_v6));
}

}  // namespace

std::string format_shares(const std::vector<WeightedGroup>& groups) {
  std::string text;
  for (const WeightedGroup& group : groups) text += (text.empty() ? "" : ",") + group.name + ":" + number(group.weight);
  return text;
}

Fields fields_of(const Vip& vip) {
  return {{"address", format_prefix(vip.prefix())}, {"icmp_echo", vip.icmp_echo ? "true" : "false"}};
}

Fields fields_of(const Listener& listener) {
  const bool gateway = listener.protocol == ListenerProtocol::geneve;
  Fields fields{{"vip", listener.vip},
                {"interface", listener.interface},
                {"protocol", std::string(to_string(listener.protocol))},
                {"port", gateway ? "" : format_port_range({listener.first_port, listener.last_port})},
                {"target_groups", format_shares(listener.groups)},
                {"security_group", listener.security_group}};
  if (listener.rate_limits.limits()) add_rates(fields, listener.rate_limits);
  return fields;
}

Fields fields_of(const TargetGroup& group) {
  Fields fields{{"protocol", std::string(to_string(group.protocol))},
                {"port", port(group.port)},
                {"forwarding_mode", std::string(abi::to_string(group.mode))},
                {"table_size", number(group.table_size)}};
  const auto attribute = [&](const char* name, std::string value) {
    fields.emplace_back(std::string("attributes.") + name, std::move(value));
  };
  attribute("deregistration_delay.timeout_seconds", seconds(group.deregistration_delay));
  const bool geneve = group.mode == abi::ForwardingMode::geneve;
  if (geneve) {
    add_geneve(fields, group);
  } else {
    attribute("deregistration_delay.connection_termination.enabled",
              boolean(group.after_deregistration == abi::TrackedFlows::reset));
    attribute("deregistration_delay.then", group.after_deregistration == abi::TrackedFlows::rehash ? "rehash" : "");
  }
  attribute("stickiness.enabled", boolean(group.stickiness != abi::Stickiness::five_tuple &&
                                          group.stickiness != abi::Stickiness::symmetric_five_tuple));
  attribute("stickiness.type", type_of(group.stickiness));
  attribute("target_group_health.unhealthy_state_routing.minimum_healthy_targets.count",
            number(group.minimum_healthy_count));
  attribute("target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage",
            group.minimum_healthy_percentage == 0 ? "off" : number(group.minimum_healthy_percentage));
  if (!geneve)
    attribute("target_health_state.unhealthy.connection_termination.enabled", boolean(group.terminate_on_unhealthy));
  attribute("target_health_state.unhealthy.draining_interval_seconds", seconds(group.unhealthy_draining_interval));
  attribute("algorithm", std::string(abi::to_string(group.algorithm)));
  attribute("slow_start.duration_seconds", seconds(group.slow_start));
  attribute("tcp.idle_timeout.seconds", seconds(group.tcp_idle_timeout));
  attribute("tcp.mss_clamp.enabled", boolean(group.mss_clamp));
  attribute("udp.idle_timeout.seconds", seconds(group.udp_idle_timeout));
  if (group.mode == abi::ForwardingMode::gue) {
    attribute("gue.port", number(group.gue_port));
    attribute("gue.ipv6_zero_checksum.enabled", boolean(group.gue_ipv6_zero_checksum));
  }
  if (group.mode == abi::ForwardingMode::fullnat) {
    attribute("snat.addresses", format_addresses(group.snat_addresses));
    attribute("proxy_protocol_v2.enabled", boolean(group.proxy_protocol_v2));
    attribute("client_address_option.enabled", boolean(group.client_address_option));
  }
  if (group.mode != abi::ForwardingMode::l2dsr && group.mode != abi::ForwardingMode::nat &&
      group.mode != abi::ForwardingMode::fullnat && !geneve) {
    attribute("outer_fragmentation.enabled", boolean(group.outer_fragmentation));
  }
  if (group.gre_key) attribute("gre.key", number(*group.gre_key));
  add_health_check(fields, group.health_check);
  return fields;
}

Fields fields_of(const Target& target) {
  return {{"weight", number(target.weight)}, {"server_id", target.server_id}};
}

Fields fields_of(const QuicConfig& config) {
  return {{"key", config.key ? "hidden" : ""},
          {"server_id_length", number(config.server_id_bytes)},
          {"nonce_length", number(config.nonce_bytes)}};
}

Fields fields_of(const StaticNeighbour& neighbour) {
  return {{"mac", format_mac(neighbour.mac)}, {"interface", neighbour.interface}};
}

Fields fields_of(const SecurityGroup& group) {
  return {{"default", group.allow_by_default ? "allow" : "deny"}};
}

Fields fields_of(const SecurityRule& rule) {
  return {{"action", rule.allow ? "allow" : "deny"}};
}

std::string format_scope(const SecurityRule& rule) {
  const std::string protocol = rule.protocol == ListenerProtocol::tcp_udp ? "any" : std::string(to_string(rule.protocol));
  return (rule.any_source ? "any" : format_prefix(rule.source)) + " " + protocol + " " +
         format_port_range({rule.first_port, rule.last_port});
}

Fields global_fields_of(const Config& config) {
  return {{"seed", number(config.seed)},
          {"tunnel_source.ipv4", config.tunnel_source_v4 ? format_prefix(*config.tunnel_source_v4) : ""},
          {"tunnel_source.ipv6", config.tunnel_source_v6 ? format_prefix(*config.tunnel_source_v6) : ""},
          {"packet_hygiene.martians", boolean(config.hygiene.martians)},
          {"packet_hygiene.land", boolean(config.hygiene.land)},
          {"packet_hygiene.tcp_flags", boolean(config.hygiene.tcp_flags)},
          {"packet_hygiene.source_route", boolean(config.hygiene.source_route)},
          {"packet_hygiene.tiny_fragments", boolean(config.hygiene.tiny_fragments)},
          {"packet_hygiene.l4_checksums", boolean(config.hygiene.l4_checksums)}};
}

}  // namespace lb::cp
