#include "cp/explain/sentences.h"

#include <string_view>

#include "cp/model/model.h"
#include "cp/snapshot/security_table.h"
#include "dp/abi/quic.h"
#include "dp/lb/forward_ops.h"
#include "dp/lb/gateway.h"

namespace lb::cp::explain {
namespace {

constexpr const char* kUnroutable = ": unroutable, so the packet goes by its flow, or by hash";

std::string_view protocol_name(std::uint8_t protocol) {
  if (protocol == static_cast<std::uint8_t>(abi::Protocol::tcp)) return "TCP";
  if (protocol == static_cast<std::uint8_t>(abi::Protocol::udp)) return "UDP";
  return "IP";
}

// The most specific one.
const abi::Vip* vip_of(const lb::Snapshot& snapshot, const abi::IpAddress& address) {
  const abi::Vip* vip = nullptr;
  for (const abi::Vip& candidate : snapshot.vips()) {
    if (abi::masked(address, candidate.prefix_length) != candidate.address) continue;
    if (vip == nullptr || candidate.prefix_length > vip->prefix_length) vip = &candidate;
  }
  return vip;
}

// A gateway's listener of whole ports.
std::string port_listener_text(const lb::Snapshot& snapshot, std::uint32_t listener, const std::string& tuple) {
  std::string ports;
  for (const abi::Port& port : snapshot.ports()) {
    if (port.gateway == listener) ports += (ports.empty() ? "" : ", ") + std::string(port.name);
  }
  return tuple + " is no VIP; what comes in by " + ports + " → listener " +
         std::string(snapshot.name(snapshot.listeners()[listener].name));
}

}  // namespace

std::string listener_text(const lb::Snapshot& snapshot, std::uint32_t listener, const net::FlowKey& key) {
  const std::string tuple =
      std::string(protocol_name(key.protocol)) + " " + format_address_port(key.destination, key.destination_port);
  const abi::Vip* vip = vip_of(snapshot, key.destination);
  if (vip == nullptr)
    return listener != abi::kNoIndex ? port_listener_text(snapshot, listener, tuple) : tuple + " is no VIP";
  std::string of_vip = " of VIP " + std::string(snapshot.name(vip->name));
  if (vip->prefix_length < 128) {
    of_vip += " (" + format_prefix({vip->address, static_cast<std::uint8_t>(vip->prefix_length)}) + ")";
  }
  if (listener == abi::kNoIndex) return "no listener" + of_vip + " takes " + tuple;
  const abi::Listener& found = snapshot.listeners()[listener];
  std::string text = tuple + " → listener " + std::string(snapshot.name(found.name)) + of_vip;
  if (found.protocol == abi::kAllProtocols) {
    text += " (all IP traffic)";
  } else if (found.first_port != found.last_port) {
    text += " (ports " + std::to_string(found.first_port) + "-" + std::to_string(found.last_port) + ")";
  }
  return found.draining != 0 ? text + ", draining: it serves its tracked flows only" : text;
}

std::string security_text(const lb::Snapshot& snapshot, std::uint32_t listener, std::uint32_t rule) {
  const SecurityView& tables = snapshot.security();
  const abi::SecurityGroup& group = tables.groups[snapshot.listeners()[listener].security_group];
  const std::string of_group = "security group " + std::string(tables.name(group.name)) + ": ";
  if (rule == abi::kNoIndex)
    return of_group + "no rule speaks of this client, default " + (group.allow_by_default != 0 ? "allow" : "deny");
  return of_group + rule_text(tables.rules[rule]);
}

std::string connection_id_text(const lb::Snapshot& snapshot, const CidRoute& route,
                               std::span<const std::uint8_t> connection_id, const std::string& target) {
  if (connection_id.empty()) return "none is given: the packet goes by its flow, or by hash";
  const std::uint32_t id = connection_id[0] >> 5;
  std::string text = "config " + std::to_string(id);
  if (route.config == abi::kNoIndex)
    return text + (id == abi::kQuicConfigIds ? " stands for none" : ", which no target group of the listener has") +
           kUnroutable;
  const abi::QuicConfig& config = snapshot.quic().configs[route.config];
  const std::uint32_t bytes = std::uint32_t{config.server_id_bytes} + config.nonce_bytes;
  text += config.keyed == 0                    ? " (not encrypted)"
          : bytes == abi::kQuicSinglePassBytes ? " (single-pass AES)"
                                               : " (four-pass AES)";
  if (route.result == CidResult::too_short)
    return text + " needs " + std::to_string(bytes + 1) + " bytes, and there are " + std::to_string(connection_id.size()) +
           kUnroutable;
  text += ", server ID " + format_hex(std::span(route.server_id).first(config.server_id_bytes));
  if (route.result == CidResult::no_server) return text + ", which no target has" + kUnroutable;
  return text + " → " + target +
         (route.result == CidResult::target_gone ? std::string(", whose flows are not to stay") + kUnroutable : "");
}

std::string translation_text(const abi::Translation& flow) {
  constexpr const char* kNames[abi::kTranslationStateCount] = {"free", "opening", "answered", "established", "closed"};
  const auto state = static_cast<std::size_t>(flow.state);
  return format_address_port(flow.client, flow.client_port) + " is " + format_address_port(flow.snat, flow.snat_port) +
         " towards " + format_address_port(flow.target, flow.target_port) + ", " +
         (state < abi::kTranslationStateCount ? kNames[state] : "?");
}

std::string client_address_text(abi::ClientAddress how) {
  switch (how) {
    case abi::ClientAddress::hidden: return "";
    case abi::ClientAddress::proxy_v2: return ", a PROXY header tells it the client's address";
    case abi::ClientAddress::tcp_option: return ", TCP option 254 tells it the client's address";
  }
  return "";
}

std::string outer_header_text(const FlowDecision& decision, const abi::Target& target) {
  std::string text = "outer source " + (decision.outer_source ? format_address(*decision.outer_source) : "none") +
                     ", outer destination " + format_address(target.address);
  if (target.mode == abi::ForwardingMode::gue) {
    if (decision.outer_source_port) text += ", UDP source port " + std::to_string(*decision.outer_source_port);
    text += ", UDP destination port " + std::to_string(target.tunnel_word);
    const bool zero = target.address.is_v4() || (target.tunnel_flags & abi::kTunnelZeroChecksum) != 0;
    text += zero ? ", UDP checksum 0" : "";
  }
  if (target.mode == abi::ForwardingMode::geneve) {
    if (decision.outer_source_port) text += ", UDP source port " + std::to_string(*decision.outer_source_port);
    if (decision.cookie) text += ", flow cookie " + std::to_string(*decision.cookie);
  }
  if ((target.tunnel_flags & abi::kTunnelKeyed) != 0 && target.mode == abi::ForwardingMode::gre) {
    text += ", key " + std::to_string(target.tunnel_word);
  }
  text += ", " + std::to_string(outer_bytes(target)) + " bytes more";
  return text + ((target.tunnel_flags & abi::kTunnelFragment) != 0 ? ", fragmented where it does not fit" : "");
}

}  // namespace lb::cp::explain
