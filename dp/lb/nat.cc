#include "dp/lb/nat.h"

#include <cstring>

#include "dp/lb/answer.h"
#include "dp/lb/flow_ops.h"
#include "dp/lb/fullnat.h"
#include "dp/lb/gateway.h"
#include "dp/lb/mss.h"
#include "dp/lb/own_outer.h"
#include "dp/lb/passive.h"
#include "dp/lb/vip_table.h"
#include "dp/net/rewrite.h"
#include "dp/net/translate.h"

namespace lb {
namespace {

// A flow that a packet from its target's side belongs to.
struct Return {
  std::uint32_t listener = abi::kNoIndex;
  std::uint32_t target = 0;
  std::uint64_t idle_ns = 0;
  FlowState state = FlowState::empty;
  FlowSlot slot;               // of this worker's table; none if another worker has the flow
  FlowTable* owner = nullptr;  // that worker's
  Hash128 hash;
  WayBack way;
};

bool is_on(const Snapshot& snapshot, std::uint32_t id, const net::FlowKey& reply) {
  const abi::Target* target = live_target(snapshot, id);
  return target != nullptr && target->mode == abi::ForwardingMode::nat && target->address == reply.source &&
         (target->port == 0 || target->port == reply.source_port);
}

// The flow's entry in this worker's table, else in another's. `found` keeps what was seen last.
void look_up(Work& work, std::uint32_t listener, const net::FlowKey& reply, Return& found) {
  const Snapshot& snapshot = *work.snapshot;
  const net::FlowKey key = forward_key(snapshot, snapshot.listeners()[listener], reply);
  FlowTable& own = *work.options.flows;
  const Hash128 hash = work.hash_one(own.hash_keys(), key);
  const auto take = [&](FlowTable& table, const FlowView& view, const FlowSlot& slot) {
    if (!is_on(snapshot, view.target, reply)) return false;
    if (found.listener == abi::kNoIndex || view.idle_ns < found.idle_ns) {
      found = {listener, view.target, view.idle_ns, view.state, slot, &table, hash, table.ways().at(key.source, view.way)};
    }
    return true;
  };
  const FlowSlot slot = find(own.state(), first_line(hash, own.state().line_count), fingerprint_of(hash));
  if (slot.line != nullptr) {
    const std::uint32_t meta = slot.line->meta[slot.index];
    const std::uint64_t idle_ns = idle_ticks(slot.line->key[slot.index], work.tick) * kTickNs;
    if (take(own, {meta_target(meta), meta_state(meta), meta_way(meta), idle_ns}, slot)) return;
  }
  for (FlowTable* peer : work.options.peers) {
    if (peer == &own) continue;
    const auto view = peer->peek(hash, work.now_ns);
    if (view && take(*peer, *view, {})) return;
  }
}

Return find_return(Work& work, const net::FlowKey& reply) {
  Return found;
  const auto listeners = return_listeners(*work.snapshot, reply.source, reply.source_port, reply.protocol);
  for (const std::uint32_t listener : listeners) look_up(work, listener, reply, found);
  return found;
}

void update_entry(Work& work, const FlowSlot& slot, bool reset) {
  touch(slot, work.tick);
  const FlowState state = meta_state(slot.line->meta[slot.index]);
  if (reset && state != FlowState::reset && !is_udp(state)) set_state(slot, FlowState::short_lived);
}

// The reply says that the flow lives, or that its target has ended it.
void learn_from(Work& work, const Return& found, std::uint8_t tcp_flags) {
  const bool reset = (tcp_flags & net::kTcpRst) != 0;
  if (reset) note_target_reset(work, found.target, found.state);
  if (found.slot.line != nullptr) return update_entry(work, found.slot, reset);
  const auto rings = found.owner->news();
  if ((reset || found.idle_ns >= kTellAfterNs) && work.options.worker < rings.size())
    rings[work.options.worker].push({found.hash, reset ? 1U : 0U});
}

// Whether the packet can leave by `found.way`; the verdict is set if not.
bool can_leave(Work& work, std::uint32_t i, const net::ParsedPacket& packet, const Return& found) {
  if (packet.ttl <= 1) {
    drop(work, i, abi::DropReason::ttl_expired);
  } else if (found.way.used == 0) {
    drop(work, i, abi::DropReason::no_way_back);
  } else if (net::l2_bytes(found.way.vlan) > work.burst->headroom[i] + packet.l2_length) {
    drop(work, i, abi::DropReason::no_headroom);
  } else {
    return true;
  }
  return false;
}

// Sends a rewritten packet the way its flow's packets came.
void leave(Work& work, std::uint32_t i, const net::ParsedPacket& packet, const Return& found) {
  Burst& burst = *work.burst;
  std::uint8_t* frame = burst.data[i];
  net::decrement_ttl(frame + packet.l2_length, packet.key.is_v6 != 0);
  std::uint8_t* start = net::rewrite_l2(frame, packet, {found.way.neighbour, found.way.own, found.way.vlan});
  burst.length[i] = static_cast<std::uint32_t>(burst.length[i] + (frame - start));
  burst.data[i] = start;
  const std::uint8_t own = found.way.own_port;
  burst.out_port[i] = burst.port_of_own != nullptr ? burst.port_of_own[own] : own;
  burst.verdict[i] = Verdict::tx;
  ++count(work, abi::Counter::forwarded_packets);
  ++count(work, abi::Counter::returned_packets);
}

void note(Work& work, std::uint32_t i, const Return& found) {
  Burst& burst = *work.burst;
  burst.listener[i] = found.listener;
  burst.target[i] = found.target;
  burst.group[i] = work.snapshot->targets()[found.target].group;
  burst.flow[i] = FlowResult::hit;
}

}  // namespace

std::span<const std::uint32_t> return_listeners(const Snapshot& snapshot, const abi::IpAddress& source, std::uint16_t port,
                                                std::uint8_t protocol) {
  const auto table = snapshot.return_table();
  if (table.empty()) return {};
  const std::uint32_t hash =
      vip_hash(load<std::uint64_t>(source.bytes.data()), load<std::uint64_t>(source.bytes.data() + 8), protocol, port);
  const abi::VipCell* cell = find_cell({table.data(), static_cast<std::uint32_t>(table.size() - 1)}, hash, source, protocol,
                                       port, abi::VipCellKind::ranges);
  return cell == nullptr ? std::span<const std::uint32_t>{} : snapshot.return_listeners().subspan(cell->index, cell->count);
}

net::FlowKey forward_key(const Snapshot& snapshot, const abi::Listener& listener, const net::FlowKey& reply) {
  net::FlowKey key = reply;
  key.source = reply.destination;
  key.source_port = reply.destination_port;
  key.destination = snapshot.vips()[listener.vip].address;
  key.destination_port = listener.first_port;
  return key;
}

OutFrame forward_nat(const abi::Target& target, const net::ParsedPacket& packet, std::uint8_t* data, std::uint32_t length,
                     std::uint32_t headroom) {
  if (packet.ip_length > target.mtu_bytes) return refuse_frame(data, length, abi::DropReason::too_big);
  if (net::l2_bytes(target.vlan) > headroom + packet.l2_length)
    return refuse_frame(data, length, abi::DropReason::no_headroom);
  if (packet.protocol == kTcp || packet.protocol == kUdp) {
    if (packet.key.destination_port == 0) {  // a later fragment: the first one has the ports and the checksum
      net::translate_address(data, packet, net::Side::destination, target.address);
    } else {
      const std::uint16_t port = target.port != 0 ? target.port : packet.key.destination_port;
      net::translate(data, packet, net::Side::destination, target.address, port);
    }
  } else if (const auto quoted = net::quoted_flow(data, packet)) {  // the client's side about a reply: the quote is one
    const std::uint16_t port = target.port != 0 ? target.port : quoted->source_port;
    net::translate_quote(data, packet, {net::Side::source, net::Side::destination, target.address, port, target.address});
  }
  net::decrement_ttl(data + packet.l2_length, packet.key.is_v6 != 0);
  std::uint8_t* start = net::rewrite_l2(data, packet, {target.next_hop_mac, target.source_mac, target.vlan});
  return {start, static_cast<std::uint32_t>(length + (data - start)), abi::DropReason::none};
}

bool note_way_back(Work& work, std::uint32_t i, const abi::Target& target) {
  const net::ParsedPacket& packet = packet_of(work, i);
  const std::uint8_t* frame = work.burst->data[i];
  if (packet.key.destination_port == 0 || (frame[0] & 1) != 0) return true;  // ICMP, a later fragment
  const FlowSlot slot = find(work.options.flows->state(), work.first[i], fingerprint_of(work.hash[i]));
  if (slot.line == nullptr || live_target(*work.snapshot, meta_target(slot.line->meta[slot.index])) != &target) {
    refuse_untracked(work, i);  // its entry went to a later packet of this burst
    return false;
  }
  WayBack way{.vlan = packet.vlan, .own_port = work.burst->own_port, .used = 1};
  std::memcpy(way.own.data(), frame, 6);
  std::memcpy(way.neighbour.data(), frame + 6, 6);
  const std::uint32_t present = meta_way(slot.line->meta[slot.index]);
  const std::uint32_t number = work.options.flows->ways().learn(packet.key.source, way, present,
                                                                static_cast<std::uint32_t>(work.now_ns / 1'000'000'000));
  if (number == 0) {
    drop(work, i, abi::DropReason::no_way_back);
    return false;
  }
  if (number != present) set_way(slot, number);
  return true;
}

void take_return(Work& work, std::uint32_t i) {
  if (take_snat_packet(work, i)) return;
  const net::ParsedPacket& packet = packet_of(work, i);
  if (is_returned(*work.snapshot, packet)) return take_returned(work, i);
  if (is_own_outer(*work.snapshot, packet)) return drop(work, i, abi::DropReason::own_outer);
  const Return found = find_return(work, packet.key);
  if (found.listener == abi::kNoIndex) return punt(work, i, abi::DropReason::punt_failed);
  if (!can_leave(work, i, packet, found)) return;
  note(work, i, found);
  learn_from(work, found, packet.tcp_flags);
  const abi::Listener& listener = work.snapshot->listeners()[found.listener];
  const abi::Target& target = work.snapshot->targets()[found.target];
  if ((target.flags & abi::kTargetClampsMss) != 0 && (packet.tcp_flags & net::kTcpSyn) != 0) clamp_mss_for(work, i, target);
  net::translate(work.burst->data[i], packet, net::Side::source, work.snapshot->vips()[listener.vip].address,
                 listener.first_port);
  leave(work, i, packet, found);
}

void take_news(Work& work) {
  FlowTable& own = *work.options.flows;
  for (NewsRing& ring : own.news()) {
    ring.drain([&](const News& news) {
      const FlowSlot slot = find(own.state(), first_line(news.hash, own.state().line_count), fingerprint_of(news.hash));
      if (slot.line != nullptr) update_entry(work, slot, news.reset != 0);
    });
  }
}

void take_return_error(Work& work, std::uint32_t i) {
  if (take_snat_error(work, i)) return;
  const net::ParsedPacket& packet = work.parsed[i];
  const auto quoted = net::quoted_flow(work.burst->data[i], packet);
  Return found;
  if (quoted) {  // what the target was sent: its reply would be the other way round
    const net::FlowKey reply{quoted->destination,
                             quoted->source,
                             quoted->destination_port,
                             quoted->source_port,
                             quoted->protocol,
                             quoted->is_v6,
                             0};
    found = find_return(work, reply);
  }
  // The error must be on its way to the client whose packet it quotes.
  if (found.listener == abi::kNoIndex || packet.key.destination != quoted->source)
    return punt(work, i, abi::DropReason::punt_failed);
  if (!can_leave(work, i, packet, found)) return;
  note(work, i, found);
  const abi::Listener& listener = work.snapshot->listeners()[found.listener];
  const abi::IpAddress& vip = work.snapshot->vips()[listener.vip].address;
  const abi::IpAddress from = packet.key.source;
  // A router on the way keeps its own address; the target shows itself as the VIP.
  const bool from_target = from == work.snapshot->targets()[found.target].address;
  net::translate_quote(work.burst->data[i], packet,
                       {net::Side::destination, net::Side::source, vip, listener.first_port, from_target ? vip : from});
  leave(work, i, packet, found);
}

}  // namespace lb
