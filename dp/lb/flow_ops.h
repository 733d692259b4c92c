// The flow table's operations, inlined into the packet path and compiled once per instruction set. See dp/lb/flow_table.h.
//
// Only the owning worker writes. What other threads read at the same time is written by relaxed atomic stores of whole
// words; an entry that appears or goes, between two increments of its line's sequence. A new tick, state or target is one
// word, and needs none.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "dp/abi/region.h"
#include "dp/base/compiler.h"
#include "dp/lb/decide.h"
#include "dp/lb/flow_table.h"

namespace lb {

inline constexpr std::uint64_t kTickMask = 0xffff;
inline constexpr std::uint32_t kTargetMask = 0xfffff;
inline constexpr std::uint32_t kSecondLine = 1U << 24;  // in meta: the entry stands in its flow's second line
inline constexpr std::uint32_t kWayShift = 25;          // in meta: 7 bits, the way back of a nat flow (dp/lb/ways_back.h)
inline constexpr std::uint32_t kAllEntries = (1U << abi::kFlowsPerLine) - 1;

// An entry's place; line nullptr: none.
struct FlowSlot {
  abi::FlowLine* line = nullptr;
  std::uint32_t index = 0;
};

LB_INLINE std::uint32_t meta_target(std::uint32_t meta) {
  return meta & kTargetMask;
}
LB_INLINE FlowState meta_state(std::uint32_t meta) {
  return static_cast<FlowState>(meta >> 20 & 0xf);
}
LB_INLINE std::uint32_t meta_way(std::uint32_t meta) {
  return meta >> kWayShift;
}
LB_INLINE std::uint32_t make_meta(std::uint32_t target, FlowState state) {
  return target | static_cast<std::uint32_t>(state) << 20;
}
LB_INLINE std::uint32_t idle_ticks(std::uint64_t key, std::uint64_t tick) {
  return static_cast<std::uint16_t>(tick - key);
}

// The high 48 bits; 0 means an empty entry, so that one fingerprint in 2^48 is taken for its neighbour.
LB_INLINE std::uint64_t fingerprint_of(const Hash128& hash) {
  const std::uint64_t fingerprint = hash.high & ~kTickMask;
  return fingerprint != 0 ? fingerprint : kTickMask + 1;
}

LB_INLINE std::uint64_t first_line(const Hash128& hash, std::uint64_t line_count) {
  return fastrange(hash.low, line_count);
}

// The other line of an entry: c - line mod line_count, with c from the fingerprint. Its own inverse.
LB_INLINE std::uint64_t other_line(std::uint64_t line, std::uint64_t fingerprint, std::uint64_t line_count) {
  const std::uint64_t c = fastrange((fingerprint & ~kTickMask) * 0x9e3779b97f4a7c15ULL, line_count);
  return c >= line ? c - line : c + line_count - line;
}

LB_INLINE void put(std::uint64_t& word, std::uint64_t value) {
  __atomic_store_n(&word, value, __ATOMIC_RELAXED);
}
LB_INLINE void put(std::uint32_t& word, std::uint32_t value) {
  __atomic_store_n(&word, value, __ATOMIC_RELAXED);
}
LB_INLINE void put(std::uint16_t& word, std::uint32_t value) {
  __atomic_store_n(&word, static_cast<std::uint16_t>(value), __ATOMIC_RELAXED);
}

// Bit i set: entry i has this fingerprint (0: is empty).
LB_INLINE std::uint32_t match(const abi::FlowLine& line, std::uint64_t fingerprint) {
#if defined(__AVX512F__)
  const __m512i words = _mm512_load_si512(&line);
  const __m512i differ = _mm512_xor_si512(words, _mm512_set1_epi64(static_cast<long long>(fingerprint)));
  return _mm512_mask_testn_epi64_mask(kAllEntries, differ, _mm512_set1_epi64(~static_cast<long long>(kTickMask)));
#elif defined(__AVX2__)
  const __m256i words = _mm256_load_si256(reinterpret_cast<const __m256i*>(&line));
  const __m256i wanted = _mm256_broadcastq_epi64(_mm_cvtsi64_si128(static_cast<long long>(fingerprint)));
  const __m256i differ = _mm256_xor_si256(words, wanted);
  const __m256i equal = _mm256_cmpeq_epi64(_mm256_srli_epi64(differ, 16), _mm256_setzero_si256());
  const auto four = static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(equal)));
  return four | ((line.key[4] ^ fingerprint) <= kTickMask ? 16U : 0U);
