#include "dp/lb/flow_census.h"

#include "dp/lb/flow_ops.h"

namespace lb {

void take_census(FlowCensus& census, std::span<const abi::FlowLine> lines, std::uint64_t stride, std::uint64_t now_ns) {
  census.lines += lines.size();
  const std::uint64_t tick = now_ns / kTickNs & kTickMask;
  for (std::uint64_t n = 0; n < lines.size(); n += stride) {
    const abi::FlowLine& line = lines[n];
    ++census.lines_read;
    for (std::uint32_t i = 0; i < abi::kFlowsPerLine; ++i) {
      const std::uint64_t key = __atomic_load_n(&line.key[i], __ATOMIC_RELAXED);
      const std::uint32_t meta = __atomic_load_n(&line.meta[i], __ATOMIC_RELAXED);
      if (key == 0 || meta_state(meta) == FlowState::empty) continue;
      FlowCount& count = census.counts[{meta_target(meta), meta_state(meta)}];
      ++count.flows;
      const std::uint64_t idle_ns = idle_ticks(key, tick) * kTickNs;
      std::size_t age = 0;
      while (age < kCensusIdleNs.size() && idle_ns > kCensusIdleNs[age]) ++age;
      ++count.idle[age];
    }
  }
}

}  // namespace lb
