// What lb-cp knows, as plain structs: the desired state (from the config, defaults filled in) and the live state of targets.
// Owner: the controller's thread; everything else gets const references or copies.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dp/abi/types.h"

namespace lb::cp {

enum class ListenerProtocol : std::uint8_t { tcp, udp, tcp_udp, geneve };

struct AddressPrefix {
  abi::IpAddress address;
  std::uint8_t length = 128;  // of the 16-byte form
  friend auto operator<=>(const AddressPrefix&, const AddressPrefix&) = default;
};

// Whether the address is in the prefix.
[[nodiscard]] bool contains(const AddressPrefix& prefix, const abi::IpAddress& address);

struct Vip {
  std::string name;
  abi::IpAddress address;            // of a prefix the first
  std::uint8_t prefix_length = 128;  // of the 16-byte form; below 128: every address of the prefix
  bool icmp_echo = true;             // lb answers echo requests
  [[nodiscard]] AddressPrefix prefix() const { return {address, prefix_length}; }
  bool operator==(const Vip&) const = default;
};

struct WeightedGroup {
  std::string name;
  std::uint32_t weight = 1;  // 0-999
  bool operator==(const WeightedGroup&) const = default;
};

// Of a listener, or of each of its sources. 0: no limit.
struct RateSet {
  std::uint64_t new_flows_per_second = 0;
  std::uint64_t packets_per_second = 0;
  std::uint64_t bytes_per_second = 0;  // of Ethernet frames without FCS
  std::uint64_t concurrent_flows = 0;
  [[nodiscard]] bool limits() const {
    return (new_flows_per_second | packets_per_second | bytes_per_second | concurrent_flows) != 0;
  }
  bool operator==(const RateSet&) const = default;
};

enum class RateAction : std::uint8_t { drop, reset, mark };

struct RateLimits {
  RateSet per_source;
  RateSet per_listener;
  RateAction action = RateAction::drop;
  std::uint8_t dscp = 0;        // of mark
  std::uint8_t prefix_v4 = 32;  // what a source is
  std::uint8_t prefix_v6 = 64;
  [[nodiscard]] bool limits() const { return per_source.limits() || per_listener.limits(); }
  bool operator==(const RateLimits&) const = default;
};

struct Listener {
  std::string name;
  std::string vip;
  ListenerProtocol protocol = ListenerProtocol::tcp;
  std::uint16_t first_port = 0;  // host order, inclusive; any is 0-65535
  std::uint16_t last_port = 0;
  std::vector<WeightedGroup> groups;
  std::string security_group;  // empty: none
  std::string interface;       // geneve: a port of lb-dp, in place of a VIP
  RateLimits rate_limits;
  bool operator==(const Listener&) const = default;
};

enum class ProbeProtocol : std::uint8_t { tcp, http, none, https, udp, icmp };

struct StatusRange {
  std::uint16_t first = 200;
  std::uint16_t last = 399;
  bool operator==(const StatusRange&) const = default;
};

struct HealthCheck {
  ProbeProtocol protocol = ProbeProtocol::tcp;
  std::uint16_t port = 0;  // 0: traffic port
  std::string path = "/";
  std::string host;  // empty: the target's address
  std::vector<StatusRange> matcher{{200, 399}};
  std::chrono::seconds interval{10};
  std::chrono::seconds timeout{5};
  std::uint32_t healthy_threshold = 5;
  std::uint32_t unhealthy_threshold = 2;
  bool http2 = false;                        // HTTP and HTTPS
  bool tls_verify = false;                   // HTTPS: the certificate by the system's authorities
  std::string send;                          // UDP, as written: unescape() gives the bytes
  std::string expect;                        // UDP, as written: what an answer begins with
  std::uint32_t removal_limit_percent = 10;  // of a group's targets that may time out within 10 s; 100: no limit
  bool flap_damping = true;
  bool through_tunnel = false;  // to the VIP on the target, in the group's tunnel
  bool operator==(const HealthCheck&) const = default;
};

// One way in which servers make QUIC connection IDs (draft-ietf-quic-load-balancers).
struct QuicConfig {
  std::uint8_t id = 0;                              // 0-6
  std::optional<std::array<std::uint8_t, 16>> key;  // a secret; without one the server ID stands there as it is
  std::uint8_t server_id_bytes = 1;                 // 1-15
  std::uint8_t nonce_bytes = 4;                     // at least 4; both together at most 19
  bool operator==(const QuicConfig&) const = default;
};

struct Target {
  abi::IpAddress address;
  std::uint16_t port = 0;    // resolved: target, else group; 0: the listener's port
  std::uint32_t weight = 1;  // 0-65535
  std::string server_id;     // quic: lower-case hex, one for each length that the group's configs have; empty: none
  bool operator==(const Target&) const = default;
};

struct TargetGroup {
  std::string name;
  ListenerProtocol protocol = ListenerProtocol::tcp;
  std::uint16_t port = 0;
  abi::ForwardingMode mode = abi::ForwardingMode::ipip;
  abi::Stickiness stickiness = abi::Stickiness::five_tuple;
  std::uint16_t gue_port = abi::kGuePort;  // gue: UDP destination port
  bool gue_ipv6_zero_checksum = false;     // gue: RFC 6935
  std::optional<std::uint32_t> gre_key;    // gre: RFC 2890
  bool keep_unhealthy_flows = false;       // geneve: target_failover.on_unhealthy no_rebalance
  std::uint16_t geneve_class = abi::kGeneveClass;
  std::uint64_t geneve_vpce_id = 0;
  std::uint64_t geneve_attachment_id = 0;
  std::vector<abi::IpAddress> snat_addresses;  // fullnat: sorted, IPv4 first, each once
  bool proxy_protocol_v2 = false;              // fullnat, TCP: client address in a PROXY header
  bool client_address_option = false;          // fullnat, TCP: client address in TCP option 254
  bool mss_clamp = false;
  bool outer_fragmentation = false;  // tunnels: fragment the outer packet where it does not fit
  abi::Algorithm algorithm = abi::Algorithm::maglev;
  std::uint32_t table_size = 65537;
  std::chrono::seconds deregistration_delay{300};
  abi::TrackedFlows after_deregistration = abi::TrackedFlows::keep;
  bool terminate_on_unhealthy = true;
  std::chrono::seconds unhealthy_draining_interval{0};
  std::uint32_t minimum_healthy_count = 1;
  std::uint32_t minimum_healthy_percentage = 0;  // 0: off
  std::chrono::seconds slow_start{0};            // 0: off
  std::chrono::seconds tcp_idle_timeout{350};
  std::chrono::seconds udp_idle_timeout{120};
  std::vector<QuicConfig> quic;  // sorted by id, each once; empty: no QUIC connection IDs are read
  HealthCheck health_check;
  std::vector<Target> targets;
  bool operator==(const TargetGroup&) const = default;
};

// How a probe through the tunnel goes.
struct TunnelledProbe {
  abi::ForwardingMode mode = abi::ForwardingMode::ipip;  // l2dsr, ipip, gue or gre
  abi::IpAddress vip;
  std::uint16_t gue_port = abi::kGuePort;
  bool gue_ipv6_zero_checksum = false;
  std::optional<std::uint32_t> gre_key;
  friend auto operator<=>(const TunnelledProbe&, const TunnelledProbe&) = default;
};

// Whether answers of targets come through lb, so that it sees both sides of a flow.
[[nodiscard]] constexpr bool sees_replies(abi::ForwardingMode mode) {
  return mode == abi::ForwardingMode::nat || mode == abi::ForwardingMode::fullnat;
}

struct StaticNeighbour {
  abi::IpAddress address;
  abi::MacAddress mac{};
  std::string interface;
  bool operator==(const StaticNeighbour&) const = default;
};

// Who may open flows. Of the rules whose prefix holds the client, that of the longest prefix decides that names protocol and
// port; among equals the narrower port range, then one protocol before both, then deny, then the one written first.
struct SecurityRule {
  bool allow = false;
  bool any_source = false;  // both families; source is empty then
  AddressPrefix source{{}, 0};
  ListenerProtocol protocol = ListenerProtocol::tcp_udp;
  std::uint16_t first_port = 0;  // destination port, inclusive
  std::uint16_t last_port = 65535;
  bool operator==(const SecurityRule&) const = default;
};

struct SecurityGroup {
  std::string name;
  bool allow_by_default = false;
  std::vector<SecurityRule> rules;
  bool operator==(const SecurityGroup&) const = default;
};

// What is refused of every packet for a VIP.
struct PacketHygiene {
  bool martians = true;
  bool land = true;
  bool tcp_flags = true;
  bool source_route = true;
  bool tiny_fragments = true;
  bool l4_checksums = false;
  bool operator==(const PacketHygiene&) const = default;
};

// The desired state.
struct Config {
  std::uint64_t seed = 0;
  std::vector<Vip> vips;
  std::vector<Listener> listeners;
  std::vector<TargetGroup> groups;
  std::optional<AddressPrefix> tunnel_source_v4;
  std::optional<AddressPrefix> tunnel_source_v6;
  std::vector<StaticNeighbour> static_neighbours;
  PacketHygiene hygiene;
  std::vector<SecurityGroup> security_groups;
  bool operator==(const Config&) const = default;
};

// Who a target is; everything about it hangs on this.
struct TargetKey {
  std::string group;
  abi::IpAddress address;
  std::uint16_t port = 0;
  friend auto operator<=>(const TargetKey&, const TargetKey&) = default;
};

// Reason codes of AWS NLB (Target.NotRegistered …), without the prefix.
enum class StateReason : std::uint8_t {
  none,
  registration_in_progress,
  initial_health_checking,
  failed_health_checks,
  timeout,
  response_code_mismatch,
  deregistration_in_progress,
  not_in_use,
  not_registered,
  invalid_target,
  health_check_disabled,
  internal_error,
};
std::string_view to_string(StateReason reason);  // "FailedHealthChecks"
// What becomes of tracked flows at the end of a delay, as deregistration_delay.then has it: leave | reset | rehash.
std::string_view then_word(abi::TrackedFlows then);
std::optional<abi::TrackedFlows> parse_then(std::string_view word);

// What its probes say of a target (cp/health/rise_fall.h); its state follows from that, drains and listeners.
enum class Health : std::uint8_t { initial, healthy, unhealthy };

// How an operator wants targets drained; what is not said is the group's deregistration delay and what follows it.
struct DrainTerms {
  std::optional<std::chrono::seconds> deadline;  // from now; at most kMostDrain
  std::optional<abi::TrackedFlows> then;         // once it is over: keep where they are, reset or rehash
};
inline constexpr std::chrono::seconds kMostDrain{86'400};

// The live state of one target, kept across restarts of lb-cp.
struct TargetStatus {
  std::uint32_t id = 0;  // dense target id
  abi::TargetState state = abi::TargetState::initial;
  StateReason reason = StateReason::registration_in_progress;
  std::string detail;  // the probe's own words
  std::int64_t since_unix_ms = 0;
  bool drained_by_operator = false;             // lbctl drain
  bool removed = false;                         // no longer in the config, kept until its delay is over
  std::int64_t drain_ends_unix_ms = 0;          // valid while draining or unhealthy.draining
  std::optional<abi::TrackedFlows> drain_then;  // what becomes of flows then, if the drain says; else its group's attribute
  std::uint64_t flows = 0;                      // tracked flows that name it, all workers
};

// The way to an address, mirrored from the kernel.
struct NextHop {
  bool resolved = false;
  std::string interface;         // kernel name
  abi::MacAddress mac{};         // of the next hop
  abi::MacAddress source_mac{};  // of the interface
  abi::IpAddress source;         // the kernel's preferred source address
  std::uint32_t mtu_bytes = 1500;
  std::uint16_t vlan = 0;
  bool operator==(const NextHop&) const = default;
};

// A way of the kernel's, for packets to any address of a prefix.
struct Route {
  AddressPrefix prefix;
  NextHop next_hop;    // not resolved: the kernel forwards such packets
  bool local = false;  // this host's own, or a broadcast
  bool operator==(const Route&) const = default;
};

// Text forms. parse_address accepts IPv4 and IPv6; format_address_port brackets IPv6: "[2001:db8::1]:80".
std::optional<abi::IpAddress> parse_address(std::string_view text);
std::string format_address(const abi::IpAddress& address);
std::string format_address_port(const abi::IpAddress& address, std::uint16_t port);
// ADDRESS or ADDRESS/LENGTH; the length is kept as of the 16-byte form (an IPv4 /24 is 120).
std::optional<AddressPrefix> parse_prefix(std::string_view text);
std::string format_prefix(const AddressPrefix& prefix);
struct AddressPort {
  abi::IpAddress address;
  std::uint16_t port = 0;  // host order
  bool operator==(const AddressPort&) const = default;
};
std::optional<AddressPort> parse_address_port(
    std::string_view text);  // what format_address_port writes; the port is 0-65535
std::string format_mac(const abi::MacAddress& mac);
std::optional<abi::MacAddress> parse_mac(std::string_view text);
std::string format_matcher(const std::vector<StatusRange>& matcher);  // "200-399,404"
// Two hex digits a byte. parse_hex: nullopt for anything else; upper case is taken.
std::string format_hex(std::span<const std::uint8_t> bytes);
std::optional<std::vector<std::uint8_t>> parse_hex(std::string_view text);
// The bytes that printable ASCII stands for: \n \r \t \\ and \xHH are escapes. nullopt: another character or escape.
std::optional<std::string> unescape(std::string_view text);
std::string_view to_string(ListenerProtocol protocol);  // "TCP", "UDP", "TCP_UDP", "GENEVE"

}  // namespace lb::cp
