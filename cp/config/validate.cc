#include "cp/config/validate.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "cp/config/validate_group.h"
#include "cp/config/validate_quic.h"
#include "cp/config/validate_rates.h"
#include "cp/config/validate_security.h"
#include "cp/config/values.h"
#include "proto/config.pb.h"

namespace lb::cp {
namespace {

std::string element(std::string_view list, int index) {
  return std::string(list) + "[" + std::to_string(index) + "]";
}

class Validator {
 public:
  Validator(const config::Config& file, const Judgements& judgements) : file_(file), judge_(judgements) {}

  Config run() {
    result_.seed = file_.seed();
    vips();
    groups();
    listeners();
    targets();
    snat_addresses();
    tunnel_sources();
    neighbours();
    hygiene();
    security_groups();
    rates();
    return std::move(result_);
  }

 private:
  void violation(std::string field, std::string text) const { judge_.violation(std::move(field), std::move(text)); }
  void warning(std::string field, std::string text) const { judge_.warning(std::move(field), std::move(text)); }

  // A name that an object of a kind is given: well-formed and not given before.
  void name(const std::string& path, const std::string& text, std::unordered_map<std::string, int>& known, int index) const {
    if (text.empty()) return;  // told as missing
    if (!is_name(text)) violation(path + ".name", "must be letters, digits, - _ . and begin with a letter or digit");
    if (!known.emplace(text, index).second) violation(path + ".name", "'" + text + "' is taken by an entry above");
  }

  void vips() {
    std::map<AddressPrefix, std::string> addresses;
    for (int i = 0; i < file_.vips_size(); ++i) {
      const config::Vip& from = file_.vips(i);
      const std::string path = element("vips", i);
      name(path, from.name(), vip_index_, i);
      Vip& vip = result_.vips.emplace_back(Vip{from.name(), {}});
      if (from.has_icmp_echo()) vip.icmp_echo = from.icmp_echo();
      if (from.address().empty()) continue;
      const auto prefix = parse_prefix(from.address());
      if (!prefix) {
        violation(path + ".address", "must be an IPv4 or IPv6 address or prefix, not '" + from.address() + "'");
      } else if (const bool v4 = prefix->address.is_v4(); prefix->length < (v4 ? 104 : 16)) {
        violation(path + ".address", v4 ? "prefix length must be 8-32" : "prefix length must be 16-128");
      } else if (!host_bits_are_zero(*prefix)) {
        violation(path + ".address", "has bits set behind its prefix length");
      } else if (!is_host_address(prefix->address)) {
        violation(path + ".address", "must be a unicast address that a host can have");
      } else if (const auto [other, is_new] = addresses.emplace(*prefix, from.name()); !is_new) {
        violation(path + ".address", "is the address of VIP '" + other->second + "' already");
      } else {
        vip.address = prefix->address;
        vip.prefix_length = prefix->length;
        if (prefix->length == 128) vip_addresses_.insert(prefix->address);
        if (prefix->length < 128) vip_prefixes_.push_back(*prefix);
      }
    }
  }

  bool is_vip(const abi::IpAddress& address) const {
    return vip_addresses_.contains(address) || std::any_of(vip_prefixes_.begin(), vip_prefixes_.end(),
                                                           [&](const auto& prefix) { return contains(prefix, address); });
  }

  void groups() {
    std::uint64_t targets = 0;
    for (int i = 0; i < file_.target_groups_size(); ++i) {
      const config::TargetGroup& from = file_.target_groups(i);
      const std::string path = element("target_groups", i);
      name(path, from.name(), group_index_, i);
      result_.groups.push_back(validate_group(from, path, judge_));
      targets += static_cast<std::uint64_t>(from.targets_size());
    }
    users_.resize(result_.groups.size());
    named_.resize(result_.groups.size());
    if (targets > kMaxTargets) {
      violation("target_groups", "have " + std::to_string(targets) + " targets together, at most " +
                                     std::to_string(kMaxTargets) + " are allowed");
    }
  }