#else
  std::uint32_t found = 0;
  for (std::uint32_t i = 0; i < abi::kFlowsPerLine; ++i) {
    found |= static_cast<std::uint32_t>((line.key[i] ^ fingerprint) <= kTickMask) << i;
  }
  return found;
#endif
}

// Bit i set: entry i, or the empty place, was last seen `ticks` ago or earlier.
LB_INLINE std::uint32_t idle_in(const abi::FlowLine& line, std::uint64_t tick, std::uint32_t ticks) {
#if defined(__AVX512F__)
  const __m512i idle = _mm512_sub_epi64(_mm512_set1_epi64(static_cast<long long>(tick)), _mm512_load_si512(&line));
  return _mm512_mask_cmpge_epu64_mask(kAllEntries, _mm512_and_si512(idle, _mm512_set1_epi64(kTickMask)),
                                      _mm512_set1_epi64(ticks));
#else
  std::uint32_t found = 0;
  for (std::uint32_t i = 0; i < abi::kFlowsPerLine; ++i) {
    found |= static_cast<std::uint32_t>(idle_ticks(line.key[i], tick) >= ticks) << i;
  }
  return found;
#endif
}

// Bit i set: entry i is unproven (is_unproven()).
LB_INLINE std::uint32_t unproven_in(const abi::FlowLine& line) {
  constexpr std::uint32_t kUnproven = 1U << static_cast<unsigned>(FlowState::fresh) |
                                      1U << static_cast<unsigned>(FlowState::udp_fresh) |
                                      1U << static_cast<unsigned>(FlowState::short_lived);
#if defined(__AVX2__)
  static_assert(offsetof(abi::FlowLine, meta) == 40);  // lanes 2 to 6 of the second half
  const __m256i half = _mm256_load_si256(reinterpret_cast<const __m256i*>(&line) + 1);
  const __m256i state = _mm256_and_si256(_mm256_srli_epi32(half, 20), _mm256_set1_epi32(0xf));
  const __m256i sign = _mm256_slli_epi32(_mm256_srlv_epi32(_mm256_set1_epi32(kUnproven), state), 31);
  return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(sign))) >> 2 & kAllEntries;
#else
  std::uint32_t found = 0;
  for (std::uint32_t i = 0; i < abi::kFlowsPerLine; ++i) found |= (kUnproven >> (line.meta[i] >> 20 & 0xf) & 1) << i;
  return found;
#endif
}

LB_INLINE std::uint32_t lowest_bit(std::uint32_t bits) {
  return static_cast<std::uint32_t>(__builtin_ctz(bits));
}

// The flow's entry in one line, or in both: a line whose overflow is 0 has sent no flow to a second one.
LB_INLINE FlowSlot find_in(abi::FlowLine* line, std::uint64_t fingerprint) {
  const std::uint32_t found = match(*line, fingerprint);
  return found != 0 ? FlowSlot{line, lowest_bit(found)} : FlowSlot{};
}

LB_INLINE FlowSlot find(const FlowTableState& table, std::uint64_t first, std::uint64_t fingerprint) {
  abi::FlowLine* line = &table.lines[first];
  const FlowSlot slot = find_in(line, fingerprint);
  if (slot.line != nullptr || line->overflow == 0) return slot;
  return find_in(&table.lines[other_line(first, fingerprint, table.line_count)], fingerprint);
}

LB_INLINE void count_target(FlowTableState& table, std::uint32_t target, std::uint32_t change) {
  if (target < table.target_count) put(table.target_flows[target], table.target_flows[target] + change);
}

LB_INLINE void begin_write(abi::FlowLine& line) {
  put(line.sequence, line.sequence + 1U);  // the release stores that follow come after it
}

LB_INLINE void end_write(abi::FlowLine& line) {
  __atomic_store_n(&line.sequence, static_cast<std::uint16_t>(line.sequence + 1U), __ATOMIC_RELEASE);
}

