#include "cp/config/validate_group.h"

#include <algorithm>
#include <cstdio>
#include <string_view>

#include "cp/config/validate_quic.h"
#include "cp/config/values.h"
#include "proto/config.pb.h"

namespace lb::cp {
namespace {

abi::Stickiness stickiness(const config::Stickiness& from) {
  if (!from.enabled()) return abi::Stickiness::five_tuple;
  if (from.type() == "source_ip_dest_ip") return abi::Stickiness::source_ip_dest_ip;
  if (from.type() == "source_ip_dest_ip_proto") return abi::Stickiness::source_ip_dest_ip_proto;
  return abi::Stickiness::source_ip;
}

abi::ForwardingMode forwarding_mode(const std::string& text) {
  for (const auto mode : {abi::ForwardingMode::l2dsr, abi::ForwardingMode::gue, abi::ForwardingMode::gre,
                          abi::ForwardingMode::geneve, abi::ForwardingMode::nat, abi::ForwardingMode::fullnat}) {
    if (text == abi::to_string(mode)) return mode;
  }
  return abi::ForwardingMode::ipip;
}

ProbeProtocol probe_protocol(const std::string& text) {
  if (text == "HTTP") return ProbeProtocol::http;
  if (text == "HTTPS") return ProbeProtocol::https;
  if (text == "UDP") return ProbeProtocol::udp;
  if (text == "ICMP") return ProbeProtocol::icmp;
  return text == "NONE" ? ProbeProtocol::none : ProbeProtocol::tcp;
}

bool is_printable(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

// Modes in which packets come to targets addressed to the VIP, in lb's own encapsulation or none.
bool reaches_vip(abi::ForwardingMode mode) {
  using enum abi::ForwardingMode;
  return mode == l2dsr || mode == ipip || mode == gue || mode == gre;
}

class GroupValidator {
 public:
  GroupValidator(const config::TargetGroup& file, const std::string& path, const Judgements& judgements)
      : file_(file), path_(path), judge_(judgements) {}

  TargetGroup run() {
    group_.name = file_.name();
    group_.protocol = listener_protocol(file_.protocol());
    group_.port = static_cast<std::uint16_t>(file_.port());
    group_.mode = forwarding_mode(file_.forwarding_mode());
    if (group_.protocol == ListenerProtocol::geneve && file_.forwarding_mode().empty())
      group_.mode = abi::ForwardingMode::geneve;
    if (file_.has_table_size()) group_.table_size = file_.table_size();
    if (!is_prime(group_.table_size)) {
      violation(".table_size", "must be a prime 7-16777213, and " + std::to_string(group_.table_size) + " is none");
    }
    attributes();
    tunnel();
    geneve();
    health_check();
    targets();
    validate_quic(file_, path_, judge_, group_);
    snat();
    shares();
    return std::move(group_);
  }

 private:
  void violation(const std::string& field, std::string text) const { judge_.violation(path_ + field, std::move(text)); }
  void warning(const std::string& field, std::string text) const { judge_.warning(path_ + field, std::move(text)); }

  void attributes() {
    const config::Attributes& from = file_.attributes();
    const config::DeregistrationDelay& delay = from.deregistration_delay();
    if (delay.has_timeout_seconds()) group_.deregistration_delay = std::chrono::seconds(delay.timeout_seconds());
    after_deregistration(delay);
    if (from.algorithm() == "round_robin") group_.algorithm = abi::Algorithm::round_robin;
    if (from.algorithm() == "least_connections") group_.algorithm = abi::Algorithm::least_connections;
    if (from.algorithm() == "per_packet") group_.algorithm = abi::Algorithm::per_packet;
    if (group_.algorithm == abi::Algorithm::per_packet && group_.protocol == ListenerProtocol::tcp)
      violation(".attributes.algorithm", "per_packet needs protocol UDP or TCP_UDP");
    if (group_.algorithm == abi::Algorithm::per_packet && group_.mode >= abi::ForwardingMode::geneve)
      violation(".attributes.algorithm", "per_packet cannot be had with forwarding_mode: " +
                                             std::string(abi::to_string(group_.mode)) + ", which needs flows");
    group_.slow_start = std::chrono::seconds(from.slow_start().duration_seconds());
    if (group_.slow_start.count() > 0 && group_.slow_start.count() < 30) {
      violation(".attributes.slow_start.duration_seconds",
                "must be 0 (off) or 30-900, not " + std::to_string(group_.slow_start.count()));
    }
    if (group_.algorithm != abi::Algorithm::maglev && from.stickiness().enabled()) {
      violation(".attributes.algorithm", "must be maglev where stickiness is enabled: " + from.algorithm() +
                                             " does not look at the client's address");
    }
    if (group_.algorithm != abi::Algorithm::maglev && group_.algorithm != abi::Algorithm::per_packet &&
        group_.slow_start.count() > 0) {
      violation(".attributes.slow_start.duration_seconds",
                "needs algorithm maglev or per_packet: it is the share of the Maglev table that grows");
    }
    group_.stickiness = stickiness(from.stickiness());

    const config::MinimumHealthyTargets& minimum =
        from.target_group_health().unhealthy_state_routing().minimum_healthy_targets();
    if (minimum.has_count()) group_.minimum_healthy_count = minimum.count();
    if (!minimum.percentage().empty() && minimum.percentage() != "off") {
      const auto percentage = parse_number(minimum.percentage(), 1, 100);
      if (!percentage) {
        violation(".attributes.target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage",
                  "must be off or 1-100, not '" + minimum.percentage() + "'");
      }
      group_.minimum_healthy_percentage = percentage.value_or(0);
    }

    const config::UnhealthyState& unhealthy = from.target_health_state().unhealthy();
    if (unhealthy.connection_termination().has_enabled()) {
      group_.terminate_on_unhealthy = unhealthy.connection_termination().enabled();
    }
    group_.unhealthy_draining_interval = std::chrono::seconds(unhealthy.draining_interval_seconds());
    if (group_.terminate_on_unhealthy && unhealthy.draining_interval_seconds() > 0 &&
        group_.mode != abi::ForwardingMode::geneve) {
      violation(".attributes.target_health_state.unhealthy.draining_interval_seconds",
                "needs target_health_state.unhealthy.connection_termination.enabled: false, else it must be 0");
    }
    if (from.tcp().idle_timeout().has_seconds()) {
      group_.tcp_idle_timeout = std::chrono::seconds(from.tcp().idle_timeout().seconds());
    }
    group_.mss_clamp = from.tcp().mss_clamp().enabled();
    if (from.udp().idle_timeout().has_seconds()) {
      group_.udp_idle_timeout = std::chrono::seconds(from.udp().idle_timeout().seconds());
    }
  }

  void tunnel() {
    const config::Gue& gue = file_.attributes().gue();
    const config::Gre& gre = file_.attributes().gre();
    if (gue.has_port()) group_.gue_port = static_cast<std::uint16_t>(gue.port());
    group_.gue_ipv6_zero_checksum = gue.ipv6_zero_checksum().enabled();
    if (gre.has_key()) group_.gre_key = gre.key();
    group_.outer_fragmentation = file_.attributes().outer_fragmentation().enabled();
    const bool is_tunnel = group_.mode != abi::ForwardingMode::l2dsr && group_.mode != abi::ForwardingMode::nat &&
                           group_.mode != abi::ForwardingMode::fullnat;
    if (group_.outer_fragmentation && !is_tunnel) {
      violation(".attributes.outer_fragmentation.enabled", "needs a forwarding_mode that is a tunnel");
    }
    if (file_.attributes().has_gue() && group_.mode != abi::ForwardingMode::gue) {
      violation(".attributes.gue", "needs forwarding_mode: gue");
    }
    if (file_.attributes().has_gre() && group_.mode != abi::ForwardingMode::gre) {
      violation(".attributes.gre", "needs forwarding_mode: gre");
    }
  }

  void snat() {
    const config::Attributes& from = file_.attributes();
    const bool preserves = group_.mode != abi::ForwardingMode::fullnat;
    if (from.preserve_client_ip().has_enabled() && from.preserve_client_ip().enabled() != preserves) {
      violation(".attributes.preserve_client_ip.enabled",
                std::string("is ") + (preserves ? "true" : "false") +
                    " in forwarding_mode: " + std::string(abi::to_string(group_.mode)));
    }
    group_.proxy_protocol_v2 = from.proxy_protocol_v2().enabled();
    group_.client_address_option = from.client_address_option().enabled();
    if (group_.mode != abi::ForwardingMode::fullnat) {
      if (from.has_snat()) violation(".attributes.snat", "needs forwarding_mode: fullnat");
      for (const auto& [enabled, field] :
           {std::pair(group_.proxy_protocol_v2, ".attributes.proxy_protocol_v2.enabled"),
            std::pair(group_.client_address_option, ".attributes.client_address_option.enabled")}) {
        if (enabled) violation(field, "needs forwarding_mode: fullnat: in the other modes targets see the client's address");
      }
      return;
    }
    if (group_.proxy_protocol_v2 && group_.client_address_option) {
      violation(".attributes.client_address_option.enabled",
                "excludes proxy_protocol_v2.enabled: one of them tells the client");
    }
    if ((group_.proxy_protocol_v2 || group_.client_address_option) && group_.protocol != ListenerProtocol::tcp) {
      violation(
          group_.proxy_protocol_v2 ? ".attributes.proxy_protocol_v2.enabled" : ".attributes.client_address_option.enabled",
          "needs protocol: TCP");
    }
    if (from.snat().addresses().empty()) {
      violation(".forwarding_mode", "fullnat needs attributes.snat.addresses");
      return;
    }
    const auto addresses = parse_addresses(from.snat().addresses(), abi::kMaxSnatAddresses);
    if (!addresses) {
      violation(".attributes.snat.addresses",
                "must be a list of unicast addresses and prefixes, as 10.0.0.9,10.1.0.0/28, of at most " +
                    std::to_string(abi::kMaxSnatAddresses) + " addresses, not '" + from.snat().addresses() + "'");
      return;
    }
    group_.snat_addresses = *addresses;
    for (const Target& target : group_.targets) {
      if (std::ranges::any_of(*addresses, [&](const auto& a) { return a.is_v4() == target.address.is_v4(); })) continue;
      violation(".attributes.snat.addresses", "has no address of the family of target " + format_address(target.address));
      return;
    }
  }

  // Gateway groups: their own stickiness, failover and options, and no port but 6081.
  void geneve() {
    const config::Attributes& from = file_.attributes();
    const bool geneve = group_.mode == abi::ForwardingMode::geneve;
    if (geneve != (group_.protocol == ListenerProtocol::geneve) && !file_.protocol().empty()) {
      return violation(".forwarding_mode", geneve ? "geneve needs protocol: GENEVE" : "protocol GENEVE needs geneve");
    }
    if (!geneve) {
      if (from.has_target_failover()) violation(".attributes.target_failover", "needs forwarding_mode: geneve");
      if (from.has_geneve()) violation(".attributes.geneve", "needs forwarding_mode: geneve");
      return;
    }
    geneve_port();
    if (group_.algorithm != abi::Algorithm::maglev)
      violation(".attributes.algorithm",
                "must be maglev with forwarding_mode: geneve: both directions of a flow take one slot");
    if (group_.outer_fragmentation)
      violation(".attributes.outer_fragmentation.enabled", "cannot be had with forwarding_mode: geneve");
    geneve_stickiness();
    geneve_failover();
    if (from.geneve().has_option_class()) group_.geneve_class = static_cast<std::uint16_t>(from.geneve().option_class());
    group_.geneve_vpce_id = from.geneve().vpce_id();
    group_.geneve_attachment_id = from.geneve().attachment_id();
  }

  void geneve_port() {
    if (file_.has_port() && file_.port() != abi::kGenevePort)
      violation(".port", "must be 6081 or left out: geneve has no other");
    group_.port = abi::kGenevePort;
    for (int i = 0; i < file_.targets_size(); ++i) {
      if (file_.targets(i).has_port() && file_.targets(i).port() != abi::kGenevePort)
        violation(".targets[" + std::to_string(i) + "].port", "must be 6081 or left out: geneve has no other");
    }
    const std::string& check = file_.health_check().protocol();
    const std::string& port = file_.health_check().port();
    if (check != "NONE" && check != "ICMP" && (port.empty() || port == "traffic-port"))
      violation(".health_check.port", "must be 1-65535: an appliance answers no probe on its Geneve port");
  }

  void geneve_stickiness() {
    const config::Stickiness& from = file_.attributes().stickiness();
    group_.stickiness = abi::Stickiness::symmetric_five_tuple;
    if (!from.enabled()) return;
    if (from.type() == "source_ip_dest_ip") {
      group_.stickiness = abi::Stickiness::symmetric_ip;
    } else if (from.type() == "source_ip_dest_ip_proto") {
      group_.stickiness = abi::Stickiness::symmetric_ip_proto;
    } else {
      violation(
          ".attributes.stickiness.type",
          "must be source_ip_dest_ip or source_ip_dest_ip_proto with forwarding_mode: geneve: both directions of a flow "
          "go to one appliance");
    }
  }

  void geneve_failover() {
    const config::TargetFailover& from = file_.attributes().target_failover();
    const std::string& deregistered = from.on_deregistration();
    const std::string& unhealthy = from.on_unhealthy();
    if (deregistered != unhealthy)
      violation(".attributes.target_failover.on_unhealthy", "must be the same as on_deregistration");
    const bool rebalance = deregistered == "rebalance";
    group_.after_deregistration = rebalance ? abi::TrackedFlows::rehash : abi::TrackedFlows::keep;
    group_.keep_unhealthy_flows = !rebalance;
    group_.terminate_on_unhealthy = false;
    const config::DeregistrationDelay& delay = file_.attributes().deregistration_delay();
    if (!delay.then().empty() || delay.has_connection_termination())
      violation(".attributes.deregistration_delay", "is followed by what target_failover says with forwarding_mode: geneve");
    if (file_.attributes().target_health_state().unhealthy().connection_termination().enabled())
      violation(".attributes.target_health_state.unhealthy.connection_termination.enabled",
                "cannot be had with forwarding_mode: geneve: see target_failover");
  }

  void after_deregistration(const config::DeregistrationDelay& delay) {
    using abi::TrackedFlows;
    const auto& termination = delay.connection_termination();
    const bool resets = termination.has_enabled() ? termination.enabled() : group_.protocol != ListenerProtocol::tcp;
    group_.after_deregistration = resets ? TrackedFlows::reset : TrackedFlows::keep;
    if (delay.then().empty()) return;
    group_.after_deregistration = delay.then() == "reset"    ? TrackedFlows::reset
                                  : delay.then() == "rehash" ? TrackedFlows::rehash
                                                             : TrackedFlows::keep;
    if (termination.has_enabled() && termination.enabled() != (delay.then() == "reset")) {
      violation(".attributes.deregistration_delay.then",
                "'" + delay.then() + "' contradicts connection_termination.enabled: " + (resets ? "true" : "false"));
    }
  }

  void health_check() {
    const config::HealthCheck& from = file_.health_check();
    HealthCheck& check = group_.health_check;
    check.protocol = probe_protocol(from.protocol());
    const bool https = check.protocol == ProbeProtocol::https;
    const bool http = check.protocol == ProbeProtocol::http || https;
    const bool udp = check.protocol == ProbeProtocol::udp;
    if (!from.port().empty() && from.port() != "traffic-port") {
      const auto port = parse_number(from.port(), 1, 65535);
      if (!port) violation(".health_check.port", "must be traffic-port or 1-65535, not '" + from.port() + "'");
      check.port = static_cast<std::uint16_t>(port.value_or(0));
    }
    if (!from.path().empty()) {
      check.path = from.path();
      if (check.path[0] != '/' || !is_printable(check.path)) {
        violation(".health_check.path", "must begin with / and have no spaces or control characters");
      }
    }
    if (!from.matcher().empty()) {
      const auto matcher = parse_matcher(from.matcher());
      if (!matcher) {
        violation(".health_check.matcher",
                  "must be a list of codes and ranges within 200-599, as 200-299,301, not '" + from.matcher() + "'");
      }
      check.matcher = matcher.value_or(check.matcher);
    }
    check.host = from.host();
    if (!is_printable(check.host)) violation(".health_check.host", "must have no spaces or control characters");
    const auto no_effect = [&](const char* field, bool given, bool used, const char* by) {
      if (given && !used)
        warning(std::string(".health_check.") + field, std::string("has no effect: protocol is not ") + by);
    };
    no_effect("path", !from.path().empty(), http, "HTTP or HTTPS");
    no_effect("matcher", !from.matcher().empty(), http, "HTTP or HTTPS");
    no_effect("host", !from.host().empty(), http, "HTTP or HTTPS");
    no_effect("http_version", !from.http_version().empty(), http, "HTTP or HTTPS");
    no_effect("tls_verify", from.has_tls_verify(), https, "HTTPS");
    no_effect("send", !from.send().empty(), udp, "UDP");
    no_effect("expect", !from.expect().empty(), udp, "UDP");
    if (!http) check.path = HealthCheck{}.path, check.matcher = HealthCheck{}.matcher, check.host.clear();
    check.http2 = http && from.http_version() == "2";
    check.tls_verify = https && from.tls_verify();
    if (udp) {
      check.send = datagram(".health_check.send", from.send());
      check.expect = datagram(".health_check.expect", from.expect());
    }
    if (from.has_removal_limit()) check.removal_limit_percent = from.removal_limit();
    if (from.has_flap_damping()) check.flap_damping = from.flap_damping();
    check.through_tunnel = from.through() == "tunnel" && check.protocol != ProbeProtocol::none;
    if (check.through_tunnel && !reaches_vip(group_.mode)) {
      violation(".health_check.through",
                "tunnel needs a forwarding mode whose targets have the VIP (l2dsr, ipip, gue, gre), not " +
                    std::string(abi::to_string(group_.mode)));
    }

    if (from.has_interval()) check.interval = std::chrono::seconds(from.interval());
    check.timeout = std::min(std::chrono::seconds(http ? 6 : 5), check.interval);
    if (from.has_timeout()) {
      check.timeout = std::chrono::seconds(from.timeout());
      if (check.timeout > check.interval) {
        violation(".health_check.timeout",
                  "must be 1-" + std::to_string(std::min<long>(check.interval.count(), 120)) + ": at most the interval");
      }
    }
    if (from.has_healthy_threshold()) check.healthy_threshold = from.healthy_threshold();
    if (from.has_unhealthy_threshold()) check.unhealthy_threshold = from.unhealthy_threshold();
  }

  std::string datagram(const char* field, const std::string& text) const {
    if (!unescape(text)) {
      violation(field, "must be printable ASCII, other bytes as \\n, \\r, \\t, \\\\ or \\xHH, not '" + text + "'");
    }
    return text;
  }

  void targets() {
    group_.targets.reserve(static_cast<std::size_t>(file_.targets_size()));
    for (int i = 0; i < file_.targets_size(); ++i) {
      const config::Target& from = file_.targets(i);
      const auto address = parse_address(from.address());
      if (!address || !is_host_address(*address)) {
        if (!from.address().empty()) {
          violation(".targets[" + std::to_string(i) + "].address",
                    "must be a unicast IPv4 or IPv6 address, not '" + from.address() + "'");
        }
        continue;
      }
      const std::uint16_t port = from.has_port() ? static_cast<std::uint16_t>(from.port()) : group_.port;
      group_.targets.push_back(
          {*address, port, from.has_weight() ? from.weight() : 1,
           read_server_id(from.server_id(), path_ + ".targets[" + std::to_string(i) + "].server_id", judge_)});
      if (group_.targets.back().weight > 0) smallest_ = smaller(i);
    }
    if (file_.targets_size() == 0)
      warning(".name", "target group '" + group_.name + "' has no targets: its packets are dropped");
    if (group_.minimum_healthy_count > std::max<std::size_t>(group_.targets.size(), 1)) {
      warning(".attributes.target_group_health.unhealthy_state_routing.minimum_healthy_targets.count",
              "is more than there are targets: the target group is always fail-open");
    }
  }

  int smaller(int index) const {
    if (smallest_ < 0) return index;
    const auto weight = [&](int i) { return file_.targets(i).has_weight() ? file_.targets(i).weight() : 1; };
    return weight(index) < weight(smallest_) ? index : smallest_;
  }

  // A share below one slot is accepted, but said.
  void shares() const {
    if (smallest_ < 0) return;
    std::uint64_t total = 0;
    for (const Target& target : group_.targets) total += target.weight;
    const config::Target& from = file_.targets(smallest_);
    const std::uint64_t weight = from.has_weight() ? from.weight() : 1;
    if (weight * group_.table_size >= total) return;
    char share[32];
    std::snprintf(share, sizeof share, "%.3f",
                  static_cast<double>(weight) * static_cast<double>(group_.table_size) / static_cast<double>(total));
    warning(".targets[" + std::to_string(smallest_) + "].weight", "the share of " + from.address() + " is " + share +
                                                                      " slots of " + std::to_string(group_.table_size) +
                                                                      ", less than one: raise table_size");
  }

  const config::TargetGroup& file_;
  const std::string& path_;
  const Judgements& judge_;
  TargetGroup group_;
  int smallest_ = -1;  // in file_.targets: the first of the smallest weights above 0
};

}  // namespace

ListenerProtocol listener_protocol(const std::string& text) {
  if (text == "UDP") return ListenerProtocol::udp;
  if (text == "GENEVE") return ListenerProtocol::geneve;
  return text == "TCP_UDP" ? ListenerProtocol::tcp_udp : ListenerProtocol::tcp;
}

TargetGroup validate_group(const config::TargetGroup& file, const std::string& path, const Judgements& judgements) {
  return GroupValidator(file, path, judgements).run();
}

}  // namespace lb::cp
