#include "cp/explain/rates.h"

#include <algorithm>
#include <map>

#include "cp/model/model.h"
#include "dp/lb/flow_hash.h"
#include "dp/lb/guard_rates.h"
#include "dp/lb/rate_view.h"

namespace lb::cp::explain {
namespace {

std::string prefix_text(const abi::IpAddress& prefix, std::uint8_t length) {
  return format_prefix({prefix, length});
}

// " 203.0.113.7 has been over packets_per_second, 12 packets".
std::string history_text(const RateStanding& standing) {
  if (standing.refused == 0) return "";
  std::string limits;
  for (std::size_t bit = 0; bit < kRateLimitNames.size(); ++bit) {
    if ((standing.over >> bit & 1) != 0) limits += (limits.empty() ? "" : ", ") + std::string(kRateLimitNames[bit]);
  }
  return " (" + std::to_string(standing.refused) + " packets so far over " + limits + ")";
}

std::string standing_text(const RateStanding& standing, std::string_view over) {
  return (over.empty() ? "within its limits" : "over " + std::string(over)) + history_text(standing);
}

}  // namespace

RateFinding rates_of(const Context& context, std::uint32_t listener, const net::FlowKey& key, std::uint64_t now_ns) {
  const abi::Listener& entry = context.snapshot->listeners()[listener];
  if (entry.rate_limits == abi::kNoIndex) return {};
  const abi::RateLimits& limits = context.snapshot->rate_limits()[entry.rate_limits];
  const RateSource source = rate_source(limits, entry.counter_index, key, make_hash_keys(context.secret), flow_hash);
  RateFinding finding{"rates: source " + prefix_text(source.prefix, source.prefix_length) + " "};
  const auto of_source = rate_standing(context.rates, source, now_ns);
  std::string_view over = of_source ? over_limit(limits.source, *of_source, now_ns) : std::string_view();
  if (!over.empty()) finding.reason = abi::DropReason::source_rate_limit;
  finding.text += of_source ? standing_text(*of_source, over) : "has sent nothing lately";
  const auto whole = rate_standing(context.rates, source.listener);
  if (!whole) return finding;
  over = over_limit(limits.listener, *whole, now_ns);
  if (!over.empty() && finding.reason == abi::DropReason::none) finding.reason = abi::DropReason::listener_rate_limit;
  finding.text += "; listener " + standing_text(*whole, over);
  if (limits.action == abi::RateAction::mark) {
    if (finding.reason != abi::DropReason::none) finding.text += ", which marks it with DSCP " + std::to_string(limits.dscp);
    finding.reason = abi::DropReason::none;
  }
  return finding;
}

Offenders offenders(const Context& context, const std::string& listener, std::uint64_t now_ns) {
  Offenders found;
  if (context.snapshot == nullptr) return found;
  std::map<std::uint32_t, std::string> names;
  for (const abi::Listener& each : context.snapshot->listeners()) {
    if (each.rate_limits == abi::kNoIndex) continue;
    const abi::RateLimits& limits = context.snapshot->rate_limits()[each.rate_limits];
    names.emplace(abi::rate_listener(each.counter_index, limits), context.snapshot->name(each.name));
  }
  for (const RateStanding& standing : rate_sources(context.rates, now_ns)) {
    const auto at = names.find(standing.listener);
    if (at == names.end()) continue;
    const std::string& name = at->second;
    if (!listener.empty() && name != listener) continue;
    ++found.sources;
    if (standing.refused == 0) continue;
    Offender& row = found.rows.emplace_back();
    row.listener = name;
    row.source = prefix_text(standing.prefix, standing.prefix_length);
    row.refused = standing.refused;
    row.flows = standing.flows;
    row.idle_ns = standing.idle_ns;
    row.known = standing.known;
    for (std::size_t bit = 0; bit < kRateLimitNames.size(); ++bit) {
      if ((standing.over >> bit & 1) != 0) row.over.emplace_back(kRateLimitNames[bit]);
    }
  }
  std::ranges::stable_sort(found.rows, [](const Offender& a, const Offender& b) { return a.refused > b.refused; });
  return found;
}

}  // namespace lb::cp::explain
