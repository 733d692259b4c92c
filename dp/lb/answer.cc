#include "dp/lb/answer.h"

#include "dp/lb/forward_ops.h"
#include "dp/lb/fullnat.h"
#include "dp/lb/gateway.h"
#include "dp/net/icmp.h"
#include "dp/net/reply.h"

namespace lb {
namespace {

void set_answer(Work& work, std::uint32_t i, std::uint32_t length, abi::DropReason reason, abi::Counter originated) {
  drop(work, i, reason);
  work.burst->verdict[i] = Verdict::answer;
  work.burst->length[i] = length;
  work.burst->out_port[i] = work.burst->in_port[i];
  ++count(work, originated);
}

// In the client's name, the way the client's packets go.
void reset_target(Work& work, std::uint32_t i, const abi::Target& target) {
  if (work.options.extra == nullptr || (target.flags & abi::kTargetResolved) == 0) return;
  if (target.mode == abi::ForwardingMode::fullnat) {
    if (reset_fullnat_target(work, i, target)) ++count(work, abi::Counter::originated_rst);
    return;
  }
  constexpr std::uint32_t kRoomBytes = 128;
  std::uint8_t buffer[kRoomBytes + net::kMaxResetBytes];
  std::uint8_t* frame = buffer + kRoomBytes;
  const std::uint32_t length = net::build_reset_to_target(work.burst->data[i], packet_of(work, i), frame);
  net::ParsedPacket packet;
  if (length == 0 || net::parse(frame, length, false, packet).result != net::ParseResult::ok) return;
  const Hash128 hash = target.mode == abi::ForwardingMode::geneve ? named_hash(work, i) : work.hash[i];
  const OutFrame out = forward(*work.snapshot, target, packet, hash, frame, length, kRoomBytes);
  if (out.reason != abi::DropReason::none) return;
  if (work.options.extra->send(target.out_port, out.data, out.length)) ++count(work, abi::Counter::originated_rst);
}

}  // namespace

void answer_with_reset(Work& work, std::uint32_t i, const abi::Target& target) {
  if (!work.resets.take(work.now_ns)) return drop(work, i, abi::DropReason::reset_rate_limited);
  reset_target(work, i, target);
  std::uint8_t* frame = work.burst->data[i];
  const std::uint32_t length = net::build_reset_to_client(frame, packet_of(work, i), frame);
  if (length == 0) return drop(work, i, abi::DropReason::reset_rate_limited);
  set_answer(work, i, length, abi::DropReason::answered_rst, abi::Counter::originated_rst);
}

void answer_echo(Work& work, std::uint32_t i) {
  std::uint8_t* frame = work.burst->data[i];
  const std::uint32_t length = net::build_echo_reply(frame, packet_of(work, i), frame);
  if (length == 0) return drop(work, i, abi::DropReason::bad_icmp);
  set_answer(work, i, length, abi::DropReason::answered_echo, abi::Counter::originated_icmp);
}

void refuse(Work& work, std::uint32_t i, abi::DropReason reason) {
  std::uint8_t* frame = work.burst->data[i];
  const net::ParsedPacket& packet = packet_of(work, i);
  const bool tcp = packet.protocol == kTcp;
  if (packet.key.destination_port == 0 || !(tcp ? work.resets : work.errors).take(work.now_ns)) return drop(work, i, reason);
  const std::uint32_t length = tcp ? net::build_reset_to_client(frame, packet, frame)
                                   : net::build_port_unreachable(frame, packet, work.burst->tailroom[i], frame);
  if (length == 0) return drop(work, i, reason);
  set_answer(work, i, length, tcp ? abi::DropReason::answered_rst : abi::DropReason::answered_icmp,
             tcp ? abi::Counter::originated_rst : abi::Counter::originated_icmp);
}

void refuse_untracked(Work& work, std::uint32_t i) {
  ++count(work, abi::Counter::flow_refused);
  refuse(work, i, abi::DropReason::flow_table_full);
}

void answer_too_big(Work& work, std::uint32_t i, const abi::Target& target) {
  answer_too_big(work, i, target.mtu_bytes - std::min<std::uint32_t>(target.mtu_bytes, outer_bytes(target)));
}

void answer_too_big(Work& work, std::uint32_t i, std::uint32_t fits_bytes) {
  const net::ParsedPacket& packet = packet_of(work, i);
  // Not to an ICMP error either, which has the key of the flow it speaks of in a gateway listener's way.
  if (packet.dont_fragment == 0 || packet.key.destination_port == 0 || packet.key.protocol != packet.protocol ||
      !work.errors.take(work.now_ns))
    return drop(work, i, abi::DropReason::too_big);
  std::uint8_t* frame = work.burst->data[i];
  const std::uint32_t length = net::build_packet_too_big(frame, packet, fits_bytes, frame);
  if (length == 0) return drop(work, i, abi::DropReason::too_big);
  set_answer(work, i, length, abi::DropReason::answered_icmp, abi::Counter::originated_icmp);
}

}  // namespace lb