LB_INLINE void set_entry(abi::FlowLine& line, std::uint32_t index, std::uint64_t key, std::uint32_t meta) {
  begin_write(line);
  __atomic_store_n(&line.meta[index], meta, __ATOMIC_RELEASE);
  __atomic_store_n(&line.key[index], key, __ATOMIC_RELEASE);
  end_write(line);
}

LB_INLINE void add_overflow(FlowTableState& table, std::uint64_t line, std::uint32_t change) {
  put(table.lines[line].overflow, table.lines[line].overflow + change);
}

// Takes an entry out and forgets that it was counted.
LB_INLINE void erase(FlowTableState& table, const FlowSlot& slot) {
  const std::uint64_t key = slot.line->key[slot.index];
  const std::uint32_t meta = slot.line->meta[slot.index];
  set_entry(*slot.line, slot.index, 0, 0);
  const auto line = static_cast<std::uint64_t>(slot.line - table.lines);
  if ((meta & kSecondLine) != 0) add_overflow(table, other_line(line, key, table.line_count), ~0U);
  count_target(table, meta_target(meta), ~0U);
  --table.flows;
}

// The same flow, another target or state.
LB_INLINE void repoint(FlowTableState& table, const FlowSlot& slot, std::uint32_t target, FlowState state,
                       std::uint64_t tick) {
  const std::uint32_t meta = slot.line->meta[slot.index];
  count_target(table, meta_target(meta), ~0U);
  count_target(table, target, 1);
  put(slot.line->meta[slot.index], make_meta(target, state) | (meta & ~(kTargetMask | 0xf00000U)));
  put(slot.line->key[slot.index], (slot.line->key[slot.index] & ~kTickMask) | tick);
}

LB_INLINE void set_state(const FlowSlot& slot, FlowState state) {
  const std::uint32_t meta = slot.line->meta[slot.index];
  put(slot.line->meta[slot.index], (meta & ~0xf00000U) | static_cast<std::uint32_t>(state) << 20);
}

// A reader that sees the number sees the way (WaysBack::at).
LB_INLINE void set_way(const FlowSlot& slot, std::uint32_t number) {
  const std::uint32_t meta = slot.line->meta[slot.index];
  const std::uint32_t changed = (meta & ((1U << kWayShift) - 1)) | number << kWayShift;
  __atomic_store_n(&slot.line->meta[slot.index], changed, __ATOMIC_RELEASE);
}

LB_INLINE void touch(const FlowSlot& slot, std::uint64_t tick) {
  const std::uint64_t key = slot.line->key[slot.index];
  if ((key & kTickMask) != tick) put(slot.line->key[slot.index], (key & ~kTickMask) | tick);
}

// What the table did to make room, for the counters.
struct FlowChanges {
  std::uint64_t evicted = 0;
  std::uint64_t expired = 0;
  std::uint64_t moved = 0;
};

struct NewFlow {
  std::uint64_t first = 0;  // line
  std::uint64_t fingerprint = 0;
  std::uint32_t meta = 0;
  std::uint64_t tick = 0;
};

// Places an entry that is known not to be there, where `index` of `line` is free.
LB_INLINE void place(FlowTableState& table, const NewFlow& flow, std::uint64_t line, std::uint32_t index) {
  const bool second = line != flow.first;
  if (second) add_overflow(table, flow.first, 1);
  set_entry(table.lines[line], index, flow.fingerprint | flow.tick, flow.meta | (second ? kSecondLine : 0));
  count_target(table, meta_target(flow.meta), 1);
  ++table.flows;
}

// No flow expires sooner (udp_idle_timeout_s ≥ 10, and the fixed timeouts): below it, timeouts need not be looked up.
inline constexpr std::uint32_t kMinIdleLimitTicks = kShortTimeoutTicks;
inline constexpr std::uint32_t kRankExpired = 1U << 17;

