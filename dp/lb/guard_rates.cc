#include "dp/lb/guard_rates.h"

#include <algorithm>

#include "dp/lb/answer.h"
#include "dp/lb/guard_security.h"
#include "dp/lb/rate_flows.h"
#include "dp/lb/work.h"
#include "dp/net/dscp.h"

namespace lb {
namespace {

using abi::DropReason;

const abi::RateLimits* limits_of(const Work& work, std::uint32_t i) {
  const abi::Listener& listener = work.snapshot->listeners()[work.burst->listener[i]];
  return listener.rate_limits == abi::kNoIndex ? nullptr : &work.snapshot->rate_limits()[listener.rate_limits];
}

RateSource source_of(Work& work, std::uint32_t i, const abi::RateLimits& limits) {
  const abi::Listener& listener = work.snapshot->listeners()[work.burst->listener[i]];
  return rate_source(limits, listener.counter_index, packet_of(work, i).key, work.options.flows->hash_keys(), work.hash_of);
}

void mark(Work& work, std::uint32_t i, std::uint8_t dscp) {
  net::ParsedPacket& packet = work.parsed[i];  // filled: its source has been asked for
  packet.traffic_class = net::set_dscp(work.burst->data[i] + packet.l2_length, packet.key.is_v6 != 0, dscp);
  ++count(work, abi::Counter::rate_marked);
}

// True: the packet has come to its end.
bool end_over_limit(Work& work, std::uint32_t i, const abi::RateLimits& limits, RateAnswer answer, bool flow) {
  if (answer == RateAnswer::pass) return false;
  const DropReason reason =
      answer == RateAnswer::source_over ? DropReason::source_rate_limit : DropReason::listener_rate_limit;
  if (limits.action == abi::RateAction::mark) {
    mark(work, i, limits.dscp);
    return false;
  }
  if (limits.action == abi::RateAction::reset && flow) {
    refuse(work, i, reason);
  } else {
    drop(work, i, reason);
  }
  return true;
}

}  // namespace

RateSource rate_source(const abi::RateLimits& limits, std::uint32_t counter_index, const net::FlowKey& key,
                       const HashKeys& keys, Hash128 (*hash)(const HashKeys&, const net::FlowKey&)) {
  RateSource source;
  source.listener = abi::rate_listener(counter_index, limits);
  source.prefix_length = key.is_v6 != 0 ? limits.prefix_v6 : limits.prefix_v4;
  source.prefix = abi::masked(key.source, source.prefix_length);
  net::FlowKey named;
  named.source = source.prefix;
  named.is_v6 = key.is_v6;
  named.source_port = static_cast<std::uint16_t>(counter_index);
  named.protocol = source.prefix_length;
  source.hash = hash(keys, named);
  return source;
}

void keep_rates(Work& work) {
  for (std::uint32_t i = 0; i < work.burst->count; ++i) {
    if (work.run[i] == kNoRun) continue;
    const abi::RateLimits* limits = limits_of(work, i);
    if (limits == nullptr || !abi::limits_packets(*limits)) continue;
    const RateSource source = source_of(work, i, *limits);
    const std::uint32_t meter = work.rates->meter_of(source, work.now_ns);
    const RateAnswer answer = work.rates->take(*limits, source, meter, {0, 1, work.burst->length[i]}, false, work.now_ns);
    if (!end_over_limit(work, i, *limits, answer, false)) continue;
    work.run[i] = kNoRun;
    work.burst->group[i] = abi::kNoIndex;
  }
}

bool refuse_new_flow(Work& work, std::uint32_t i) {
  if (refuse_by_security(work, i)) return true;
  const abi::RateLimits* limits = limits_of(work, i);
  if (limits == nullptr) return false;
  const RateSource source = source_of(work, i, *limits);
  const std::uint32_t meter = work.rates->meter_of(source, work.now_ns);
  return end_over_limit(work, i, *limits, work.rates->take(*limits, source, meter, {1, 0, 0}, true, work.now_ns), true);
}

void note_new_flow(Work& work, std::uint32_t i) {
  const abi::RateLimits* limits = limits_of(work, i);
  if (limits == nullptr || (limits->source.flows | limits->listener.flows) == 0) return;
  if (work.burst->flow[i] != FlowResult::fresh) return;
  const RateSource source = source_of(work, i, *limits);
  work.rate_flows->add(work, i, source.listener, work.rates->meter_of(source, work.now_ns));
}

void tend_rates(Work& work, std::uint32_t lines) {
  constexpr std::uint64_t kRounds = 8;  // while ageing goes over the flow table once, in eight seconds
  const std::uint64_t all = work.options.flows->state().line_count;
  const std::uint64_t share = (kRateFlows * kRounds * lines + all - 1) / all;
  work.rate_flows->look(work, static_cast<std::uint32_t>(std::min<std::uint64_t>(share, kRateFlows)));
}

}  // namespace lb
