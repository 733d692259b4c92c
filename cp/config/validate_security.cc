#include "cp/config/validate_security.h"

#include <map>
#include <tuple>
#include <utility>

#include "cp/config/values.h"
#include "proto/config.pb.h"

namespace lb::cp {
namespace {

// What a rule's fields say; nothing if one of them was refused.
std::optional<SecurityRule> rule_of(const config::SecurityRule& from, const std::string& path, const Judgements& judge) {
  bool good = !from.action().empty() && !from.source().empty();
  SecurityRule rule;
  rule.allow = from.action() == "allow";
  rule.any_source = from.source() == "any";
  if (!rule.any_source && !from.source().empty()) {
    const auto prefix = parse_prefix(from.source());
    if (!prefix) {
      judge.violation(path + ".source", "must be any, or an IPv4 or IPv6 address or prefix, not '" + from.source() + "'");
    } else if (!host_bits_are_zero(*prefix)) {
      judge.violation(path + ".source", "'" + from.source() + "' has bits set behind its prefix length");
    } else {
      rule.source = *prefix;
    }
    good = good && prefix && host_bits_are_zero(*prefix);
  }
  rule.protocol = from.protocol() == "TCP"   ? ListenerProtocol::tcp
                  : from.protocol() == "UDP" ? ListenerProtocol::udp
                                             : ListenerProtocol::tcp_udp;
  if (!from.port().empty()) {
    const auto ports = parse_port_range(from.port());
    if (!ports) judge.violation(path + ".port", "must be 1-65535, a range N-M of these, or any, not '" + from.port() + "'");
    good = good && ports;
    rule.first_port = ports ? ports->first : std::uint16_t{0};
    rule.last_port = ports ? ports->last : std::uint16_t{65535};
  }
  return good ? std::optional(rule) : std::nullopt;
}

}  // namespace

SecurityGroup validate_security_group(const config::SecurityGroup& from, const std::string& path, const Judgements& judge) {
  SecurityGroup group;
  group.name = from.name();
  group.allow_by_default = from.default_() == "allow";
  group.rules.reserve(static_cast<std::size_t>(from.rules_size()));
  using Scope = std::tuple<bool, AddressPrefix, ListenerProtocol, std::uint16_t, std::uint16_t>;
  std::map<Scope, int> known;
  for (int i = 0; i < from.rules_size(); ++i) {
    const std::string rule_path = path + ".rules[" + std::to_string(i) + "]";
    const auto rule = rule_of(from.rules(i), rule_path, judge);
    if (!rule) continue;
    const auto [other, is_new] =
        known.emplace(Scope(rule->any_source, rule->source, rule->protocol, rule->first_port, rule->last_port), i);
    if (!is_new) {
      const bool same = (from.rules(other->second).action() == "allow") == rule->allow;
      judge.violation(rule_path, std::string(same ? "says the same as" : "contradicts") + " rules[" +
                                     std::to_string(other->second) + "]: same source, protocol and ports");
    }
    group.rules.push_back(*rule);
  }
  if (group.rules.empty() && !group.allow_by_default)
    judge.warning(path + ".rules", "there is none: nobody may open flows to the listeners of this security group");
  return group;
}

}  // namespace lb::cp