// Whether a flow that is to be entered may take this entry's place: 0 no, else higher first.
LB_INLINE std::uint32_t eviction_rank(const Snapshot& snapshot, std::uint64_t key, std::uint32_t meta, std::uint64_t tick) {
  const std::uint32_t idle = idle_ticks(key, tick);
  const FlowState state = meta_state(meta);
  if (is_unproven(state)) return 1 + idle;
  if (idle < kMinIdleLimitTicks) return 0;
  const abi::Target* target = live_target(snapshot, meta_target(meta));
  const bool over = target == nullptr || idle >= idle_limit_ticks(snapshot.groups()[target->group], state);
  return over ? kRankExpired : 0;
}

LB_INLINE FlowSlot best_victim(FlowTableState& table, const Snapshot& snapshot, const std::uint64_t (&lines)[2],
                               std::uint64_t tick, std::uint32_t& best_rank) {
  FlowSlot best;
  for (const std::uint64_t line : lines) {
    for (std::uint32_t i = 0; i < abi::kFlowsPerLine; ++i) {
      const std::uint32_t rank = eviction_rank(snapshot, table.lines[line].key[i], table.lines[line].meta[i], tick);
      if (rank <= best_rank) continue;
      best_rank = rank;
      best = {&table.lines[line], i};
    }
  }
  return best;
}

// What choose_place() found.
enum class Room : std::uint8_t {
  free,      // an empty place
  unproven,  // the place of an unproven flow
  none,      // nobody's place may be taken, and the table is too full for a search: the flow goes untracked
  search,    // insert_crowded() knows
};
struct Place {
  FlowSlot slot;
  Room room = Room::search;
};

// Above this many flows a search for room finds nothing and costs sixty cache lines: under a flood, every packet.
LB_INLINE std::uint64_t crowded_above(const FlowTableState& table) {
  return table.line_count * abi::kFlowsPerLine * 15 / 16;
}

// Where a new flow may stand, without a search, in its first line or its second, which may be given as the same. Changes
// nothing. Of unproven flows those go first that have been idle for a second, and of equals one at random (`hash`): in a
// flood's tick all are equally old, and the lowest would always be the newest.
LB_INLINE Place choose_place(const FlowTableState& table, std::uint64_t first, std::uint64_t second, std::uint64_t hash,
                             std::uint64_t tick) {
  constexpr std::uint32_t kBoth = 2 * abi::kFlowsPerLine;
  constexpr std::uint32_t kSettledTicks = 4;
  abi::FlowLine* lines[2] = {&table.lines[first], &table.lines[second]};
  const std::uint32_t free = match(*lines[0], 0);
  if (free != 0) return {{lines[0], lowest_bit(free)}, Room::free};
  if (first == second) return {};
  const std::uint32_t free_there = match(*lines[1], 0);
  if (free_there != 0) return {{lines[1], lowest_bit(free_there)}, Room::free};
  if ((idle_in(*lines[0], tick, kMinIdleLimitTicks) | idle_in(*lines[1], tick, kMinIdleLimitTicks)) != 0) return {};
  const std::uint32_t unproven = unproven_in(*lines[0]) | unproven_in(*lines[1]) << abi::kFlowsPerLine;
  if (unproven == 0) return {{}, table.flows > crowded_above(table) ? Room::none : Room::search};
  const std::uint32_t settled =
      unproven & (idle_in(*lines[0], tick, kSettledTicks) | idle_in(*lines[1], tick, kSettledTicks) << abi::kFlowsPerLine);
  const std::uint32_t choice = settled != 0 ? settled : unproven;
  const auto turn = static_cast<std::uint32_t>((hash >> 16 & 0xff) * kBoth >> 8);
  std::uint32_t at = turn + lowest_bit((choice | choice << kBoth) >> turn);
  at = at < kBoth ? at : at - kBoth;
  const bool there = at >= abi::kFlowsPerLine;
  return {{lines[there ? 1 : 0], there ? at - abi::kFlowsPerLine : at}, Room::unproven};
}