  void listeners() {
    std::unordered_map<std::string, int> names;
    std::uint32_t snapshot_listeners = 0;
    for (int i = 0; i < file_.listeners_size(); ++i) {
      const config::Listener& from = file_.listeners(i);
      const std::string path = element("listeners", i);
      name(path, from.name(), names, i);
      Listener listener{from.name(), from.vip(), listener_protocol(from.protocol()), 0, 0, {}};
      listener.interface = from.interface();
      listener_place(path, from);
      const bool geneve = listener.protocol == ListenerProtocol::geneve;
      const auto ports = geneve ? std::optional(PortRange{0, 65535}) : parse_port_range(from.port());
      if (ports) {
        listener.first_port = ports->first;
        listener.last_port = ports->last;
        if (!from.protocol().empty()) geneve ? overlap_of_gateway(path, listener) : overlap(path, listener);
      } else if (!from.port().empty()) {
        violation(path + ".port", "must be 1-65535, a range N-M of these, or any, not '" + from.port() + "'");
      }
      listener_groups(path, from, listener, ports.has_value() && !from.protocol().empty());
      connection_ids(path, listener);
      snapshot_listeners += listener.protocol == ListenerProtocol::tcp_udp ? 2 : 1;
      result_.listeners.push_back(std::move(listener));
    }
    if (snapshot_listeners > kMaxListeners) {
      violation("listeners", "make " + std::to_string(snapshot_listeners) + " with TCP_UDP counted twice, at most " +
                                 std::to_string(kMaxListeners) + " are allowed");
    }
  }

  // A VIP, or of a gateway listener an interface; and a port, but not of a gateway listener.
  void listener_place(const std::string& path, const config::Listener& from) const {
    const bool geneve = from.protocol() == "GENEVE";
    if (!from.vip().empty() && !vip_index_.contains(from.vip()))
      violation(path + ".vip", "there is no VIP '" + from.vip() + "'");
    if (from.vip().empty() && from.interface().empty())
      violation(path + ".vip", geneve ? "is missing, and so is an interface" : "is missing");
    if (!from.interface().empty() && !geneve) violation(path + ".interface", "needs protocol: GENEVE");
    if (!from.interface().empty() && !from.vip().empty())
      violation(path + ".interface", "stands in place of vip: leave one out");
    if (from.interface().find_first_of("/ \t\n:") != std::string::npos)
      violation(path + ".interface", "must be the name of a network interface");
    if (from.port().empty() && !geneve) violation(path + ".port", "is missing");
    if (!from.port().empty() && geneve) violation(path + ".port", "must be left out: GENEVE listeners take all IP traffic");
  }

  void overlap_of_gateway(const std::string& path, const Listener& listener) {
    const std::string place = listener.vip.empty() ? "interface '" + listener.interface + "'" : "VIP '" + listener.vip + "'";
    const auto [other, is_new] = gateways_.emplace(place, listener.name);
    if (!is_new)
      violation(path + (listener.vip.empty() ? ".interface" : ".vip"),
                place + " has the GENEVE listener '" + other->second + "' already");
  }

  // Ranges may lie in each other (the narrowest takes a packet); the same range twice could not be told apart.
  void overlap(const std::string& path, const Listener& listener) {
    for (const ListenerProtocol protocol : {ListenerProtocol::tcp, ListenerProtocol::udp}) {
      if (listener.protocol != ListenerProtocol::tcp_udp && listener.protocol != protocol) continue;
      const auto [other, is_new] =
          taken_.emplace(std::tuple(listener.vip, protocol, listener.first_port, listener.last_port), listener.name);
      if (is_new) continue;
      violation(path + ".port", "VIP '" + listener.vip + "' " + std::string(to_string(protocol)) + " " +
                                    format_port_range({listener.first_port, listener.last_port}) +
                                    " is taken by listener '" + other->second + "'");
      return;
    }
  }

