#include "dp/lb/gateway.h"

#include <bit>
#include <cstring>

#include "dp/lb/decide.h"
#include "dp/lb/forward_ops.h"
#include "dp/lb/fragments.h"
#include "dp/lb/guard_hygiene.h"
#include "dp/lb/nat.h"
#include "dp/lb/own_outer.h"
#include "dp/lb/vip_table.h"
#include "dp/net/geneve.h"
#include "dp/net/reply.h"
#include "dp/net/rewrite.h"
#include "dp/net/translate.h"

namespace lb {
namespace {

constexpr std::uint8_t kMulticastV4 = 224;
constexpr std::uint32_t kMaxGeneveBytes = net::kGeneveBytes + 63 * 4;

bool is_l4(std::uint8_t protocol) {
  return protocol == kTcp || protocol == kUdp;
}

bool is_icmp(const net::ParsedPacket& packet) {
  return packet.protocol == static_cast<std::uint8_t>(packet.key.is_v6 != 0 ? abi::Protocol::icmpv6 : abi::Protocol::icmp);
}

// Multicast, or of one link only: nothing that is routed.
bool is_for_link(const abi::IpAddress& address, bool is_v6) {
  const std::uint8_t* bytes = address.bytes.data();
  if (is_v6) return bytes[0] == 0xff || (bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80);
  return bytes[12] >= kMulticastV4 || (bytes[12] == 169 && bytes[13] == 254);
}

// Neither of one link only nor to this host.
bool is_routed(const Snapshot& snapshot, const net::FlowKey& key) {
  const bool is_v6 = key.is_v6 != 0;
  if (is_for_link(key.destination, is_v6) || is_for_link(key.source, is_v6)) return false;
  const abi::RouteNextHop* route = find_route(snapshot, key.destination);
  return route == nullptr || (route->flags & abi::kRouteLocal) == 0;
}

// Of the port that packet i came in by, if the packet is nobody else's.
std::uint32_t gateway_of_port(Work& work, std::uint32_t i, const net::ParsedPacket& packet) {
  const Snapshot& snapshot = *work.snapshot;
  const std::uint8_t port = work.burst->in_port[i];
  if (port >= snapshot.ports().size() || snapshot.ports()[port].gateway == abi::kNoIndex) return abi::kNoIndex;
  const net::FlowKey& key = packet.key;
  if ((work.burst->data[i][0] & 1) != 0 || !is_routed(snapshot, key) || is_returned(snapshot, packet) ||
      !return_listeners(snapshot, key.source, key.source_port, key.protocol).empty()) {
    return abi::kNoIndex;
  }
  return snapshot.ports()[port].gateway;
}

std::uint32_t gateway_of(Work& work, std::uint32_t i, const net::ParsedPacket& packet) {
  if (find_vip(vip_table_of(*work.snapshot), packet.key.destination) != kNotVip)
    return gateway_listener_to(*work.snapshot, packet.key.destination);
  return gateway_of_port(work, i, packet);
}

// The key and hash that the flow's entry has; the packet is no plain frame from here on.
void make_ready(Work& work, std::uint32_t i) {
  net::ParsedPacket& packet = work.parsed[i];
  packet_of(work, i);
  work.form[i] = Form::parsed;
  if (is_icmp(packet)) {
    if (const auto quoted = net::quoted_flow(work.burst->data[i], packet)) packet.key = *quoted;
  }
  FlowTable& flows = *work.options.flows;
  work.general |= std::uint64_t{1} << i;
  work.hash[i] = work.hash_of(flows.hash_keys(), either_way(packet.key));
  work.first[i] = first_line(work.hash[i], flows.state().line_count);
}

// ---- back from an appliance

// A packet from an appliance: the outer headers, and the packet inside with an Ethernet header in front that says its kind.
struct Returned {
  abi::IpAddress appliance;
  std::uint8_t traffic_class = 0;  // of the outer header
  const std::uint8_t* geneve = nullptr;
  std::uint32_t geneve_bytes = 0;
  std::uint8_t* frame = nullptr;  // its Ethernet header is written over what stood there
  net::ParsedPacket inner;
};

struct Found {
  std::uint32_t target = abi::kNoIndex;
  std::uint32_t cookie = 0;
};

bool comes_from(const Snapshot& snapshot, std::uint32_t id, const abi::IpAddress& appliance) {
  const abi::Target* target = live_target(snapshot, id);
  return target != nullptr && target->mode == abi::ForwardingMode::geneve && target->address == appliance;
}

// The flow of the packet inside, if its entry in some worker's table names the appliance.
Found find_flow_of(Work& work, const Returned& returned, bool fragment) {
  const Snapshot& snapshot = *work.snapshot;
  const net::ParsedPacket& inner = returned.inner;
  if (fragment && is_l4(inner.protocol)) {
    const auto note = note_of(work, returned.frame, inner);
    if (!note || !comes_from(snapshot, note->target, returned.appliance)) return {};
    return {note->target, note->cookie};
  }
  const auto quoted = is_icmp(inner) && !fragment ? net::quoted_flow(returned.frame, inner) : std::nullopt;
  const net::FlowKey key = either_way(quoted.value_or(inner.key));
  const Hash128 hash = work.hash_of(work.options.flows->hash_keys(), key);
  Found found{abi::kNoIndex, flow_cookie(work.hash_of(snapshot.slot_keys(), key))};
  const auto take = [&](std::span<const abi::FlowLine> lines) {
    const auto view = FlowTable::peek(lines, hash, work.now_ns);
    if (view && comes_from(snapshot, view->target, returned.appliance)) found.target = view->target;
    return found.target != abi::kNoIndex;
  };
  const FlowTableState& own = work.options.flows->state();
  if (take({own.lines, own.line_count})) return found;
  for (std::uint32_t worker = 0; worker < work.options.tables.size(); ++worker) {
    if (worker != work.options.worker && take(work.options.tables[worker])) break;
  }
  return found;
}

abi::DropReason check_options(const Snapshot& snapshot, const Returned& returned, const Found& found) {
  const abi::Gateway& gateway = snapshot.gateways()[snapshot.targets()[found.target].tunnel_word];
  net::GeneveOptions options;
  if (!net::read_geneve_options(returned.geneve, returned.geneve_bytes, gateway.option_class, options))
    return abi::DropReason::bad_geneve;
  const net::GeneveOptions sent{gateway.vpce_id, gateway.attachment_id, found.cookie};
  return options == sent ? abi::DropReason::none : abi::DropReason::bad_cookie;
}

void note(Work& work, std::uint32_t i, std::uint32_t target) {
  Burst& burst = *work.burst;
  burst.target[i] = target;
  burst.group[i] = work.snapshot->targets()[target].group;
  burst.listener[i] = gateway_listener_of(*work.snapshot, burst.group[i]);
  burst.flow[i] = FlowResult::hit;
}

// Told to the packet's sender, by the way to it: the packet came from the appliance, who cannot help.
void tell_too_big(Work& work, const Returned& returned, std::uint32_t fits) {
  const abi::RouteNextHop* route = find_route(*work.snapshot, returned.inner.key.source);
  const net::ParsedPacket& inner = returned.inner;
  if (work.options.extra == nullptr || inner.dont_fragment == 0 || inner.key.destination_port == 0 || route == nullptr ||
      route->flags != 0 || !work.errors.take(work.now_ns)) {
    return;
  }
  constexpr std::uint32_t kRoomBytes = 64;
  std::uint8_t buffer[kRoomBytes + net::kEthernetBytes + net::kIpv6MinMtuBytes];
  std::uint8_t* frame = buffer + kRoomBytes;
  const std::uint32_t length = net::build_packet_too_big(returned.frame, inner, fits, frame);
  if (length == 0) return;
  std::uint8_t* start = net::rewrite_l2(frame, inner, {route->mac, route->source_mac, route->vlan});
  if (work.options.extra->send(route->out_port, start, static_cast<std::uint32_t>(length + (frame - start))))
    ++count(work, abi::Counter::originated_icmp);
}

// Sends the packet inside on; the kernel gets what is its own, and what needs a neighbour it has not found yet.
abi::DropReason send_inner(Work& work, std::uint32_t i, const Returned& returned) {
  Burst& burst = *work.burst;
  const net::ParsedPacket& inner = returned.inner;
  const abi::RouteNextHop* route = find_route(*work.snapshot, inner.key.destination);
  if (route == nullptr) return abi::DropReason::no_route;
  const bool kernels = route->flags != 0;
  if (!kernels && inner.ip_length > route->mtu_bytes) {
    tell_too_big(work, returned, route->mtu_bytes);
    return abi::DropReason::too_big;
  }
  burst.headroom[i] = static_cast<std::uint16_t>(burst.headroom[i] + (returned.frame - burst.data[i]));
  burst.data[i] = returned.frame;
  burst.length[i] = net::kEthernetBytes + inner.ip_length;
  if (kernels) {
    punt(work, i, abi::DropReason::punt_failed);
    return abi::DropReason::none;
  }
  std::uint8_t* start = net::rewrite_l2(returned.frame, inner, {route->mac, route->source_mac, route->vlan});
  burst.length[i] = static_cast<std::uint32_t>(burst.length[i] + (returned.frame - start));
  burst.data[i] = start;
  burst.out_port[i] = route->out_port;
  burst.verdict[i] = Verdict::tx;
  ++count(work, abi::Counter::forwarded_packets);
  ++count(work, abi::Counter::gateway_returned);
  return abi::DropReason::none;
}

// Writes the Ethernet header of the packet inside and reads it. True: it is an IP packet that fills its tunnel.
net::ParseStatus read_inner(Returned& returned, std::uint32_t bytes, bool is_v6) {
  store_be16(returned.frame + net::kEtherTypeAt, is_v6 ? net::kEtherTypeIpv6 : net::kEtherTypeIpv4);
  const net::ParseStatus status = net::parse(returned.frame, net::kEthernetBytes + bytes, true, returned.inner);
  if (status.result == net::ParseResult::drop) return status;
  if (returned.inner.ip_length != bytes) return {net::ParseResult::drop, abi::DropReason::bad_geneve};
  return status;
}

abi::DropReason take_inner(Work& work, std::uint32_t i, Returned& returned, std::uint32_t bytes, bool is_v6) {
  const net::ParseStatus status = read_inner(returned, bytes, is_v6);
  if (status.result == net::ParseResult::drop) return status.reason;
  const Found found = find_flow_of(work, returned, status.reason == abi::DropReason::fragment);
  if (found.target == abi::kNoIndex) return abi::DropReason::geneve_no_flow;
  const abi::DropReason fault = check_options(*work.snapshot, returned, found);
  if (fault != abi::DropReason::none) return fault;
  if (returned.inner.ttl == 0) return abi::DropReason::ttl_expired;
  note(work, i, found.target);
  if (!net::take_outer_ecn(returned.frame + net::kEthernetBytes, is_v6, returned.traffic_class))
    return abi::DropReason::bad_ecn;
  return send_inner(work, i, returned);
}

}  // namespace

Hash128 named_hash(Work& work, std::uint32_t i) {
  const net::ParsedPacket& packet = packet_of(work, i);
  const bool later_fragment = is_l4(packet.protocol) && packet.key.destination_port == 0 && packet.key.source_port == 0;
  if (later_fragment) return work.hash[i];  // as its note says
  return {flow_cookie(work.hash_of(work.snapshot->slot_keys(), either_way(packet.key))), work.hash[i].high};
}

std::uint32_t gateway_listener_of(const Snapshot& snapshot, std::uint32_t group) {
  for (const std::uint32_t index : snapshot.gateway_listeners()) {
    if (serves(snapshot.listeners()[index], group)) return index;
  }
  return abi::kNoIndex;
}

std::uint32_t gateway_listener_to(const Snapshot& snapshot, const abi::IpAddress& destination) {
  if (snapshot.gateway_listeners().empty()) return abi::kNoIndex;
  const std::uint32_t vip = find_vip(vip_table_of(snapshot), destination);
  return vip == kNotVip ? abi::kNoIndex : snapshot.vips()[vip].gateway;
}

std::uint32_t gateway_listener_for(const Snapshot& snapshot, const net::FlowKey& key) {
  if (snapshot.gateway_listeners().empty()) return abi::kNoIndex;
  if (is_vip(vip_table_of(snapshot), key.destination)) return gateway_listener_to(snapshot, key.destination);
  for (const abi::Port& port : snapshot.ports()) {
    if (port.gateway != abi::kNoIndex) return is_routed(snapshot, key) ? port.gateway : abi::kNoIndex;
  }
  return abi::kNoIndex;
}

const abi::RouteNextHop* find_route(const Snapshot& snapshot, const abi::IpAddress& address) {
  const auto cells = snapshot.route_table();
  if (cells.empty()) return nullptr;
  const VipTable table{cells.data(), static_cast<std::uint32_t>(cells.size() - 1), nullptr};
  const std::uint32_t least = is_v4(address) ? 96 : 0;  // ::/0 is no route for IPv4
  for (std::uint32_t word = 3; word-- > 0;) {
    for (std::uint64_t lengths = snapshot.root().route_prefix_lengths[word]; lengths != 0;) {
      const std::uint32_t bit = 63 - static_cast<std::uint32_t>(std::countl_zero(lengths));
      lengths ^= std::uint64_t{1} << bit;
      const auto length = static_cast<std::uint16_t>(64 * word + bit);
      if (length < least) return nullptr;
      const abi::IpAddress prefix = abi::masked(address, length);
      const abi::VipCell* cell = find_cell(table, vip_hash(prefix, 0, length), prefix, 0, length, abi::VipCellKind::prefix);
      if (cell != nullptr) return &snapshot.route_next_hops()[cell->index];
    }
  }
  return nullptr;
}

std::uint32_t find_gateway(Work& work, std::uint32_t i, std::uint32_t found) {
  if (work.snapshot->gateway_listeners().empty()) return found;
  const std::uint32_t listener = gateway_of(work, i, packet_of(work, i));
  if (listener == abi::kNoIndex) return found;
  // Its neighbours are asked one by one: by port, what is whose depends on more than the destination.
  const std::uint8_t run = work.run[i];
  for (std::uint32_t j = i + 1; j < work.burst->count; ++j) {
    if (work.run[j] != run) continue;
    const std::uint32_t own = work.run_count++;
    work.runs[own] = Run{.vip_hash = work.runs[run].vip_hash};
    work.run[j] = static_cast<std::uint8_t>(own);
  }
  make_ready(work, i);
  return listener;
}

std::optional<bool> take_for_gateway(Work& work, std::uint32_t i, net::ParseStatus status) {
  if (work.snapshot->gateway_listeners().empty() || status.result != net::ParseResult::other_ip) return std::nullopt;
  const net::ParsedPacket& packet = work.parsed[i];
  if (gateway_of(work, i, packet) == abi::kNoIndex) return std::nullopt;
  const bool fragment = status.reason == abi::DropReason::fragment;
  if (fragment && is_l4(packet.protocol)) return take_fragment(work, i);
  const std::uint8_t* frame = work.burst->data[i];
  abi::DropReason fault = unusual_fault(*work.snapshot, packet, frame);
  if (fault == abi::DropReason::none && has_odd_header(packet)) fault = header_fault(*work.snapshot, packet, frame);
  if (fault == abi::DropReason::none) return true;
  drop(work, i, fault);
  return false;
}

bool is_returned(const Snapshot& snapshot, const net::ParsedPacket& packet) {
  if (snapshot.gateway_listeners().empty() || packet.protocol != kUdp || packet.key.destination_port != abi::kGenevePort)
    return false;
  return is_tunnel_source(snapshot, packet.key.destination);
}

void take_returned(Work& work, std::uint32_t i) {
  const net::ParsedPacket outer = packet_of(work, i);
  std::uint8_t* data = work.burst->data[i];
  const std::uint32_t bytes = load_be16(data + outer.l4_offset + net::kUdpLengthAt) - net::kUdpBytes;
  std::uint8_t* geneve = data + outer.l4_offset + net::kUdpBytes;
  const net::GeneveHeader header = net::read_geneve(geneve, bytes);
  if (header.bytes == 0) return drop(work, i, abi::DropReason::bad_geneve);
  Returned returned{.appliance = outer.key.source,
                    .traffic_class = outer.traffic_class,
                    .geneve = geneve,
                    .geneve_bytes = header.bytes,
                    .frame = geneve + header.bytes - net::kEthernetBytes,
                    .inner = {}};
  // The options are still to be read where the Ethernet header goes, and a dropped packet is shown as it came.
  std::uint8_t before[net::kEthernetBytes];
  std::memcpy(before, returned.frame, sizeof before);
  std::uint8_t options[kMaxGeneveBytes];
  std::memcpy(options, geneve, header.bytes);
  returned.geneve = options;
  std::memmove(returned.frame, data, 12);
  const abi::DropReason fault = take_inner(work, i, returned, bytes - header.bytes, header.inner_is_v6);
  if (fault == abi::DropReason::none) return;
  std::memcpy(returned.frame, before, sizeof before);
  drop(work, i, fault);
}

}  // namespace lb
