#include "dp/lb/fullnat.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "dp/lb/answer.h"
#include "dp/lb/decide.h"
#include "dp/lb/fragments.h"
#include "dp/lb/passive.h"
#include "dp/lb/translations.h"
#include "dp/lb/vip_table.h"
#include "dp/net/client_address.h"
#include "dp/net/family.h"
#include "dp/net/icmp.h"
#include "dp/net/reply.h"
#include "dp/net/rewrite.h"
#include "dp/net/translate.h"

namespace lb {
namespace {

using abi::Translation;
using abi::TranslationState;

constexpr std::uint32_t kAnsweredTimeoutTicks = 60 * kTicksPerSecond;  // SYN-ACK seen, and then nothing
// How long a port is not given to another flow: a target that closed first is in TIME_WAIT, of which Linux makes 60 s.
constexpr std::uint32_t kTimeWaitTicks = 60 * kTicksPerSecond;
constexpr std::uint32_t kClosedTicks = 5 * kTicksPerSecond;

std::uint32_t tick_of(const Work& work) {
  return static_cast<std::uint32_t>(work.now_ns / kTickNs);
}

bool is_tcp(const Translation& flow) {
  return flow.protocol == kTcp;
}

// A flow's translation, wherever it is; `flow` is a copy.
struct Found {
  Translation flow;
  std::uint32_t slot = kNoSlot;
  std::uint32_t worker = 0;
};

Found found_in(SnatBook& book, std::uint32_t worker, std::uint32_t slot) {
  return {book.of(worker).at(slot), slot, worker};
}

// By the client's tuple: in this worker's table, then in the others'.
std::optional<Found> find_by_client(Work& work, const Hash128& hash) {
  SnatBook& book = *work.options.snat;
  const std::uint32_t own = work.options.worker;
  if (const std::uint32_t slot = book.of(own).find(hash); slot != kNoSlot) return found_in(book, own, slot);
  for (std::uint32_t worker = 0; worker < book.workers(); ++worker) {
    if (worker == own) continue;
    std::uint32_t slot = kNoSlot;
    if (const auto flow = book.of(worker).peek(hash, slot)) return Found{*flow, slot, worker};
  }
  return std::nullopt;
}

// By what the target uses. `reply`: the key of a packet from it.
std::optional<Found> find_by_target(Work& work, const net::FlowKey& reply) {
  SnatBook& book = *work.options.snat;
  const SnatBook::Place place = book.find_port(reply.destination, reply.destination_port, reply.protocol);
  if (place.slot == kNoSlot) return std::nullopt;
  const auto flow = book.of(place.worker).peek(place.slot);
  const bool fits = flow && flow->snat == reply.destination && flow->snat_port == reply.destination_port &&
                    flow->protocol == reply.protocol && flow->target == reply.source &&
                    flow->target_port == reply.source_port;
  return fits ? std::optional(Found{*flow, place.slot, place.worker}) : std::nullopt;
}

// ---- what packets say of a flow

void learn_fin(Translations& table, std::uint32_t slot, bool from_target) {
  Translation& flow = table.at(slot);
  std::uint8_t flags = flow.flags;
  if (from_target && (flags & abi::kClientFin) == 0) flags |= abi::kTargetClosedFirst;
  flags |= from_target ? abi::kTargetFin : abi::kClientFin;
  __atomic_store_n(&flow.flags, flags, __ATOMIC_RELAXED);
  constexpr std::uint8_t kBoth = abi::kClientFin | abi::kTargetFin;
  if ((flags & kBoth) == kBoth) table.set_state(slot, TranslationState::closed);
}

// Owner only.
void learn(Translations& table, const TranslationNews& news, std::uint32_t tick) {
  Translation& flow = table.at(news.slot);
  if (flow.state == TranslationState::free || flow.snat_port != news.snat_port) return;  // over meanwhile
  __atomic_store_n(&flow.tick, tick, __ATOMIC_RELAXED);
  if (news.way.used != 0) table.set_way(news.slot, news.way);
  if (news.header_arrived != 0) {
    __atomic_store_n(&flow.flags, static_cast<std::uint8_t>(flow.flags | abi::kHeaderArrived), __ATOMIC_RELAXED);
  }
  const bool from_target = news.from_target != 0;
  if (!is_tcp(flow)) {
    if (from_target || flow.state == TranslationState::closed) table.set_state(news.slot, TranslationState::established);
    return;
  }
  if ((news.tcp_flags & net::kTcpRst) != 0) return table.set_state(news.slot, TranslationState::closed);
  if (from_target && flow.state == TranslationState::opening) table.set_state(news.slot, TranslationState::answered);
  if (!from_target && flow.state == TranslationState::answered && (news.tcp_flags & net::kTcpSyn) == 0) {
    table.set_state(news.slot, TranslationState::established);
  }
  if ((news.tcp_flags & net::kTcpFin) != 0) learn_fin(table, news.slot, from_target);
}

// Whether another worker's flow should hear of this packet: not of every one of a bulk transfer.
bool is_news(const Translation& flow, const TranslationNews& news, std::uint32_t tick) {
  const bool steady = flow.state == TranslationState::established;
  const bool moved = news.way.used != 0 && std::bit_cast<WayBack>(flow.way) != news.way;
  const bool header = news.header_arrived != 0 && (flow.flags & abi::kHeaderArrived) == 0;
  return !steady || moved || header || (news.tcp_flags & (net::kTcpFin | net::kTcpRst)) != 0 ||
         (tick - flow.tick) * kTickNs >= kTellAfterNs;
}

void tell(Work& work, const Found& found, const TranslationNews& news) {
  SnatBook& book = *work.options.snat;
  const std::uint32_t tick = tick_of(work);
  if (found.worker == work.options.worker) return learn(book.of(found.worker), news, tick);
  if (is_news(found.flow, news, tick)) book.ring(work.options.worker, found.worker).push(news);
}

// The target has ended a flow that neither side was closing.
void note_reset(Work& work, std::uint32_t i, const Translation& flow, std::uint8_t tcp_flags) {
  const bool closing = flow.state == TranslationState::closed || (flow.flags & (abi::kClientFin | abi::kTargetFin)) != 0;
  if (is_tcp(flow) && !closing && (tcp_flags & net::kTcpRst) != 0) note_trouble(work, work.burst->target[i]);
}

// ---- from the client

WayBack way_of(const Work& work, std::uint32_t i, const net::ParsedPacket& packet) {
  const std::uint8_t* frame = work.burst->data[i];
  WayBack way{.vlan = packet.vlan, .own_port = work.burst->own_port, .used = 1};
  if ((frame[0] & 1) != 0) return {};
  std::memcpy(way.own.data(), frame, 6);
  std::memcpy(way.neighbour.data(), frame + 6, 6);
  return way;
}

std::uint16_t port_at(const abi::Target& target, std::uint16_t asked) {
  return target.port != 0 ? target.port : asked;
}

// The group's SNAT addresses of the target's family; IPv4 comes first among them.
std::span<const abi::IpAddress> addresses_for(const Snapshot& snapshot, const abi::Target& target) {
  const abi::TargetGroup& group = snapshot.groups()[target.group];
  const auto all = snapshot.snat_addresses().subspan(group.first_snat, group.snat_count);
  const auto first_v6 = std::find_if(all.begin(), all.end(), [](const abi::IpAddress& a) { return !a.is_v4(); });
  const auto v4_count = static_cast<std::size_t>(first_v6 - all.begin());
  return target.address.is_v4() ? all.first(v4_count) : all.subspan(v4_count);
}

std::optional<Found> make(Work& work, std::uint32_t i, const abi::Target& target, const net::ParsedPacket& packet) {
  const Snapshot& snapshot = *work.snapshot;
  SnatBook& book = *work.options.snat;
  Translations& own = book.of(work.options.worker);
  const net::FlowKey& key = packet.key;
  std::uint64_t evicted = 0;
  // A client keeps its SNAT address while that has ports.
  const std::uint32_t slot = own.allocate(
      {.addresses = addresses_for(snapshot, target), .turn = vip_hash(key.source, 0, 0), .protocol = packet.protocol},
      evicted);
  count(work, abi::Counter::snat_evicted) += evicted;
  if (slot == kNoSlot) return std::nullopt;
  const bool begins = packet.protocol == kTcp && is_opening(packet.tcp_flags);
  Translation flow;
  flow.tick = tick_of(work);
  flow.state = TranslationState::opening;
  flow.client = key.source;
  flow.client_port = key.source_port;
  flow.vip = key.destination;
  flow.vip_port = key.destination_port;
  flow.target = target.address;
  flow.target_port = port_at(target, key.destination_port);
  flow.target_id = work.burst->target[i];
  flow.hash = {work.hash[i].low, work.hash[i].high};
  flow.way = std::bit_cast<std::array<std::uint64_t, 2>>(way_of(work, i, packet));
  if (begins) {
    flow.client_address = snapshot.groups()[target.group].client_address;
    flow.first_sequence = net::sequence_of(work.burst->data[i], packet);
    const bool header = flow.client_address == abi::ClientAddress::proxy_v2;
    flow.header_bytes = static_cast<std::uint8_t>(header ? net::proxy_header_bytes(key.is_v6 != 0) : 0);
  }
  own.fill(slot, flow);
  return found_in(book, work.options.worker, slot);
}

// The flow's translation as it is to be from this packet on.
std::optional<Found> translation_of(Work& work, std::uint32_t i, const abi::Target& target,
                                    const net::ParsedPacket& packet) {
  auto found = find_by_client(work, work.hash[i]);
  const bool opening = packet.protocol == kTcp && is_opening(packet.tcp_flags);
  const bool own = found && found->worker == work.options.worker;
  Translations& table = work.options.snat->of(work.options.worker);
  if (found && opening && found->flow.state == TranslationState::closed) {  // the client has begun anew with this port
    if (own) table.forget_client(found->slot);
    found.reset();
  }
  const std::uint32_t id = work.burst->target[i];
  const std::uint16_t port = port_at(target, packet.key.destination_port);
  if (found && (found->flow.target != target.address || found->flow.target_port != port)) {
    if (!own) return make(work, i, target, packet);
    table.set_target(found->slot, id, target.address, port);
    if (found->flow.snat.is_v4() != target.address.is_v4()) {
      table.forget_client(found->slot);
      return make(work, i, target, packet);
    }
  }
  if (!found) return make(work, i, target, packet);
  if (own && opening && found->flow.state < TranslationState::established) {  // it may have chosen another first number
    __atomic_store_n(&table.at(found->slot).first_sequence, net::sequence_of(work.burst->data[i], packet), __ATOMIC_RELAXED);
  }
  return own ? found_in(*work.options.snat, work.options.worker, found->slot) : found;
}

// How the packet is to be changed beside its tuple.
struct Insertion {
  std::uint32_t proxy_bytes = 0;          // in front of the payload
  std::uint32_t option_bytes = 0;         // in the TCP header
  std::uint32_t keep_bytes = 0xffffffff;  // of the payload
  std::uint32_t add_to_sequence = 0;
};

Insertion insertion_for(const Translation& flow, const std::uint8_t* frame, const net::ParsedPacket& packet) {
  Insertion insertion;
  if (packet.protocol != kTcp || flow.client_address == abi::ClientAddress::hidden) return insertion;
  const bool syn = (packet.tcp_flags & net::kTcpSyn) != 0;
  const bool is_v6 = packet.key.is_v6 != 0;
  const std::uint32_t passed = net::sequence_of(frame, packet) - flow.first_sequence;  // 1: the first byte
  const bool at_start =
      !syn && passed <= 1 && (packet.tcp_flags & net::kTcpAck) != 0 && (packet.tcp_flags & net::kTcpRst) == 0;
  if (flow.client_address == abi::ClientAddress::tcp_option) {
    if (syn || at_start) insertion.option_bytes = net::address_option_bytes(is_v6);
    return insertion;
  }
  if (syn) {
    insertion.keep_bytes = 0;  // else the client's bytes would come before the header
    return insertion;
  }
  insertion.add_to_sequence = flow.header_bytes;
  const std::uint32_t payload = net::payload_bytes(frame, packet);
  if (at_start && (flow.flags & abi::kHeaderArrived) == 0 && (passed == 1 || payload == 0)) {
    insertion.proxy_bytes = flow.header_bytes;
    insertion.add_to_sequence = 1 - passed;  // a keep-alive that asks with the number before
  }
  return insertion;
}

// Frame and packet after that; `packet` is a copy that is kept right.
std::uint8_t* insert(std::uint8_t* frame, net::ParsedPacket& packet, const Translation& flow, const Insertion& insertion) {
  const net::ClientAddresses addresses{flow.client, flow.vip, flow.client_port, flow.vip_port};
  if (insertion.keep_bytes != 0xffffffff) net::trim_payload(frame, packet, insertion.keep_bytes);
  if (insertion.add_to_sequence != 0) net::add_to_sequence(frame, packet, insertion.add_to_sequence);
  if (insertion.proxy_bytes != 0) frame = net::insert_proxy_header(frame, packet, addresses);
  if (insertion.option_bytes != 0) {
    std::uint8_t* with = net::insert_address_option(frame, packet, addresses);
    if (with != nullptr) frame = with;
  }
  return frame;
}

// Whether the packet fits its way; what is inserted makes room by leaving payload to a retransmission. The verdict is set if
// it does not.
bool fits(Work& work, std::uint32_t i, const abi::Target& target, const net::ParsedPacket& packet, Insertion& insertion) {
  const bool to_v6 = !target.address.is_v4();
  const std::uint32_t length = net::length_with(packet, to_v6);
  const std::uint32_t room = net::room_for(packet, to_v6) + insertion.proxy_bytes + insertion.option_bytes;
  if (room + net::l2_bytes(target.vlan) > work.burst->headroom[i] + packet.l2_length) {
    drop(work, i, abi::DropReason::no_headroom);
    return false;
  }
  if (length > target.mtu_bytes) {
    const std::uint32_t grown = length > packet.ip_length ? length - packet.ip_length : 0;
    const std::uint32_t shrunk = length < packet.ip_length ? packet.ip_length - length : 0;
    answer_too_big(work, i, target.mtu_bytes + shrunk - std::min<std::uint32_t>(grown, target.mtu_bytes));
    return false;
  }
  if (length + insertion.option_bytes > target.mtu_bytes) insertion.option_bytes = 0;
  if (length + insertion.proxy_bytes > target.mtu_bytes) {
    const std::uint32_t payload = net::payload_bytes(work.burst->data[i], packet);
    const std::uint32_t excess = length + insertion.proxy_bytes - target.mtu_bytes;
    insertion.keep_bytes = payload - std::min(payload, excess);
  }
  return true;
}

void send_out(Work& work, std::uint32_t i, const net::IpPacket& packet, const net::LinkAddress& link) {
  std::uint8_t* start = net::write_l2(packet.ip, packet.is_v6 ? net::kEtherTypeIpv6 : net::kEtherTypeIpv4, link);
  work.burst->data[i] = start;
  work.burst->length[i] = static_cast<std::uint32_t>(packet.ip - start) + packet.length;
}

net::LinkAddress link_to(const abi::Target& target) {
  return {target.next_hop_mac, target.source_mac, target.vlan};
}

net::Tuple towards_target(const Translation& flow) {
  return {flow.snat, flow.target, flow.snat_port, flow.target_port};
}
net::Tuple towards_client(const Translation& flow) {
  return {flow.vip, flow.client, flow.vip_port, flow.client_port};
}

// An error told anew takes the place of the one that came, its end where that has its own.
bool place_error(Work& work, std::uint32_t i, const net::ParsedPacket& packet, const net::RelayedError& error,
                 const net::LinkAddress& link) {
  std::uint8_t told[net::kMaxRelayedErrorBytes];
  const net::IpPacket out = net::relay_error(work.burst->data[i], packet, error, told);
  const std::uint32_t end = packet.l2_length + std::uint32_t{packet.ip_length};
  if (out.length == 0) {
    drop(work, i, abi::DropReason::icmp_no_flow);
  } else if (out.length + net::l2_bytes(link.vlan) > end + work.burst->headroom[i]) {
    drop(work, i, abi::DropReason::no_headroom);
  } else {
    std::uint8_t* ip = work.burst->data[i] + end - out.length;
    std::memcpy(ip, told, out.length);
    send_out(work, i, {ip, out.length, out.is_v6}, link);
    return true;
  }
  return false;
}

// The client's side about a packet that it was sent.
bool relay_to_target(Work& work, std::uint32_t i, const abi::Target& target, const net::ParsedPacket& packet) {
  const auto found = find_by_client(work, work.hash[i]);
  if (!found || found->flow.target != target.address || !net::quoted_flow(work.burst->data[i], packet)) {
    drop(work, i, abi::DropReason::icmp_no_flow);
    return false;
  }
  const Translation& flow = found->flow;
  const net::RelayedError error{flow.snat, flow.target, {flow.target, flow.snat, flow.target_port, flow.snat_port}, 0};
  return place_error(work, i, packet, error, link_to(target));
}

// ---- to the client

bool can_leave(Work& work, std::uint32_t i, const net::ParsedPacket& packet, const WayBack& way, std::uint32_t room) {
  if (packet.ttl <= 1) {
    drop(work, i, abi::DropReason::ttl_expired);
  } else if (way.used == 0) {
    drop(work, i, abi::DropReason::no_way_back);
  } else if (room + net::l2_bytes(way.vlan) > work.burst->headroom[i] + packet.l2_length) {
    drop(work, i, abi::DropReason::no_headroom);
  } else {
    return true;
  }
  return false;
}

void leave(Work& work, std::uint32_t i, const WayBack& way) {
  Burst& burst = *work.burst;
  burst.out_port[i] = burst.port_of_own != nullptr ? burst.port_of_own[way.own_port] : way.own_port;
  burst.verdict[i] = Verdict::tx;
  ++count(work, abi::Counter::forwarded_packets);
  ++count(work, abi::Counter::returned_packets);
}

void note(Work& work, std::uint32_t i, const Translation& flow) {
  const Snapshot& snapshot = *work.snapshot;
  const std::uint8_t is_v6 = flow.vip.is_v4() ? 0 : 1;
  const net::FlowKey key{flow.client, flow.vip, flow.client_port, flow.vip_port, flow.protocol, is_v6, 0};
  const std::uint32_t listener = find_listener(snapshot, vip_table_of(snapshot), key, vip_hash(key));
  work.burst->listener[i] = listener < kNoListener ? listener : abi::kNoIndex;
  work.burst->flow[i] = FlowResult::hit;
  const abi::Target* target = live_target(snapshot, flow.target_id);
  if (target == nullptr || target->address != flow.target) return;
  work.burst->target[i] = flow.target_id;
  work.burst->group[i] = target->group;
}

// A packet that belongs to no flow: whoever sent it is told, as a host would that has no such socket.
void refuse_stray(Work& work, std::uint32_t i) {
  if (net::is_bad_source(packet_of(work, i).key)) return drop(work, i, abi::DropReason::no_translation);
  refuse(work, i, abi::DropReason::no_translation);
}

std::uint32_t idle_ticks_of(const Translation& flow, std::uint32_t tick) {
  const std::uint32_t idle = tick - flow.tick;
  return idle < 1U << 31 ? idle : 0;  // another worker's clock may be a burst ahead
}

// ---- ageing

std::uint32_t limit_ticks(const Work& work, const Translation& flow) {
  const abi::Target* target = live_target(*work.snapshot, flow.target_id);
  if (flow.state == TranslationState::closed) {
    const bool in_time_wait = (flow.flags & abi::kTargetClosedFirst) != 0 || (flow.flags & abi::kClientFin) == 0;
    return in_time_wait ? kTimeWaitTicks : kClosedTicks;
  }
  if (target == nullptr || target->address != flow.target) return kTimeWaitTicks;
  const abi::TargetGroup& group = work.snapshot->groups()[target->group];
  if (!is_tcp(flow)) return group.udp_idle_timeout_s * kTicksPerSecond;
  if (flow.state == TranslationState::opening) return kFreshTimeoutTicks;
  return flow.state == TranslationState::answered ? kAnsweredTimeoutTicks : group.tcp_idle_timeout_s * kTicksPerSecond;
}

void age_one(Work& work, Translations& table, std::uint32_t slot, std::uint32_t tick) {
  Translation& flow = table.at(slot);
  if (flow.state == TranslationState::free || idle_ticks_of(flow, tick) < limit_ticks(work, flow)) return;
  if (flow.state != TranslationState::established) return table.release(slot);
  table.set_state(slot, TranslationState::closed);
  __atomic_store_n(&flow.tick, tick, __ATOMIC_RELAXED);
}

}  // namespace

bool forward_fullnat(Work& work, std::uint32_t i, const abi::Target& target) {
  const net::ParsedPacket parsed = packet_of(work, i);
  if (work.options.snat == nullptr) {
    drop(work, i, abi::DropReason::snat_exhausted);
    return false;
  }
  if (parsed.protocol != kTcp && parsed.protocol != kUdp) return relay_to_target(work, i, target, parsed);
  if (parsed.key.destination_port == 0 || is_first_fragment(work, i)) {
    drop(work, i, abi::DropReason::fragment);
    return false;
  }
  const auto found = translation_of(work, i, target, parsed);
  if (!found) {
    ++count(work, abi::Counter::snat_refused);
    refuse(work, i, abi::DropReason::snat_exhausted);
    return false;
  }
  net::ParsedPacket packet = parsed;
  Insertion insertion = insertion_for(found->flow, work.burst->data[i], packet);
  if (!fits(work, i, target, packet, insertion)) return false;
  tell(work, *found,
       {.slot = found->slot,
        .snat_port = found->flow.snat_port,
        .tcp_flags = packet.tcp_flags,
        .way = way_of(work, i, packet)});
  std::uint8_t* frame = insert(work.burst->data[i], packet, found->flow, insertion);
  const auto id = static_cast<std::uint16_t>(++work.outer_fragment_id);
  send_out(work, i, net::rewrite_tuple(frame, packet, towards_target(found->flow), id), link_to(target));
  return true;
}

bool take_snat_packet(Work& work, std::uint32_t i) {
  const net::ParsedPacket& packet = packet_of(work, i);
  SnatBook* book = work.options.snat;
  if (book == nullptr || book->find_address(packet.key.destination) == kNoSlot) return false;
  const auto found = find_by_target(work, packet.key);
  if (!found) {
    refuse_stray(work, i);
    return true;
  }
  const Translation& flow = found->flow;
  const auto way = std::bit_cast<WayBack>(flow.way);
  if (!can_leave(work, i, packet, way, net::room_for(packet, !flow.client.is_v4()))) return true;
  note(work, i, flow);
  note_reset(work, i, flow, packet.tcp_flags);
  std::uint8_t* frame = work.burst->data[i];
  TranslationNews news{.slot = found->slot, .snat_port = flow.snat_port, .from_target = 1, .tcp_flags = packet.tcp_flags};
  if (flow.header_bytes != 0) {
    const std::uint32_t first = flow.first_sequence + 1;
    const bool arrived = (flow.flags & abi::kHeaderArrived) != 0;
    const std::uint32_t acknowledged = net::acknowledgment_of(frame, packet) - first;
    news.header_arrived =
        (packet.tcp_flags & net::kTcpAck) != 0 && acknowledged >= flow.header_bytes && acknowledged < 1U << 31 ? 1 : 0;
    net::take_from_acknowledgment(frame, packet, flow.header_bytes, first, arrived);
  }
  tell(work, *found, news);
  const auto id = static_cast<std::uint16_t>(++work.outer_fragment_id);
  send_out(work, i, net::rewrite_tuple(frame, packet, towards_client(flow), id), {way.neighbour, way.own, way.vlan});
  leave(work, i, way);
  return true;
}

bool take_snat_error(Work& work, std::uint32_t i) {
  const net::ParsedPacket& packet = work.parsed[i];
  SnatBook* book = work.options.snat;
  if (book == nullptr || book->find_address(packet.key.destination) == kNoSlot) return false;
  const net::IcmpMessage message = net::read_icmp(work.burst->data[i], packet);
  if (message.kind == net::IcmpKind::bad) {
    drop(work, i, abi::DropReason::bad_icmp);
    return true;
  }
  if (message.kind != net::IcmpKind::error) return false;
  const auto found = find_by_target(work, message.flow);
  if (!found || !net::quoted_flow(work.burst->data[i], packet)) {
    drop(work, i, abi::DropReason::icmp_no_flow);
    return true;
  }
  const Translation& flow = found->flow;
  const auto way = std::bit_cast<WayBack>(flow.way);
  if (!can_leave(work, i, packet, way, 0)) return true;
  note(work, i, flow);
  // A router on the way keeps its own address where the client's family has it; the target shows itself as the VIP.
  const bool as_vip = packet.key.source == flow.target || flow.client.is_v4() != flow.target.is_v4();
  const net::RelayedError error{.source = as_vip ? flow.vip : packet.key.source,
                                .destination = flow.client,
                                .quoted = {flow.client, flow.vip, flow.client_port, flow.vip_port},
                                .sequence_shift = 0U - flow.header_bytes};
  if (place_error(work, i, packet, error, {way.neighbour, way.own, way.vlan})) leave(work, i, way);
  return true;
}

std::optional<FlowView> translated_flow(Work& work, std::uint32_t i) {
  if (work.options.snat == nullptr) return std::nullopt;
  const auto found = find_by_client(work, work.hash[i]);
  return found ? view_of(*work.snapshot, found->flow, tick_of(work)) : std::nullopt;
}

std::optional<FlowView> view_of(const Snapshot& snapshot, const Translation& flow, std::uint32_t tick) {
  const abi::Target* target = live_target(snapshot, flow.target_id);
  if (flow.state == TranslationState::closed || target == nullptr || target->address != flow.target) return std::nullopt;
  const bool opening = flow.state == TranslationState::opening;
  FlowState state = opening ? FlowState::udp_fresh : FlowState::udp;
  if (is_tcp(flow)) {
    const bool closing = (flow.flags & abi::kClientFin) != 0;
    state = opening ? FlowState::fresh : closing ? FlowState::closing : FlowState::assumed;
  }
  return FlowView{flow.target_id, state, 0, idle_ticks_of(flow, tick) * kTickNs};
}

bool reset_fullnat_target(Work& work, std::uint32_t i, const abi::Target& target) {
  if (work.options.snat == nullptr) return false;
  const auto found = find_by_client(work, work.hash[i]);
  if (!found || found->flow.target != target.address) return false;
  constexpr std::uint32_t kRoomBytes = 64;
  std::uint8_t buffer[kRoomBytes + net::kMaxResetBytes];
  std::uint8_t* frame = buffer + kRoomBytes;
  const std::uint32_t length = net::build_reset_to_target(work.burst->data[i], packet_of(work, i), frame);
  net::ParsedPacket packet;
  if (length == 0 || net::parse(frame, length, false, packet).result != net::ParseResult::ok) return false;
  if (found->flow.header_bytes != 0) net::add_to_sequence(frame, packet, found->flow.header_bytes);
  const net::IpPacket out = net::rewrite_tuple(frame, packet, towards_target(found->flow), 0);
  std::uint8_t* start = net::write_l2(out.ip, out.is_v6 ? net::kEtherTypeIpv6 : net::kEtherTypeIpv4, link_to(target));
  tell(work, *found, {.slot = found->slot, .snat_port = found->flow.snat_port, .tcp_flags = net::kTcpRst});
  return work.options.extra->send(target.out_port, start, static_cast<std::uint32_t>(out.ip - start) + out.length);
}

void tend_translations(Work& work, std::uint32_t slots) {
  SnatBook* book = work.options.snat;
  if (book == nullptr) return;
  const std::uint32_t own = work.options.worker;
  Translations& table = book->of(own);
  const std::uint32_t tick = tick_of(work);
  for (std::uint32_t from = 0; from < book->workers(); ++from) {
    if (from == own) continue;
    book->ring(from, own).drain([&](const TranslationNews& news) {
      if (news.slot < table.capacity()) learn(table, news, tick);
    });
  }
  if (table.used() != 0) {
    for (std::uint32_t n = std::min(slots, table.capacity()); n > 0; --n) {
      age_one(work, table, table.sweep_slot, tick);
      table.sweep_slot = table.sweep_slot + 1 == table.capacity() ? 0 : table.sweep_slot + 1;
    }
  }
  put(work.options.stats->snat_ports, std::uint64_t{table.used()});
  put(work.options.stats->snat_capacity, book->capacity(own));
}

}  // namespace lb