  void listener_groups(const std::string& path, const config::Listener& from, Listener& listener, bool complete) {
    std::uint32_t total = 0;
    for (int i = 0; i < from.target_groups_size(); ++i) {
      const config::WeightedTargetGroup& share = from.target_groups(i);
      const std::string share_path = path + "." + element("target_groups", i);
      const std::uint32_t weight = share.has_weight() ? share.weight() : 1;
      total += weight;
      if (share.name().empty()) continue;
      if (std::any_of(listener.groups.begin(), listener.groups.end(),
                      [&](const auto& g) { return g.name == share.name(); })) {
        violation(share_path + ".name", "target group '" + share.name() + "' stands in this listener twice");
        continue;
      }
      listener.groups.push_back({share.name(), weight});
      const auto found = group_index_.find(share.name());
      if (found == group_index_.end()) {
        violation(share_path + ".name", "there is no target group '" + share.name() + "'");
      } else {
        const auto index = static_cast<std::size_t>(found->second);
        const ListenerProtocol group_protocol = result_.groups[index].protocol;
        named_[index] = true;
        if (complete) users_[index].push_back(result_.listeners.size());
        if (!from.protocol().empty() && !file_.target_groups(found->second).protocol().empty() &&
            group_protocol != listener.protocol &&
            (group_protocol != ListenerProtocol::tcp_udp || listener.protocol == ListenerProtocol::geneve)) {
          const bool strict =
              listener.protocol == ListenerProtocol::tcp_udp || listener.protocol == ListenerProtocol::geneve;
          violation(share_path + ".name",
                    "target group '" + share.name() + "' is " + std::string(to_string(group_protocol)) + ", a " +
                        std::string(to_string(listener.protocol)) + " listener takes " +
                        (strict ? "" : std::string(to_string(listener.protocol)) + " or ") +
                        (listener.protocol == ListenerProtocol::geneve ? "GENEVE" : "TCP_UDP") + " target groups");
        }
      }
    }
    if (total == 0 && from.target_groups_size() > 0) {
      warning(path + ".target_groups", "all weights are 0: no new flow is forwarded");
    }
  }

  // A connection ID's first octet names one config of all groups that it may lead to.
  void connection_ids(const std::string& path, const Listener& listener) const {
    std::vector<const TargetGroup*> groups;
    for (const WeightedGroup& share : listener.groups) {
      if (const auto found = group_index_.find(share.name); found != group_index_.end())
        groups.push_back(&result_.groups[static_cast<std::size_t>(found->second)]);
    }
    const std::string clash = quic_clash(groups);
    if (!clash.empty()) violation(path + ".target_groups", "target groups " + clash + ": give one of them another id");
  }

  // Targets against the listeners that use them.
  void targets() {
    for (int i = 0; i < file_.target_groups_size(); ++i) {
      const auto index = static_cast<std::size_t>(i);
      const std::string path = element("target_groups", i);
      TargetGroup& group = result_.groups[index];
      if (!named_[index]) warning(path + ".name", "no listener uses target group '" + group.name + "'");
      const std::uint16_t shared_port = port_of_users(users_[index]);
      target_ports(path, i, group, shared_port);
      health_check_port(path, index, group, shared_port);
      for (const std::size_t user : users_[index]) {
        families(path, group, result_.listeners[user]);
        one_port(path, group, result_.listeners[user]);
      }
    }
  }

  // The one port on which every listener of a group listens; 0 if there is none.
  std::uint16_t port_of_users(const std::vector<std::size_t>& users) const {
    std::uint16_t port = 0;
    for (const std::size_t user : users) {
      const Listener& listener = result_.listeners[user];
      if (listener.first_port != listener.last_port || (port != 0 && port != listener.first_port)) return 0;
      port = listener.first_port;
    }
    return port;
  }

  // Where the mode does not translate ports, a target's port must be among its listeners'. Told at the field that names it,
  // the group's only once.
  void target_port(const std::string& field, std::size_t index, const TargetGroup& group, std::uint16_t port) const {
    if (port == 0 || group.mode == abi::ForwardingMode::nat || group.mode == abi::ForwardingMode::fullnat ||
        group.mode == abi::ForwardingMode::geneve)
      return;
    for (const std::size_t user : users_[index]) {
      const Listener& listener = result_.listeners[user];
      const PortRange range{listener.first_port, listener.last_port};
      const std::string used_by = "listener '" + listener.name + "' is on " + format_port_range(range);
      if (port < range.first || port > range.last) {
        return violation(field, std::string(to_string(group.mode)) + " does not translate ports and " + used_by +
                                    ": must be " + (range.first == range.last ? std::to_string(range.first) + " or " : "") +
                                    "left out");
      }
      if (range.first != range.last) {
        warning(field, "is for the health check and the target's name: " + used_by + ", and packets keep the client's port");
      }
    }
  }

