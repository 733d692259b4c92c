#include "dp/lb/snapshot_guards.h"

namespace lb {
namespace {

Check check_set(const abi::RateSet& set, std::size_t index, const char* whose) {
  for (std::uint32_t k = 0; k < abi::kRateKinds; ++k) {
    if (set.cost[k] > abi::kMaxRateCost || set.hold[k] > abi::kMaxRateHold)
      return refuse(kBounds, "rate_limits[%zu]: %s: cost %llu, hold %llu", index, whose, print(set.cost[k]),
                    print(set.hold[k]));
  }
  return {};
}

Check check_limits(const abi::RateLimits& limits, std::size_t index) {
  if (static_cast<std::uint8_t>(limits.action) >= abi::kRateActionCount || limits.dscp > 63)
    return refuse(kBounds, "rate_limits[%zu]: action %u, dscp %u", index, static_cast<unsigned>(limits.action), limits.dscp);
  if (limits.prefix_v4 < 96 || limits.prefix_v4 > 128 || limits.prefix_v6 > 128)
    return refuse(kBounds, "rate_limits[%zu]: prefix lengths %u, %u", index, limits.prefix_v4, limits.prefix_v6);
  return check_set(limits.listener, index, "listener").and_then([&] { return check_set(limits.source, index, "source"); });
}

}  // namespace

Check check_guards(std::span<const abi::Listener> listeners, std::size_t security_groups,
                   std::span<const abi::RateLimits> rate_limits) {
  for (std::size_t i = 0; i < rate_limits.size(); ++i) {
    if (auto ok = check_limits(rate_limits[i], i); !ok) return ok;
  }
  for (std::size_t i = 0; i < listeners.size(); ++i) {
    const abi::Listener& listener = listeners[i];
    if (listener.security_group != abi::kNoIndex && listener.security_group >= security_groups)
      return refuse(kBounds, "listeners[%zu]: security group %u of %zu", i, listener.security_group, security_groups);
    if (listener.rate_limits != abi::kNoIndex && listener.rate_limits >= rate_limits.size())
      return refuse(kBounds, "listeners[%zu]: rate limits %u of %zu", i, listener.rate_limits, rate_limits.size());
    const std::uint32_t guards = (listener.security_group != abi::kNoIndex ? abi::kGuardSecurity : 0U) |
                                 (listener.rate_limits != abi::kNoIndex ? abi::kGuardRates : 0U);
    if ((listener.guards & (abi::kGuardSecurity | abi::kGuardRates)) != guards)
      return refuse(kBounds, "listeners[%zu]: guards %u", i, listener.guards);
  }
  return {};
}

}  // namespace lb