// Puts a new flow in the place of another. The entry never has a meta beside a key that it does not belong to.
LB_INLINE void replace(FlowTableState& table, const NewFlow& flow, const FlowSlot& slot) {
  abi::FlowLine& line = *slot.line;
  const auto at = static_cast<std::uint64_t>(slot.line - table.lines);
  const bool second = at != flow.first;
  const std::uint64_t old_key = line.key[slot.index];
  const std::uint32_t old_meta = line.meta[slot.index];
  if (second) add_overflow(table, flow.first, 1);
  begin_write(line);
  __atomic_store_n(&line.meta[slot.index], 0, __ATOMIC_RELEASE);
  __atomic_store_n(&line.key[slot.index], flow.fingerprint | flow.tick, __ATOMIC_RELEASE);
  __atomic_store_n(&line.meta[slot.index], flow.meta | (second ? kSecondLine : 0), __ATOMIC_RELEASE);
  end_write(line);
  if ((old_meta & kSecondLine) != 0) add_overflow(table, other_line(at, old_key, table.line_count), ~0U);
  count_target(table, meta_target(old_meta), ~0U);
  count_target(table, meta_target(flow.meta), 1);
}

inline constexpr std::uint32_t kMaxMoves = 2;  // entries moved to make room for one: ten lines, then fifty, are looked at

// A step of the search for room: the entry `index` of `line` would go to its other line, to make room for node `parent`.
struct MoveNode {
  std::uint64_t line;
  std::uint32_t index;
  std::int32_t parent;
};

// Moves the entry of `from` to the free entry `index` of its other line, `to`.
LB_INLINE void move_entry(FlowTableState& table, const MoveNode& from, std::uint64_t to, std::uint32_t index) {
  abi::FlowLine& line = table.lines[from.line];
  const std::uint64_t key = line.key[from.index];
  const std::uint32_t meta = line.meta[from.index];
  const bool to_second = (meta & kSecondLine) == 0;
  if (to_second) add_overflow(table, from.line, 1);
  set_entry(table.lines[to], index, key, meta ^ kSecondLine);  // in both for a moment, never in none
  set_entry(line, from.index, 0, 0);
  if (!to_second) add_overflow(table, to, ~0U);
}

// Frees an entry of one of the two lines by moving others, breadth-first. Returns its place.
LB_INLINE FlowSlot make_room(FlowTableState& table, const std::uint64_t (&lines)[2], FlowChanges& changes) {
  constexpr std::uint32_t kNodes = 2 * abi::kFlowsPerLine * (1 + abi::kFlowsPerLine);
  MoveNode nodes[kNodes];
  std::uint32_t count = 0;
  for (const std::uint64_t line : lines) {
    for (std::uint32_t i = 0; i < abi::kFlowsPerLine; ++i) nodes[count++] = {line, i, -1};
  }
  const std::uint32_t roots = count;
  for (std::uint32_t n = 0; n < count; ++n) {
    const MoveNode node = nodes[n];
    const std::uint64_t to = other_line(node.line, table.lines[node.line].key[node.index], table.line_count);
    if (to == lines[0] || to == lines[1]) continue;
    const std::uint32_t free = match(table.lines[to], 0);
    if (free == 0) {
      for (std::uint32_t i = 0; n < roots && i < abi::kFlowsPerLine; ++i)
        nodes[count++] = {to, i, static_cast<std::int32_t>(n)};
      continue;
    }
    move_entry(table, node, to, lowest_bit(free));
    changes.moved += node.parent < 0 ? 1 : 2;
    if (node.parent < 0) return {&table.lines[node.line], node.index};
    const MoveNode& parent = nodes[node.parent];
    move_entry(table, parent, node.line, node.index);
    return {&table.lines[parent.line], parent.index};
  }
  return {};
}

// Both lines are full: takes the place of an expired or unproven flow, or makes room. False: no room for this flow.
LB_INLINE bool insert_crowded(FlowTableState& table, const Snapshot& snapshot, const NewFlow& flow, std::uint64_t second,
                              FlowChanges& changes) {
  const std::uint64_t lines[2] = {flow.first, second};
  std::uint32_t rank = 0;
  FlowSlot slot = best_victim(table, snapshot, lines, flow.tick, rank);
  if (slot.line != nullptr) {
    ++(rank == kRankExpired ? changes.expired : changes.evicted);
    erase(table, slot);
  } else {
    if (table.flows > crowded_above(table)) return false;
    slot = make_room(table, lines, changes);
    if (slot.line == nullptr) return false;
  }
  place(table, flow, static_cast<std::uint64_t>(slot.line - table.lines), slot.index);
  return true;
}

}  // namespace lb