  void target_ports(const std::string& path, int index, TargetGroup& group, std::uint16_t shared_port) {
    const config::TargetGroup& from = file_.target_groups(index);
    const auto group_index = static_cast<std::size_t>(index);
    target_port(path + ".port", group_index, group, group.port);

    std::set<std::pair<abi::IpAddress, std::uint16_t>> known;
    std::size_t at = 0;  // in group.targets: entries whose address was refused are not there
    for (int t = 0; t < from.targets_size(); ++t) {
      const std::string target_path = path + "." + element("targets", t);
      const auto address = parse_address(from.targets(t).address());
      if (!address || !is_host_address(*address)) continue;
      Target& target = group.targets[at++];
      if (from.targets(t).has_port()) target_port(target_path + ".port", group_index, group, target.port);
      if (target.port == 0) target.port = shared_port;
      if (is_vip(target.address)) violation(target_path + ".address", "is the address of a VIP");
      if (!known.emplace(target.address, target.port).second) {
        violation(target_path + ".address",
                  format_address_port(target.address, target.port) + " stands in this target group twice");
      }
    }
  }

  void health_check_port(const std::string& path, std::size_t index, const TargetGroup& group,
                         std::uint16_t shared_port) const {
    if (group.health_check.protocol == ProbeProtocol::none || group.health_check.protocol == ProbeProtocol::icmp ||
        group.health_check.port != 0 || shared_port != 0)
      return;
    const bool some_without =
        std::any_of(group.targets.begin(), group.targets.end(), [](const Target& t) { return t.port == 0; });
    if (users_[index].empty() || !some_without) return;
    violation(path + ".health_check.port", "must be 1-65535: the listeners of target group '" + group.name +
                                               "' do not share one port, so there is no traffic-port to probe");
  }

  // A reply of a nat target names the client and the target, so the VIP and the listener's port must be known without it.
  void one_port(const std::string& path, const TargetGroup& group, const Listener& listener) const {
    if (group.mode != abi::ForwardingMode::nat) return;
    const auto vip = vip_index_.find(listener.vip);
    if (vip != vip_index_.end() && result_.vips[static_cast<std::size_t>(vip->second)].prefix_length != 128) {
      violation(path + ".forwarding_mode",
                "nat needs VIPs of one address: VIP '" + listener.vip + "' of listener '" + listener.name + "' is a prefix");
    }
    if (listener.first_port == listener.last_port) return;
    violation(path + ".forwarding_mode", "nat needs listeners on one port: listener '" + listener.name + "' is on " +
                                             format_port_range({listener.first_port, listener.last_port}));
  }

  // l2dsr changes the MAC address alone, nat the address: the packet arrives in the VIP's family.
  void families(const std::string& path, const TargetGroup& group, const Listener& listener) const {
    const auto vip = vip_index_.find(listener.vip);
    const bool keeps_family = group.mode == abi::ForwardingMode::l2dsr || group.mode == abi::ForwardingMode::nat;
    if (!keeps_family || vip == vip_index_.end()) return;
    const abi::IpAddress& address = result_.vips[static_cast<std::size_t>(vip->second)].address;
    if (address.is_zero()) return;
    for (std::size_t t = 0; t < group.targets.size(); ++t) {
      if (group.targets[t].address.is_v4() == address.is_v4()) continue;
      violation(path + ".forwarding_mode", std::string(abi::to_string(group.mode)) + " needs targets of the VIP's family: " +
                                               format_address(group.targets[t].address) + " cannot serve VIP '" +
                                               listener.vip + "' (" + format_address(address) + ") of listener '" +
                                               listener.name + "'");
      return;
    }
  }

  // A SNAT address is no one's else: what is sent to it goes to the workers.
  void snat_addresses() {
    std::set<abi::IpAddress> different;
    std::set<abi::IpAddress> of_targets;
    for (const TargetGroup& group : result_.groups) {
      for (const Target& target : group.targets) of_targets.insert(target.address);
    }
    for (int i = 0; i < file_.target_groups_size(); ++i) {
      std::string taken;
      for (const abi::IpAddress& address : result_.groups[static_cast<std::size_t>(i)].snat_addresses) {
        different.insert(address);
        const char* const of = is_vip(address) ? "a VIP" : of_targets.contains(address) ? "a target" : nullptr;
        if (of != nullptr) taken += (taken.empty() ? "" : ", ") + format_address(address) + " is the address of " + of;
      }
      if (!taken.empty()) violation(element("target_groups", i) + ".attributes.snat.addresses", taken);
    }
    if (different.size() > abi::kMaxSnatAddresses) {
      violation("target_groups", "have " + std::to_string(different.size()) + " SNAT addresses together, at most " +
                                     std::to_string(abi::kMaxSnatAddresses) + " are allowed");
    }
  }

