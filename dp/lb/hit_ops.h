// The common packet's way once its listener is known: find the flow's entry, see that nothing about it needs thought, and
// send the packet to the entry's target. Part of kernel.cc, compiled once for each instruction set.
//
//   find_flows         first lines: entry's state and age into arrays; sixteen packets are judged at once
//   find_in_second_lines   … of the flows that were not there
//   forward_hits       target in good order? rewrite
//
// Whatever is not that common is noted in work.rest, and served when all common hits are done: nothing it does can change
// them, and what they change (an entry was seen now) changes nothing for it.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "dp/lb/flow_ops.h"
#include "dp/lb/plain_ops.h"
#include "dp/lb/work.h"

namespace lb {
namespace {

// What the loops over a burst's flows need at hand.
struct FlowStage {
  FlowTableState table;
  const abi::Target* targets;
  std::uint32_t target_count;
  std::uint32_t plain_ticks;
  std::uint64_t tick;
};

LB_INLINE FlowStage flow_stage_of(const Work& work) {
  const auto targets = work.snapshot->targets();
  return {work.options.flows->state(), targets.data(), static_cast<std::uint32_t>(targets.size()), work.plain_ticks,
          work.tick};
}

// A bit for each byte that is 0xff.
LB_INLINE std::uint64_t bits_of_bytes(__m128i bytes) {
  return static_cast<std::uint32_t>(_mm_movemask_epi8(bytes));
}

constexpr std::uint32_t kLanes = 16;  // packets judged at once

// Of sixteen packets whose entries stand in meta and seen: those of live, proven flows (`assumed` or `udp`), seen not long
// ago, whose target has a place in the snapshot; and the packet changes nothing: judge() says `forward` and the same state
// for all of these (a test walks through them), if the target is in good order.
LB_INLINE std::uint64_t common_hits(const Work& work, const FlowStage& stage, std::uint32_t from) {
  static_assert(static_cast<unsigned>(FlowState::assumed) == 2 && static_cast<unsigned>(FlowState::udp) == 6);
  constexpr std::uint8_t kAsked = net::kTcpFin | net::kTcpSyn | net::kTcpRst | net::kTcpAck;
  const __m128i state_mask = _mm_set1_epi32(0xb00000);
  const __m128i steady = _mm_set1_epi32(0x200000);
  const __m128i count = _mm_set1_epi32(static_cast<int>(stage.target_count));
  __m128i in_order[4];
  for (std::uint32_t part = 0; part < 4; ++part) {
    const __m128i meta = load_128(&work.meta[from + 4 * part]);
    in_order[part] = _mm_and_si128(_mm_cmpeq_epi32(_mm_and_si128(meta, state_mask), steady),
                                   _mm_cmpgt_epi32(count, _mm_and_si128(meta, _mm_set1_epi32(kTargetMask))));
  }
  const __m128i now = _mm_set1_epi16(static_cast<short>(stage.tick));
  const __m128i limit = _mm_set1_epi16(static_cast<short>(stage.plain_ticks));
  __m128i too_old[2];
  for (std::uint32_t part = 0; part < 2; ++part) {
    const __m128i idle = _mm_sub_epi16(now, load_128(&work.seen[from + 8 * part]));
    too_old[part] = _mm_cmpeq_epi16(_mm_max_epu16(idle, limit), idle);
  }
  const __m128i usable =
      _mm_packs_epi16(_mm_packs_epi32(in_order[0], in_order[1]), _mm_packs_epi32(in_order[2], in_order[3]));
  const __m128i flags = _mm_and_si128(load_128(&work.tcp_flags[from]), _mm_set1_epi8(kAsked));
  const __m128i plain = _mm_cmpeq_epi8(flags, _mm_set1_epi8(net::kTcpAck));
  return bits_of_bytes(_mm_andnot_si128(_mm_packs_epi16(too_old[0], too_old[1]), _mm_and_si128(usable, plain)));
}

// Of sixteen packets: those whose entry was last seen in another tick.
LB_INLINE std::uint64_t stale_entries(const Work& work, const FlowStage& stage, std::uint32_t from) {
  const __m128i now = _mm_set1_epi16(static_cast<short>(stage.tick));
  const __m128i low = _mm_cmpeq_epi16(now, load_128(&work.seen[from]));
  const __m128i high = _mm_cmpeq_epi16(now, load_128(&work.seen[from + 8]));
  return bits_of_bytes(_mm_packs_epi16(low, high)) ^ 0xffff;
}

LB_INLINE std::uint64_t equal_bytes(const std::uint8_t* bytes, std::uint8_t value) {
  return bits_of_bytes(_mm_cmpeq_epi8(load_128(bytes), _mm_set1_epi8(static_cast<char>(value))));
}

// Reads entry `index` of a line for packet i, and asks for its target.
LB_INLINE void read_entry(Work& work, const FlowStage& stage, std::uint32_t i, abi::FlowLine& line, std::uint32_t index) {
  const std::uint32_t meta = line.meta[index];
  work.slot[i] = {&line, index};
  work.meta[i] = meta;
  work.seen[i] = static_cast<std::uint16_t>(line.key[index]);
  prefetch(&stage.targets[meta_target(meta)]);
}

// Packets [from, from+16) that have an entry (`found`): which are common, and which have to wait.
LB_INLINE std::uint64_t judge_sixteen(Work& work, const FlowStage& stage, std::uint32_t from, std::uint64_t found) {
  const std::uint64_t hits = common_hits(work, stage, from) & found;
  for (std::uint64_t stale = hits & stale_entries(work, stage, from); stale != 0; stale &= stale - 1) {
    const FlowSlot slot = work.slot[from + lowest_bit(static_cast<std::uint32_t>(stale))];
    put(slot.line->key[slot.index], (slot.line->key[slot.index] & ~kTickMask) | stage.tick);
  }
  work.rest |= (found ^ hits) << from;
  return hits << from;
}

LB_INLINE void miss(Work& work, std::uint32_t i) {
  work.slot[i].line = nullptr;
  work.rest |= std::uint64_t{1} << i;
  push(work.missed, i);
}

// No entry in its first line: it may be in its second one, or have to go there.
LB_INLINE void look_further(Work& work, const FlowStage& stage, std::uint32_t i) {
  const abi::FlowLine& line = stage.table.lines[work.first[i]];
  work.second[i] = work.first[i];
  if (line.overflow == 0 && match(line, 0) != 0) return miss(work, i);
  work.second[i] = other_line(work.first[i], fingerprint_of(work.hash[i]), stage.table.line_count);
  prefetch(&stage.table.lines[work.second[i]]);
  push(work.elsewhere, i);
}

// Returns the common hits of the burst as bits.
LB_INLINE std::uint64_t find_flows(Work& work, const FlowStage& stage) {
  std::uint64_t hits = 0;
  const std::uint32_t packets = work.burst->count;
  for (std::uint32_t from = 0; from < packets; from += kLanes) {
    const std::uint32_t to = packets - from < kLanes ? packets : from + kLanes;
    for (std::uint32_t i = from; i < to; ++i) {
      abi::FlowLine& line = stage.table.lines[work.first[i]];
      const std::uint32_t found = match(line, fingerprint_of(work.hash[i]));
      work.matched[i] = static_cast<std::uint8_t>(found);
      read_entry(work, stage, i, line, lowest_bit(found | 1U << (abi::kFlowsPerLine - 1)));
    }
    const std::uint64_t here = (std::uint64_t{2} << (to - from - 1)) - 1;
    const std::uint64_t alive = here & ~equal_bytes(&work.run[from], kNoRun);
    const std::uint64_t absent = equal_bytes(&work.matched[from], 0);
    hits |= judge_sixteen(work, stage, from, alive & ~absent);
    for (std::uint64_t missing = alive & absent; missing != 0; missing &= missing - 1) {
      look_further(work, stage, from + lowest_bit(static_cast<std::uint32_t>(missing)));
    }
  }
  return hits;
}

// The flows that were not in their first line, when the second has had time to come. Returns the common hits among them.
LB_INLINE std::uint64_t find_in_second_lines(Work& work, const FlowStage& stage) {
  std::uint64_t found_at = 0;
  for (std::uint32_t n = 0; n < work.elsewhere.count; ++n) {
    const std::uint32_t i = work.elsewhere.at[n];
    abi::FlowLine& line = stage.table.lines[work.second[i]];
    const std::uint32_t found = match(line, fingerprint_of(work.hash[i]));
    if (found == 0) {
      miss(work, i);
      continue;
    }
    read_entry(work, stage, i, line, lowest_bit(found));
    found_at |= std::uint64_t{1} << i;
  }
  std::uint64_t hits = 0;
  for (std::uint32_t from = 0; from < kBurst; from += kLanes) {
    const std::uint64_t found = found_at >> from & 0xffff;
    if (found != 0) hits |= judge_sixteen(work, stage, from, found);
  }
  return hits;
}

// Eight bytes of a target from `flags` on: flags, tracked, state, out_port, mode, tunnel_flags, mtu_bytes.
LB_INLINE std::uint64_t target_word(const abi::Target& target) {
  static_assert(offsetof(abi::Target, tracked) == offsetof(abi::Target, flags) + 1 &&
                offsetof(abi::Target, out_port) == offsetof(abi::Target, flags) + 3 &&
                offsetof(abi::Target, mode) == offsetof(abi::Target, flags) + 4 &&
                offsetof(abi::Target, mtu_bytes) == offsetof(abi::Target, flags) + 6);
  return load<std::uint64_t>(&target.flags);
}

// Whether a target is live, its next hop known, and its flows are to stay.
LB_INLINE bool is_usable(std::uint64_t word) {
  static_assert(abi::TrackedFlows::keep == abi::TrackedFlows{});
  constexpr std::uint64_t kUsable = abi::kTargetLive | abi::kTargetResolved;
  return (word & (0xff00 | kUsable)) == kUsable;
}

}  // namespace
}  // namespace lb
