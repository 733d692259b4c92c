// Ageing, some lines of the flow table at a time, and the counters that it and the packet path leave behind. Part of
// kernel.cc.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dp/lb/decide.h"
#include "dp/lb/flow_ops.h"
#include "dp/lb/work.h"

namespace lb {

LB_INLINE void add(std::uint64_t& word, std::uint64_t value) {
  put(word, word + value);
}

LB_INLINE void flush_counts(Work& work) {
  constexpr std::size_t kAtOnce = 8;  // most stand still
  for (std::size_t first = 0; first < work.counts.size(); first += kAtOnce) {
    std::uint64_t any = 0;
    for (std::size_t c = first; c < first + kAtOnce; ++c) any |= work.counts[c];
    if (any == 0) continue;
    for (std::size_t c = first; c < first + kAtOnce && c < abi::kCounterCount; ++c) {
      if (work.counts[c] == 0) continue;
      add(work.options.stats->counters[c], work.counts[c]);
      work.counts[c] = 0;
    }
  }
  put(work.options.stats->flows, work.options.flows->flows());
}

// An entry that the sweep may find over: idle for some time, or any while targets are to lose their flows.
LB_INLINE bool is_due(Work& work, const abi::FlowLine& line, std::uint32_t i) {
  const std::uint32_t meta = line.meta[i];
  const FlowState state = meta_state(meta);
  const abi::Target* target = live_target(*work.snapshot, meta_target(meta));
  const bool to_forget = target == nullptr || target->tracked == abi::TrackedFlows::rehash ||
                         (target->tracked == abi::TrackedFlows::reset && is_udp(state));
  if (to_forget) {
    ++count(work, abi::Counter::flow_rehashed);
    return true;
  }
  const std::uint32_t idle = idle_ticks(line.key[i], work.tick);
  if (idle < kMinIdleLimitTicks || idle < sweep_limit_ticks(work.snapshot->groups()[target->group], state)) return false;
  ++count(work, abi::Counter::flow_expired);
  return true;
}

LB_INLINE void sweep_lines(Work& work, std::uint32_t lines) {
  FlowTableState& table = work.options.flows->state();
  const bool look_at_all = work.snapshot->forgets_flows();
  for (std::uint64_t n = lines < table.line_count ? lines : table.line_count; n > 0; --n) {
    abi::FlowLine& line = table.lines[table.sweep_line];
    const std::uint32_t used = kAllEntries & ~match(line, 0);
    std::uint32_t look = used & (look_at_all ? kAllEntries : idle_in(line, work.tick, kMinIdleLimitTicks));
    for (; look != 0; look &= look - 1) {
      if (is_due(work, line, lowest_bit(look))) erase(table, {&line, lowest_bit(look)});
    }
    table.sweep_line = table.sweep_line + 1 == table.line_count ? 0 : table.sweep_line + 1;
  }
  flush_counts(work);
}

}  // namespace lb
