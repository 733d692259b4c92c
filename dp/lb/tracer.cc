#include "dp/lb/tracer.h"

#include <algorithm>
#include <cstring>

#include "dp/net/parse.h"

namespace lb {
namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr std::uint8_t kHeld = 4;

std::uint8_t number_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::tx: return 1;
    case Verdict::punt: return 2;
    case Verdict::held: return kHeld;
    case Verdict::drop:
    case Verdict::answer: break;
  }
  return 3;
}

// Whether one of both is in the prefix; length 0: any.
bool holds(const net::FlowKey& key, const abi::IpAddress& prefix, std::uint32_t length) {
  if (length == 0) return true;
  if (length > 128) return false;
  return abi::masked(key.source, length) == prefix || abi::masked(key.destination, length) == prefix;
}

void publish(std::uint64_t& shared, std::uint64_t value) {
  std::atomic_ref(shared).store(value, std::memory_order_release);
}

}  // namespace

void TraceOrders::set(const abi::TraceOrder& order) {
  std::array<std::uint64_t, kWords> words;
  std::memcpy(words.data(), &order, sizeof(order));
  const std::uint64_t even = (version_.load(std::memory_order_relaxed) | 1) + 1;
  version_.store(even, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  for (std::size_t i = 0; i < kWords; ++i) words_[i].store(words[i], std::memory_order_relaxed);
  if (order.packets_per_second != 0) version_.store(even + 1, std::memory_order_release);
}

bool TraceOrders::read(std::uint64_t version, abi::TraceOrder& order) const {
  std::array<std::uint64_t, kWords> words;
  if (version_.load(std::memory_order_acquire) != version) return false;
  for (std::size_t i = 0; i < kWords; ++i) words[i] = words_[i].load(std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_acquire);
  if (version_.load(std::memory_order_relaxed) != version) return false;
  std::memcpy(static_cast<void*>(&order), words.data(), sizeof(order));
  return true;
}

Tracer::Tracer(const TraceOrders& orders, abi::TraceRing& ring) : orders_(orders), ring_(ring) {}

// False: it has been changed or withdrawn just now.
bool Tracer::take_order() {
  const std::uint64_t version = orders_.version();
  if (version == version_) return true;
  if ((version & 1) == 0 || !orders_.read(version, order_)) return false;
  version_ = version;
  next_ns_ = 0;
  order_.packets_per_second = std::min(order_.packets_per_second, abi::kTracePacketsPerSecond);
  order_.snap_bytes = std::min(order_.snap_bytes, abi::kTraceSnapBytes);
  return order_.packets_per_second != 0;
}

bool Tracer::matches(const std::uint8_t* frame, std::uint32_t length) const {
  const bool any = order_.client_length == 0 && order_.vip_length == 0 && order_.port == 0 && order_.protocol == 0;
  if (any) return true;
  net::ParsedPacket packet;
  const net::ParseStatus status = net::parse(frame, length, false, packet);
  if (status.result == net::ParseResult::not_ip || status.result == net::ParseResult::drop) return false;
  const bool port = order_.port == 0 || packet.key.source_port == order_.port || packet.key.destination_port == order_.port;
  const bool protocol = order_.protocol == 0 || packet.protocol == order_.protocol;
  return port && protocol && holds(packet.key, order_.client, order_.client_length) &&
         holds(packet.key, order_.vip, order_.vip_length);
}

void Tracer::before(const Burst& burst, std::uint64_t now_ns) {
  count_ = 0;
  now_ns_ = now_ns;
  if (!take_order() || now_ns >= order_.until_ns) return;
  // What cannot be written is not copied; which packets can is known here where no outcome is asked for.
  const bool by_outcome = order_.verdict != 0 || order_.reason != 0;
  const std::uint64_t most = by_outcome ? kBurst : allowed();
  std::uint64_t over = 0;
  for (std::uint32_t i = 0; i < burst.count; ++i) {
    if (!matches(burst.data[i], burst.length[i])) continue;
    if (count_ >= most) {
      ++over;
      continue;
    }
    Chosen& chosen = chosen_[count_++];
    chosen.packet = i;
    chosen.length = burst.length[i];
    chosen.bytes = std::min(chosen.length, order_.snap_bytes);
    std::memcpy(chosen.frame.data(), burst.data[i], chosen.bytes);
  }
  if (over != 0) publish(ring_.limited, ring_.limited + over);
}

bool Tracer::matches_outcome(const Burst& burst, std::uint32_t packet) const {
  if (order_.verdict != 0 && number_of(burst.verdict[packet]) != order_.verdict) return false;
  return order_.reason == 0 || static_cast<std::uint16_t>(burst.reason[packet]) == order_.reason;
}

// How many records may be written now: packets_per_second on average, and a tenth of that at once.
std::uint64_t Tracer::allowed() {
  const std::uint64_t cost_ns = kSecondNs / order_.packets_per_second;
  const std::uint64_t limit_ns = now_ns_ + std::max(kSecondNs / 10, cost_ns);
  next_ns_ = std::max(next_ns_, now_ns_);
  return next_ns_ >= limit_ns ? 0 : (limit_ns - next_ns_) / cost_ns;
}

void Tracer::after(const Burst& burst, abi::Generation generation) {
  for (std::uint32_t n = 0; n < count_; ++n) {
    const Chosen& chosen = chosen_[n];
    if (!matches_outcome(burst, chosen.packet)) continue;
    if (allowed() > 0) {
      next_ns_ += kSecondNs / order_.packets_per_second;
      write(burst, chosen, generation);
    } else {
      publish(ring_.limited, ring_.limited + 1);
    }
  }
  count_ = 0;
}

void Tracer::write(const Burst& burst, const Chosen& chosen, abi::Generation generation) {
  const std::uint64_t number = ring_.written;
  abi::TraceRecord& record = ring_.records[number % abi::kTraceRecords];
  const std::uint32_t i = chosen.packet;
  std::atomic_ref(record.sequence).store(2 * number + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  record.session = order_.session;
  record.at_ns = now_ns_;
  record.generation = generation;
  record.in_length = chosen.length;
  record.listener = burst.listener[i];
  record.group = burst.group[i];
  record.target = burst.target[i];
  record.slot = burst.slot[i];
  record.reason = static_cast<std::uint16_t>(burst.reason[i]);
  record.verdict = number_of(burst.verdict[i]);
  record.flow = static_cast<std::uint8_t>(burst.flow[i]);
  record.in_port = burst.in_port[i];
  record.out_port = burst.out_port[i];
  const bool leaves = burst.verdict[i] == Verdict::tx || burst.verdict[i] == Verdict::answer;
  record.out_length = leaves ? burst.length[i] : 0;
  record.in_bytes = static_cast<std::uint16_t>(chosen.bytes);
  record.out_bytes = static_cast<std::uint16_t>(std::min(record.out_length, order_.snap_bytes));
  std::memcpy(record.bytes.data(), chosen.frame.data(), chosen.bytes);
  std::memcpy(record.bytes.data() + chosen.bytes, burst.data[i], record.out_bytes);
  publish(record.sequence, 2 * number + 2);
  publish(ring_.written, number + 1);
}

}  // namespace lb