  void tunnel_sources() {
    const auto source = [&](const std::string& text, bool v4, const char* field) -> std::optional<AddressPrefix> {
      if (text.empty()) return std::nullopt;
      const auto prefix = parse_prefix(text);
      if (!prefix || prefix->address.is_v4() != v4 || !is_host_address(prefix->address)) {
        violation(field, std::string("must be a unicast IPv") + (v4 ? "4" : "6") + " address or prefix, not '" + text + "'");
        return std::nullopt;
      }
      if (!host_bits_are_zero(*prefix)) violation(field, "has bits set behind its prefix length");
      if (prefix->length < (v4 ? 104 : 32))
        violation(field, v4 ? "prefix length must be 8-32" : "prefix length must be 32-128");
      return prefix;
    };
    result_.tunnel_source_v4 = source(file_.tunnel_source().ipv4(), true, "tunnel_source.ipv4");
    result_.tunnel_source_v6 = source(file_.tunnel_source().ipv6(), false, "tunnel_source.ipv6");
  }

  void security_groups() {
    std::unordered_map<std::string, int> names;
    for (int i = 0; i < file_.security_groups_size(); ++i) {
      const config::SecurityGroup& from = file_.security_groups(i);
      const std::string path = element("security_groups", i);
      name(path, from.name(), names, i);
      result_.security_groups.push_back(validate_security_group(from, path, judge_));
    }
    for (int i = 0; i < file_.listeners_size(); ++i) {
      const std::string& group = file_.listeners(i).security_group();
      if (group.empty()) continue;
      if (!names.contains(group))
        violation(element("listeners", i) + ".security_group", "there is no security group '" + group + "'");
      result_.listeners[static_cast<std::size_t>(i)].security_group = group;
    }
  }

  void rates() {
    for (int i = 0; i < file_.listeners_size(); ++i) {
      if (!file_.listeners(i).has_rate_limits()) continue;
      result_.listeners[static_cast<std::size_t>(i)].rate_limits =
          validate_rates(file_.listeners(i), element("listeners", i) + ".rate_limits", judge_);
    }
  }

  void hygiene() {
    const config::PacketHygiene& from = file_.packet_hygiene();
    PacketHygiene& to = result_.hygiene;
    if (from.has_martians()) to.martians = from.martians();
    if (from.has_land()) to.land = from.land();
    if (from.has_tcp_flags()) to.tcp_flags = from.tcp_flags();
    if (from.has_source_route()) to.source_route = from.source_route();
    if (from.has_tiny_fragments()) to.tiny_fragments = from.tiny_fragments();
    if (from.has_l4_checksums()) to.l4_checksums = from.l4_checksums();
  }

  void neighbours() {
    std::set<abi::IpAddress> known;
    for (int i = 0; i < file_.static_neighbours_size(); ++i) {
      const config::StaticNeighbour& from = file_.static_neighbours(i);
      const std::string path = element("static_neighbours", i);
      const auto address = parse_address(from.address());
      const auto mac = parse_mac(from.mac());
      if (!address && !from.address().empty()) violation(path + ".address", "must be an IPv4 or IPv6 address");
      if (!from.mac().empty() && (!mac || (*mac)[0] % 2 != 0 || *mac == abi::MacAddress{})) {
        violation(path + ".mac", "must be a unicast MAC address aa:bb:cc:dd:ee:ff, not '" + from.mac() + "'");
      }
      if (from.interface().find_first_of("/ \t\n:") != std::string::npos) {
        violation(path + ".interface", "must be the name of a network interface");
      }
      if (!address || !mac) continue;
      if (!known.insert(*address).second) violation(path + ".address", "stands here twice");
      result_.static_neighbours.push_back({*address, *mac, from.interface()});
    }
  }

  const config::Config& file_;
  const Judgements& judge_;
  Config result_;
  std::unordered_map<std::string, int> vip_index_;
  std::unordered_map<std::string, int> group_index_;
  std::set<abi::IpAddress> vip_addresses_;  // those that are no prefix
  std::vector<AddressPrefix> vip_prefixes_;
  std::map<std::tuple<std::string, ListenerProtocol, std::uint16_t, std::uint16_t>, std::string> taken_;
  std::map<std::string, std::string> gateways_;  // GENEVE listeners by VIP or interface
  std::vector<std::vector<std::size_t>> users_;  // by group: complete listeners that use it
  std::vector<bool> named_;                      // by group: a listener names it, complete or not
};

}  // namespace

Config validate(const config::Config& file, const Judgements& judgements) {
  return Validator(file, judgements).run();
}

}  // namespace lb::cp
