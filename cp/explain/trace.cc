#include "cp/explain/trace.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <utility>

#include "cp/model/model.h"
#include "dp/abi/counters.h"
#include "dp/lb/snapshot.h"
#include "dp/net/parse.h"

namespace lb::cp::explain {
namespace {

std::uint64_t load(const std::uint64_t& shared) {
  return std::atomic_ref(const_cast<std::uint64_t&>(shared)).load(std::memory_order_acquire);
}

// False: it is being written, or has been written over.
bool copy(const abi::TraceRecord& from, std::uint64_t number, abi::TraceRecord& to) {
  if (load(from.sequence) != 2 * number + 2) return false;
  std::memcpy(&to, &from, sizeof to);
  std::atomic_thread_fence(std::memory_order_acquire);
  if (load(from.sequence) != 2 * number + 2) return false;
  to.in_bytes = std::min<std::uint16_t>(to.in_bytes, abi::kTraceSnapBytes);
  to.out_bytes = std::min<std::uint16_t>(to.out_bytes, abi::kTraceSnapBytes);
  return true;
}

constexpr std::uint8_t kSent = 1;

std::string port_name(const lb::Snapshot& snapshot, std::uint8_t port) {
  if (port >= snapshot.ports().size()) return "";
  const auto& name = snapshot.ports()[port].name;
  return {name, ::strnlen(name, sizeof(name))};
}

}  // namespace

std::string protocol_text(std::uint8_t protocol) {
  switch (static_cast<abi::Protocol>(protocol)) {
    case abi::Protocol::tcp: return "TCP";
    case abi::Protocol::udp: return "UDP";
    case abi::Protocol::icmp:
    case abi::Protocol::icmpv6: return "ICMP";
    default: return std::to_string(protocol);
  }
}

TraceFeed::TraceFeed(std::shared_ptr<const void> owner, std::span<const abi::TraceRing> rings, std::uint64_t session)
    : owner_(std::move(owner)), rings_(rings), session_(session) {
  for (const abi::TraceRing& ring : rings_) places_.push_back({load(ring.written), load(ring.limited)});
}

TraceFeed::Batch TraceFeed::read() {
  Batch batch;
  for (std::uint32_t worker = 0; worker < rings_.size(); ++worker) {
    const abi::TraceRing& ring = rings_[worker];
    Place& place = places_[worker];
    const std::uint64_t written = load(ring.written);
    batch.limited += load(ring.limited) - place.limited;
    if (written < place.next) place.next = written;  // not the ring that it was
    if (written - place.next > abi::kTraceRecords) {
      batch.lost += written - place.next - abi::kTraceRecords;
      place.next = written - abi::kTraceRecords;
    }
    for (; place.next < written; ++place.next) {
      TracedPacket packet{.worker = worker, .number = place.next};
      if (!copy(ring.records[place.next % abi::kTraceRecords], place.next, packet.record)) {
        ++batch.lost;
      } else if (packet.record.session == session_) {
        batch.packets.push_back(packet);
      }
    }
  }
  std::ranges::stable_sort(batch.packets, {}, [](const TracedPacket& packet) { return packet.record.at_ns; });
  return batch;
}

bool parse_kept(const abi::TraceRecord& record, net::ParsedPacket& packet) {
  // Headers are at the front; what was not kept behind them is 0, or the packet would be shorter than it says.
  static constexpr std::uint32_t kMostBytes = 16384;
  static thread_local std::array<std::uint8_t, kMostBytes> frame;
  const std::uint32_t kept = std::min<std::uint32_t>(record.in_bytes, abi::kTraceSnapBytes);
  const std::uint32_t length = std::clamp(record.in_length, kept, kMostBytes);
  std::memcpy(frame.data(), record.bytes.data(), kept);
  std::memset(frame.data() + kept, 0, length - kept);
  const auto result = net::parse(frame.data(), length, false, packet).result;
  return result == net::ParseResult::ok || result == net::ParseResult::other_ip;
}

TraceWords words_of(const lb::Snapshot* snapshot, const abi::TraceRecord& record) {
  static constexpr std::array kFlow = {"none", "hit", "new"};
  static constexpr std::array kFlowWords = {"no entry", "entry found", "new entry"};
  static constexpr std::array kVerdict = {"", "tx", "punt", "drop", "held"};
  static constexpr std::array kEnd = {"", "sent", "to the kernel", "dropped", "held"};
  if (snapshot != nullptr && snapshot->generation() != record.generation) snapshot = nullptr;
  TraceWords words;
  const std::size_t flow = std::min<std::size_t>(record.flow, kFlow.size() - 1);
  const std::size_t verdict = std::min<std::size_t>(record.verdict, kVerdict.size() - 1);
  words.flow = kFlow[flow];
  words.verdict = kVerdict[verdict];
  if (record.reason < abi::kDropReasonCount) words.reason = abi::to_string(static_cast<abi::DropReason>(record.reason));
  net::ParsedPacket packet;
  if (parse_kept(record, packet)) {
    words.protocol = protocol_text(packet.protocol);
    words.source = format_address_port(packet.key.source, packet.key.source_port);
    words.destination = format_address_port(packet.key.destination, packet.key.destination_port);
  }
  const auto then = [&](const std::string& part) { words.path += (words.path.empty() ? "" : " → ") + part; };
  const auto name_of = [&](const auto& items, std::uint32_t index) {
    return index < items.size() ? std::string(snapshot->name(items[index].name)) : std::string();
  };
  if (snapshot != nullptr) {
    words.listener = name_of(snapshot->listeners(), record.listener);
    words.target_group = name_of(snapshot->groups(), record.group);
    words.in_port = port_name(*snapshot, record.in_port);
    if (record.out_length != 0) words.out_port = port_name(*snapshot, record.out_port);
    if (record.target < snapshot->targets().size()) {
      const abi::Target& target = snapshot->targets()[record.target];
      words.target = format_address_port(target.address, target.port != 0 ? target.port : packet.key.destination_port);
    }
  }
  if (record.listener != abi::kNoIndex) {
    then(words.listener.empty() ? "a listener" : "listener " + words.listener);
    then(kFlowWords[flow]);
  }
  if (record.slot != abi::kNoIndex)
    then("slot " + std::to_string(record.slot) + (words.target_group.empty() ? "" : " of " + words.target_group));
  if (!words.target.empty()) {
    then(words.target);
    if (record.verdict == kSent) then(std::string(abi::to_string(snapshot->targets()[record.target].mode)));
  }
  then(kEnd[verdict] + (words.reason.empty() ? "" : " as " + words.reason));
  return words;
}

}  // namespace lb::cp::explain
