#include "dp/lb/fragments.h"

#include <cstring>

#include "dp/lb/answer.h"
#include "dp/lb/decide.h"
#include "dp/lb/forward_ops.h"
#include "dp/lb/gateway.h"
#include "dp/lb/guard_hygiene.h"
#include "dp/lb/rare.h"
#include "dp/lb/vip_table.h"
#include "dp/lb/work.h"

namespace lb {
namespace {

constexpr std::uint32_t kHeldHeadroom = sizeof(HeldPacket::bytes) - kHeldBytes;

struct Fragment {
  std::uint32_t id = 0;
  std::uint32_t offset = 0;  // bytes
  std::uint32_t bytes = 0;   // of the datagram in this fragment
  bool more = false;
};

Fragment read_fragment(const std::uint8_t* frame, const net::ParsedPacket& packet) {
  Fragment fragment;
  fragment.bytes = packet.l2_length + packet.ip_length - packet.l4_offset;
  if (packet.key.is_v6 == 0) {
    const std::uint8_t* ip = frame + packet.l2_length;
    const std::uint32_t field = load_be16(ip + net::kIpv4FragmentAt);
    fragment.id = load_be16(ip + net::kIpv4IdAt);
    fragment.offset = (field & 0x1fff) * 8;
    fragment.more = (field & 0x2000) != 0;
  } else {
    const std::uint8_t* header = frame + packet.l4_offset - 8;  // parse() stops behind the fragment header
    const std::uint32_t field = load_be16(header + 2);
    fragment.id = load_be32(header + 4);
    fragment.offset = field & 0xfff8;
    fragment.more = (field & 1) != 0;
  }
  return fragment;
}

// What fragments of one datagram have in common (RFC 791, RFC 8200 §4.5), keyed as flows are.
Hash128 key_of(const Work& work, const net::ParsedPacket& packet, std::uint32_t id) {
  net::FlowKey key = packet.key;
  key.source_port = static_cast<std::uint16_t>(id >> 16);
  key.destination_port = static_cast<std::uint16_t>(id);
  if (key.is_v6 != 0) key.protocol = net::kIpv6Fragment;
  return work.hash_of(work.options.flows->hash_keys(), key);
}

Hash128 key_of_frame(const Work& work, std::uint32_t i) {
  return key_of(work, work.parsed[i], read_fragment(work.burst->data[i], work.parsed[i]).id);
}

bool is_tcp(const net::ParsedPacket& packet) {
  return packet.protocol == static_cast<std::uint8_t>(abi::Protocol::tcp);
}

// Fragments no sender makes: the tiny ones and those that overlap the header of the first (RFC 1858, RFC 3128), and those
// that do not fit together.
bool is_bad(const Fragment& fragment, const net::ParsedPacket& packet, const std::uint8_t* l4) {
  if (fragment.bytes == 0 || fragment.offset + fragment.bytes > 0xffff) return true;
  if (fragment.more && fragment.bytes % 8 != 0) return true;
  if (fragment.offset != 0) return is_tcp(packet) && fragment.offset < net::kTcpBytes;
  if (!is_tcp(packet)) return fragment.bytes < net::kUdpBytes || load_be16(l4 + net::kUdpLengthAt) <= fragment.bytes;
  if (fragment.bytes < net::kTcpBytes) return true;
  const std::uint32_t header_bytes = (l4[net::kTcpDataOffsetAt] >> 4) * 4U;
  return header_bytes < net::kTcpBytes || header_bytes > fragment.bytes;
}

FragmentNotes& own_notes(Work& work) {
  return work.options.notes.empty() ? *work.notes : work.options.notes[work.options.worker];
}

// Noted by this worker, or by another; the target as it is now.
std::optional<FragmentNote> find_note(Work& work, const Hash128& key) {
  auto note = own_notes(work).find(key, work.now_ns);
  for (std::uint32_t worker = 0; !note && worker < work.options.notes.size(); ++worker) {
    if (worker != work.options.worker) note = work.options.notes[worker].find(key, work.now_ns);
  }
  return note && live_target(*work.snapshot, note->target) != nullptr ? note : std::nullopt;
}

// The listener of the flow that the note is of; kNoIndex: gone meanwhile.
std::uint32_t listener_of(const Snapshot& snapshot, net::FlowKey key, const FragmentNote& note) {
  key.destination_port = note.port;
  const std::uint32_t index = find_listener(snapshot, vip_table_of(snapshot), key, vip_hash(key));
  return index >= kNoListener ? gateway_listener_of(snapshot, snapshot.targets()[note.target].group) : index;
}

void send_later(Work& work, std::uint32_t i, const FragmentNote& note) {
  Burst& burst = *work.burst;
  if (const std::uint32_t listener = listener_of(*work.snapshot, work.parsed[i].key, note); listener != abi::kNoIndex) {
    count_listed(work, i, listener);
  }
  burst.group[i] = work.snapshot->targets()[note.target].group;
  burst.target[i] = note.target;
  burst.flow[i] = FlowResult::hit;
  work.hash[i] = {note.cookie, note.wire};
  send_on(work, i, note.target);
}

void hold(Work& work, std::uint32_t i, const Hash128& key) {
  const Burst& burst = *work.burst;
  HeldPackets& held = *work.held;
  if (held.count == kHeldPackets || burst.length[i] > kHeldBytes) return drop(work, i, abi::DropReason::fragment_table_full);
  HeldPacket* place = held.packets.data();
  while (place->length != 0) ++place;
  place->key = key;
  place->until_ns = work.now_ns + kHoldNs;
  place->number = held.taken++;
  place->length = burst.length[i];
  place->in_port = burst.in_port[i];
  std::memcpy(place->bytes.data() + kHeldHeadroom, burst.data[i], burst.length[i]);
  ++held.count;
  work.burst->verdict[i] = Verdict::held;
  put(work.options.stats->in_flight, held.count);
}

void end_held(Work& work, HeldPacket& packet, abi::DropReason reason, std::uint32_t listener, std::uint32_t target) {
  ++count(work, reason == abi::DropReason::none ? abi::Counter::forwarded_packets : abi::drop_counter(reason));
  if (listener != abi::kNoIndex) {
    abi::ListenerStats& stats = work.options.listener_stats[work.snapshot->listeners()[listener].counter_index];
    put(stats.packets, stats.packets + 1);
    put(stats.bytes, stats.bytes + packet.length);
    put(stats.dropped_packets, stats.dropped_packets + (reason == abi::DropReason::none ? 0 : 1));
  }
  packet.length = 0;
  put(work.options.stats->in_flight, --work.held->count);
  if (work.options.held_observer != nullptr) work.options.held_observer->held_ended(packet.number, reason, listener, target);
}

void send_held(Work& work, HeldPacket& held, const FragmentNote& note) {
  const Snapshot& snapshot = *work.snapshot;
  const abi::Target& target = snapshot.targets()[note.target];
  std::uint8_t* frame = held.bytes.data() + kHeldHeadroom;
  net::ParsedPacket packet;
  net::parse(frame, held.length, false, packet);  // as it was when it came
  const std::uint32_t listener = listener_of(snapshot, packet.key, note);
  OutFrame out{.reason = abi::DropReason::next_hop_unresolved};
  if ((target.flags & abi::kTargetResolved) != 0) {
    out = forward(snapshot, target, packet, {note.cookie, note.wire}, frame, held.length, kHeldHeadroom);
  }
  if (out.reason == abi::DropReason::none &&
      (work.options.extra == nullptr || !work.options.extra->send(target.out_port, out.data, out.length))) {
    out.reason = abi::DropReason::tx_full;
  }
  end_held(work, held, out.reason, listener, note.target);
}

void release(Work& work, const Hash128& key, const FragmentNote& note) {
  for (HeldPacket& held : work.held->packets) {
    if (held.length != 0 && held.key == key) send_held(work, held, note);
  }
}

}  // namespace

bool FragmentNotes::put(const Hash128& key, const FragmentNote& note, std::uint64_t now_ns) {
  Note* set = notes_->data() + key.low % (kNotes / kWays) * kWays;
  const std::uint64_t name = key.high | 1;
  Note* place = set;
  for (Note* each = set; each != set + kWays; ++each) {
    if (each->key == name) {
      place = each;
      break;
    }
    if (each->at_ns < place->at_ns) place = each;
  }
  const bool spared = place->key == 0 || place->key == name || now_ns - place->at_ns >= kNoteNs;
  __atomic_store_n(&place->key, std::uint64_t{0}, __ATOMIC_RELAXED);
  __atomic_store_n(&place->value, std::uint64_t{note.target} << 32 | std::uint64_t{note.port} << 16 | note.wire,
                   __ATOMIC_RELEASE);
  __atomic_store_n(&place->cookie, std::uint64_t{note.cookie}, __ATOMIC_RELEASE);
  __atomic_store_n(&place->at_ns, now_ns, __ATOMIC_RELEASE);
  __atomic_store_n(&place->key, name, __ATOMIC_RELEASE);
  return spared;
}

std::optional<FragmentNote> FragmentNotes::find(const Hash128& key, std::uint64_t now_ns) const {
  const Note* set = notes_->data() + key.low % (kNotes / kWays) * kWays;
  const std::uint64_t name = key.high | 1;
  for (const Note* each = set; each != set + kWays; ++each) {
    if (__atomic_load_n(&each->key, __ATOMIC_ACQUIRE) != name) continue;
    const std::uint64_t at_ns = __atomic_load_n(&each->at_ns, __ATOMIC_ACQUIRE);
    const std::uint64_t value = __atomic_load_n(&each->value, __ATOMIC_ACQUIRE);
    const std::uint64_t cookie = __atomic_load_n(&each->cookie, __ATOMIC_ACQUIRE);
    if (__atomic_load_n(&each->key, __ATOMIC_RELAXED) != name) continue;  // given to another meanwhile
    if (now_ns > at_ns && now_ns - at_ns >= kNoteNs) continue;
    return FragmentNote{static_cast<std::uint32_t>(value >> 32), static_cast<std::uint16_t>(value >> 16),
                        static_cast<std::uint16_t>(value), static_cast<std::uint32_t>(cookie)};
  }
  return std::nullopt;
}

bool take_fragment(Work& work, std::uint32_t i) {
  net::ParsedPacket& packet = work.parsed[i];
  const std::uint8_t* frame = work.burst->data[i];
  const std::uint8_t* l4 = frame + packet.l4_offset;
  const Fragment fragment = read_fragment(frame, packet);
  abi::DropReason fault = unusual_fault(*work.snapshot, packet, frame);
  if (fault == abi::DropReason::none && !is_tcp(packet) &&
      packet.protocol != static_cast<std::uint8_t>(abi::Protocol::udp)) {
    fault = abi::DropReason::fragment;
  }
  if (fault == abi::DropReason::none && is_bad(fragment, packet, l4)) fault = abi::DropReason::bad_fragment;
  work.target[i] = nullptr;
  if (fault == abi::DropReason::none && fragment.offset == 0) {
    packet.key.source_port = load_be16(l4);
    packet.key.destination_port = load_be16(l4 + 2);
    packet.tcp_flags = is_tcp(packet) ? l4[net::kTcpFlagsAt] : std::uint8_t{0};
    push(work.first_fragments, i);
    return true;
  }
  if (fault == abi::DropReason::none) fault = source_fault(*work.snapshot, packet.key);
  if (fault == abi::DropReason::none && packet.ttl <= 1) fault = abi::DropReason::ttl_expired;
  if (fault == abi::DropReason::none) {
    push(work.rare, i);
  } else {
    drop(work, i, fault);
  }
  return false;
}

std::optional<FragmentNote> note_of(Work& work, const std::uint8_t* frame, const net::ParsedPacket& packet) {
  return find_note(work, key_of(work, packet, read_fragment(frame, packet).id));
}

bool is_first_fragment(const Work& work, std::uint32_t i) {
  for (std::uint32_t n = 0; n < work.first_fragments.count; ++n) {
    if (work.first_fragments.at[n] == i) return true;
  }
  return false;
}

void note_first_fragments(Work& work) {
  for (std::uint32_t n = 0; n < work.first_fragments.count; ++n) {
    const std::uint32_t i = work.first_fragments.at[n];
    if (work.target[i] == nullptr) continue;  // it goes nowhere, so nor do the others
    const Hash128 key = key_of_frame(work, i);
    const bool geneve = work.target[i]->mode == abi::ForwardingMode::geneve;
    const FragmentNote note{work.burst->target[i], work.parsed[i].key.destination_port,
                            static_cast<std::uint16_t>(work.hash[i].high), geneve ? flow_cookie(named_hash(work, i)) : 0};
    if (!own_notes(work).put(key, note, work.now_ns)) ++count(work, abi::Counter::fragment_notes_lost);
    if (work.held->count != 0) release(work, key, note);
  }
}

void serve_later_fragment(Work& work, std::uint32_t i) {
  const Hash128 key = key_of_frame(work, i);
  const auto note = find_note(work, key);
  note ? send_later(work, i, *note) : hold(work, i, key);
}

void tend_held(Work& work) {
  if (work.held->count == 0) return;
  for (HeldPacket& held : work.held->packets) {
    if (held.length == 0) continue;
    if (const auto note = find_note(work, held.key)) {
      send_held(work, held, *note);
    } else if (work.now_ns >= held.until_ns) {
      end_held(work, held, abi::DropReason::fragment_timeout, abi::kNoIndex, abi::kNoIndex);
    }
  }
}

}  // namespace lb
