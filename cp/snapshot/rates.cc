#include "cp/snapshot/rates.h"

#include <algorithm>

namespace lb::cp {
namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr std::uint64_t kLeastBytes = 2 * 9216;  // of a bucket: two of the longest frames

// A bucket holds what a second gives, and at least two units (of bytes: two frames).
void compile_kind(abi::RateSet& set, abi::RateKind kind, std::uint64_t per_second, std::uint64_t least) {
  if (per_second == 0) return;
  const auto k = static_cast<std::size_t>(kind);
  set.cost[k] = std::min(((kSecondNs << abi::kRateCostShift) + per_second / 2) / per_second, abi::kMaxRateCost);
  const std::uint64_t least_ns = (least * kSecondNs + per_second - 1) / per_second;
  set.hold[k] = std::min(std::max(kSecondNs, least_ns), abi::kMaxRateHold);
}

abi::RateSet compile_set(const RateSet& limits) {
  abi::RateSet set;
  compile_kind(set, abi::RateKind::new_flows, limits.new_flows_per_second, 2);
  compile_kind(set, abi::RateKind::packets, limits.packets_per_second, 2);
  compile_kind(set, abi::RateKind::bytes, limits.bytes_per_second, kLeastBytes);
  set.flows = static_cast<std::uint32_t>(limits.concurrent_flows);
  return set;
}

}  // namespace

abi::RateLimits compile_rates(const RateLimits& limits, std::uint16_t identity) {
  abi::RateLimits compiled;
  compiled.identity = identity;
  compiled.source = compile_set(limits.per_source);
  compiled.listener = compile_set(limits.per_listener);
  compiled.action = limits.action == RateAction::mark    ? abi::RateAction::mark
                    : limits.action == RateAction::reset ? abi::RateAction::reset
                                                         : abi::RateAction::drop;
  compiled.dscp = limits.dscp;
  compiled.prefix_v4 = static_cast<std::uint8_t>(96 + limits.prefix_v4);
  compiled.prefix_v6 = limits.prefix_v6;
  return compiled;
}

std::uint16_t rate_identity(const Listener& listener, const abi::Vip& vip) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  const auto mix = [&hash](std::uint8_t byte) { hash = (hash ^ byte) * 0x100000001b3ULL; };
  for (const std::string* text : {&listener.name, &listener.interface}) {
    for (const char c : *text) mix(static_cast<std::uint8_t>(c));
    mix(0);
  }
  for (const std::uint8_t byte : vip.address.bytes) mix(byte);
  mix(static_cast<std::uint8_t>(vip.prefix_length));
  mix(static_cast<std::uint8_t>(listener.protocol));
  for (const std::uint16_t port : {listener.first_port, listener.last_port}) {
    mix(static_cast<std::uint8_t>(port >> 8));
    mix(static_cast<std::uint8_t>(port));
  }
  return static_cast<std::uint16_t>(hash ^ hash >> 16 ^ hash >> 32 ^ hash >> 48);
}

}  // namespace lb::cp
