#include "cp/config/validate_rates.h"

#include "proto/config.pb.h"

namespace lb::cp {
namespace {

RateSet rate_set(const config::RateSet& from) {
  return {from.new_flows_per_second(), from.packets_per_second(), from.bytes_per_second(), from.concurrent_flows()};
}

// A limit for each source that all of them together never reach.
void warn_of_idle_limits(const RateLimits& limits, const std::string& path, const Judgements& judge) {
  const auto compare = [&](const char* field, std::uint64_t source, std::uint64_t listener) {
    if (source == 0 || listener == 0 || source <= listener) return;
    judge.warning(path + ".per_source." + field, "is never reached: per_listener." + std::string(field) + " is less");
  };
  compare("new_flows_per_second", limits.per_source.new_flows_per_second, limits.per_listener.new_flows_per_second);
  compare("packets_per_second", limits.per_source.packets_per_second, limits.per_listener.packets_per_second);
  compare("bytes_per_second", limits.per_source.bytes_per_second, limits.per_listener.bytes_per_second);
  compare("concurrent_flows", limits.per_source.concurrent_flows, limits.per_listener.concurrent_flows);
}

}  // namespace

RateLimits validate_rates(const config::Listener& listener, const std::string& path, const Judgements& judge) {
  const config::RateLimits& from = listener.rate_limits();
  RateLimits limits;
  limits.per_source = rate_set(from.per_source());
  limits.per_listener = rate_set(from.per_listener());
  limits.action = from.action() == "mark"    ? RateAction::mark
                  : from.action() == "reset" ? RateAction::reset
                                             : RateAction::drop;
  limits.dscp = static_cast<std::uint8_t>(from.dscp());
  if (from.has_prefix_length_v4()) limits.prefix_v4 = static_cast<std::uint8_t>(from.prefix_length_v4());
  if (from.has_prefix_length_v6()) limits.prefix_v6 = static_cast<std::uint8_t>(from.prefix_length_v6());
  if (!limits.limits()) judge.violation(path, "must say at least one limit, in per_source or per_listener");
  if (limits.action == RateAction::mark && !from.has_dscp())
    judge.violation(path + ".dscp", "is missing: action mark needs it");
  if (limits.action != RateAction::mark && from.has_dscp()) judge.violation(path + ".dscp", "needs action: mark");
  if (listener.protocol() == "GENEVE")
    judge.violation(path, "needs a listener of TCP, UDP or TCP_UDP: through an appliance flows go both ways");
  warn_of_idle_limits(limits, path, judge);
  return limits;
}

}  // namespace lb::cp
