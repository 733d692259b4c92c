// Compiled once per instruction set, as dp/lb/kernel.cc is.
#include "tests/bench/designs.h"

#include <cstring>

#include "dp/base/endian.h"
#include "dp/lb/flow_hash_ops.h"
#include "dp/lb/flow_ops.h"

namespace lb::bench {
namespace {

// What all designs share: two lines, and where an entry may stand. Each tells how it finds and writes entries of a line.
//   find(table, line, flow)   its index, or kNone
//   free(table, line)         the index of an empty place, or kNone
//   put(…), clear(…), tell(table, line, index): the flow that stands there
//   overflow(table, line)     how many flows of this line stand in their second one
constexpr std::uint32_t kNone = 0xffffffff;

LB_INLINE std::uint64_t second_of(const DesignTable& table, const DesignFlow& flow) {
  return fastrange(flow.hash.high * 0x9e3779b97f4a7c15ULL, table.lines);
}

LB_INLINE std::uint64_t first_of(const DesignTable& table, const DesignFlow& flow) {
  return first_line(flow.hash, table.lines);
}

LB_INLINE DesignFlow flow_of(const DesignTable& table, const std::uint8_t* tuple) {
  DesignFlow flow{};
  std::memcpy(flow.tuple.bytes.data(), tuple, 13);
  flow.hash = hash_v4(*table.keys, load<std::uint64_t>(flow.tuple.bytes.data()), load<std::uint64_t>(&flow.tuple.bytes[8]));
  return flow;
}

// Three 5-tuples: bytes 13 … 15 of each are tick and state, which a compare leaves out.
struct Keys {
  struct alignas(64) Line {
    std::uint8_t tuple[3][16];
    std::uint32_t target[3];
    std::uint16_t overflow;
    std::uint16_t sequence;
  };
  static_assert(sizeof(Line) == 64);
  static constexpr std::uint32_t kEntries = 3;

  LB_INLINE Line& at(const DesignTable& table, std::uint64_t line) { return reinterpret_cast<Line*>(table.memory)[line]; }
  LB_INLINE std::uint16_t& overflow(const DesignTable& table, std::uint64_t line) { return at(table, line).overflow; }
  LB_INLINE std::uint32_t find(const DesignTable& table, std::uint64_t line, const DesignFlow& flow) {
    const __m128i mask = _mm_set_epi32(0xff, -1, -1, -1);
    const __m128i wanted = load_128(&flow.tuple);
    std::uint32_t found = 0;
    for (std::uint32_t i = 0; i < kEntries; ++i) {
      const __m128i differ = _mm_and_si128(_mm_xor_si128(load_128(at(table, line).tuple[i]), wanted), mask);
      found |= static_cast<std::uint32_t>(_mm_testz_si128(differ, differ)) << i;
    }
    return found != 0 ? lowest_bit(found) : kNone;
  }
  LB_INLINE std::uint32_t free(const DesignTable& table, std::uint64_t line) {
    for (std::uint32_t i = 0; i < kEntries; ++i) {
      if (at(table, line).tuple[i][12] == 0) return i;
    }
    return kNone;
  }
  LB_INLINE void prefetch_entry(const DesignTable&, std::uint64_t, std::uint32_t) {}
  LB_INLINE bool is_it(const DesignTable&, std::uint64_t, std::uint32_t, const DesignFlow&) { return true; }
  LB_INLINE std::uint32_t target(const DesignTable& table, std::uint64_t line, std::uint32_t i) {
    return at(table, line).target[i];
  }
  LB_INLINE void put(DesignTable& table, std::uint64_t line, std::uint32_t i, const DesignFlow& flow, std::uint32_t target) {
    std::memcpy(at(table, line).tuple[i], flow.tuple.bytes.data(), 16);
    at(table, line).target[i] = target;
  }
  LB_INLINE void clear(DesignTable& table, std::uint64_t line, std::uint32_t i) { at(table, line).tuple[i][12] = 0; }
  LB_INLINE DesignFlow tell(const DesignTable& table, std::uint64_t line, std::uint32_t i) {
    return flow_of(table, at(table, line).tuple[i]);
  }
};

// 31 tags and the overflow count are one line; the slots stand behind all lines.
struct Tags {
  struct alignas(64) Line {
    std::uint16_t tag[31];
    std::uint16_t overflow;
  };
  static_assert(sizeof(Line) == 64);
  struct Slot {
    std::uint8_t tuple[16];
    std::uint32_t target;
    std::uint32_t tick_and_state;
  };
  static_assert(sizeof(Slot) == kSlotBytes);
  static constexpr std::uint32_t kEntries = 31;

  LB_INLINE Line& at(const DesignTable& table, std::uint64_t line) { return reinterpret_cast<Line*>(table.memory)[line]; }
  LB_INLINE Slot& slot(const DesignTable& table, std::uint64_t line, std::uint32_t i) {
    return reinterpret_cast<Slot*>(table.memory + table.lines * sizeof(Line))[line * kEntries + i];
  }
  LB_INLINE std::uint16_t& overflow(const DesignTable& table, std::uint64_t line) { return at(table, line).overflow; }
  LB_INLINE std::uint16_t tag_of(const DesignFlow& flow) {
    return static_cast<std::uint16_t>((flow.hash.high & 0xffff) | 1);
  }
  LB_INLINE std::uint32_t equal(const Line& line, std::uint16_t tag) {
#if defined(__AVX512BW__)
    const __m512i tags = _mm512_load_si512(&line);
    return _mm512_cmpeq_epi16_mask(tags, _mm512_set1_epi16(static_cast<short>(tag))) & 0x7fffffffU;
#else
    std::uint64_t found = 0;
    for (std::uint32_t half = 0; half < 4; half += 2) {
      const auto* from = reinterpret_cast<const __m128i*>(&line) + half;
      const __m128i wanted = _mm_set1_epi16(static_cast<short>(tag));
      const __m128i both =
          _mm_packs_epi16(_mm_cmpeq_epi16(_mm_load_si128(from), wanted), _mm_cmpeq_epi16(_mm_load_si128(from + 1), wanted));
      found |= std::uint64_t{static_cast<std::uint32_t>(_mm_movemask_epi8(both))} << (half * 8);
    }
    return static_cast<std::uint32_t>(found) & 0x7fffffffU;
#endif
  }
  LB_INLINE bool is_it(const DesignTable& table, std::uint64_t line, std::uint32_t i, const DesignFlow& flow) {
    const __m128i differ =
        _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(slot(table, line, i).tuple)), load_128(&flow.tuple));
    return _mm_testz_si128(differ, differ) != 0;
  }
  // The first whose tag is right; of several, the one whose key is.
  LB_INLINE std::uint32_t find(const DesignTable& table, std::uint64_t line, const DesignFlow& flow) {
    std::uint32_t found = equal(at(table, line), tag_of(flow));
    if ((found & (found - 1)) == 0) return found != 0 ? lowest_bit(found) : kNone;
    for (; found != 0; found &= found - 1) {
      if (is_it(table, line, lowest_bit(found), flow)) return lowest_bit(found);
    }
    return kNone;
  }
  LB_INLINE std::uint32_t free(const DesignTable& table, std::uint64_t line) {
    const std::uint32_t found = equal(at(table, line), 0);
    return found != 0 ? lowest_bit(found) : kNone;
  }
  LB_INLINE void prefetch_entry(const DesignTable& table, std::uint64_t line, std::uint32_t i) {
    prefetch(&slot(table, line, i));
  }
  LB_INLINE std::uint32_t target(const DesignTable& table, std::uint64_t line, std::uint32_t i) {
    return slot(table, line, i).target;
  }
  LB_INLINE void put(DesignTable& table, std::uint64_t line, std::uint32_t i, const DesignFlow& flow, std::uint32_t target) {
    at(table, line).tag[i] = tag_of(flow);
    std::memcpy(slot(table, line, i).tuple, flow.tuple.bytes.data(), 16);
    slot(table, line, i).target = target;
  }
  LB_INLINE void clear(DesignTable& table, std::uint64_t line, std::uint32_t i) {
    at(table, line).tag[i] = 0;
  }
  LB_INLINE DesignFlow tell(const DesignTable& table, std::uint64_t line, std::uint32_t i) {
    return flow_of(table, slot(table, line, i).tuple);
  }
};

template <typename D>
LB_INLINE void place(DesignTable& table, std::uint64_t line, std::uint32_t i, const DesignFlow& flow, std::uint32_t target) {
  D::put(table, line, i, flow, target);
  const std::uint64_t first = first_of(table, flow);
  if (line == first) return;
  ++table.in_second;
  table.overflowed += D::overflow(table, first)++ == 0;
}

template <typename D>
LB_INLINE void remove(DesignTable& table, std::uint64_t line, std::uint32_t i, const DesignFlow& flow) {
  D::clear(table, line, i);
  const std::uint64_t first = first_of(table, flow);
  if (line == first) return;
  --table.in_second;
  table.overflowed -= --D::overflow(table, first) == 0;
}

// Moves one entry of a line to its other line. Returns the place that it left, or kNone.
template <typename D>
std::uint32_t make_way(DesignTable& table, std::uint64_t line) {
  for (std::uint32_t i = 0; i < D::kEntries; ++i) {
    const DesignFlow flow = D::tell(table, line, i);
    const std::uint64_t first = first_of(table, flow);
    const std::uint64_t to = first == line ? second_of(table, flow) : first;
    const std::uint32_t there = D::free(table, to);
    if (there == kNone || to == line) continue;
    const std::uint32_t target = D::target(table, line, i);
    remove<D>(table, line, i, flow);
    place<D>(table, to, there, flow, target);
    return i;
  }
  return kNone;
}

template <typename D>
bool enter(DesignTable& table, const DesignFlow& flow, std::uint32_t target) {
  const std::uint64_t lines[2] = {first_of(table, flow), second_of(table, flow)};
  for (const std::uint64_t line : lines) {
    if (const std::uint32_t i = D::free(table, line); i != kNone) return place<D>(table, line, i, flow, target), true;
  }
  for (const std::uint64_t line : lines) {
    if (const std::uint32_t i = make_way<D>(table, line); i != kNone) return place<D>(table, line, i, flow, target), true;
  }
  ++table.refused;
  return false;
}

template <typename D>
std::uint64_t look_up(const DesignTable& table, const DesignFlow* flows, std::uint32_t count) {
  std::uint64_t line[kBurst];
  std::uint32_t index[kBurst];
  std::uint8_t further[kBurst];
  std::uint32_t further_count = 0;
  for (std::uint32_t n = 0; n < count; ++n) {
    line[n] = first_of(table, flows[n]);
    prefetch(&D::at(table, line[n]));
  }
  for (std::uint32_t n = 0; n < count; ++n) {
    index[n] = D::find(table, line[n], flows[n]);
    if (index[n] != kNone) {
      D::prefetch_entry(table, line[n], index[n]);
    } else if (D::overflow(table, line[n]) != 0) {
      line[n] = second_of(table, flows[n]);
      prefetch(&D::at(table, line[n]));
      further[further_count++] = static_cast<std::uint8_t>(n);
    }
  }
  for (std::uint32_t f = 0; f < further_count; ++f) {
    const std::uint32_t n = further[f];
    index[n] = D::find(table, line[n], flows[n]);
    if (index[n] != kNone) D::prefetch_entry(table, line[n], index[n]);
  }
  std::uint64_t sum = 0;
  for (std::uint32_t n = 0; n < count; ++n) {
    if (index[n] != kNone && D::is_it(table, line[n], index[n], flows[n])) sum += D::target(table, line[n], index[n]);
  }
  return sum;
}

template <typename D>
void exchange(DesignTable& table, const DesignFlow* gone, const DesignFlow* come, std::uint32_t count) {
  for (std::uint32_t n = 0; n < count; ++n) {
    prefetch_for_write(&D::at(table, first_of(table, gone[n])));
    prefetch_for_write(&D::at(table, first_of(table, come[n])));
    prefetch_for_write(&D::at(table, second_of(table, come[n])));
  }
  for (std::uint32_t n = 0; n < count; ++n) {
    for (const std::uint64_t line : {first_of(table, gone[n]), second_of(table, gone[n])}) {
      const std::uint32_t i = D::find(table, line, gone[n]);
      if (i == kNone || !D::is_it(table, line, i, gone[n])) continue;
      remove<D>(table, line, i, gone[n]);
      break;
    }
    enter<D>(table, come[n], n);
  }
}

// The product's own lines, by its own functions.
struct Lines {
  LB_INLINE FlowTableState state_of(const DesignTable& table) {
    return {.lines = reinterpret_cast<abi::FlowLine*>(table.memory), .line_count = table.lines};
  }
};

bool enter_line(DesignTable& table, const DesignFlow& flow, std::uint32_t target) {
  FlowTableState state = Lines::state_of(table);
  const NewFlow entry{first_line(flow.hash, table.lines), fingerprint_of(flow.hash), make_meta(target, FlowState::assumed),
                      0};
  const std::uint64_t lines[2] = {entry.first, other_line(entry.first, entry.fingerprint, table.lines)};
  FlowSlot slot;
  for (const std::uint64_t line : lines) {
    const std::uint32_t free = match(state.lines[line], 0);
    if (free == 0) continue;
    slot = {&state.lines[line], lowest_bit(free)};
    break;
  }
  FlowChanges changes;
  if (slot.line == nullptr) slot = make_room(state, lines, changes);
  if (slot.line == nullptr) return ++table.refused, false;
  const auto line = static_cast<std::uint64_t>(slot.line - state.lines);
  table.in_second += line != entry.first;
  lb::place(state, entry, line, slot.index);
  return true;
}

std::uint64_t look_up_lines(const DesignTable& table, const DesignFlow* flows, std::uint32_t count) {
  const FlowTableState state = Lines::state_of(table);
  std::uint64_t first[kBurst];
  std::uint8_t further[kBurst];
  std::uint32_t further_count = 0;
  std::uint64_t sum = 0;
  for (std::uint32_t n = 0; n < count; ++n) {
    first[n] = first_line(flows[n].hash, table.lines);
    prefetch(&state.lines[first[n]]);
  }
  for (std::uint32_t n = 0; n < count; ++n) {
    const abi::FlowLine& line = state.lines[first[n]];
    const std::uint32_t found = match(line, fingerprint_of(flows[n].hash));
    if (found != 0) {
      sum += meta_target(line.meta[lowest_bit(found)]);
    } else if (line.overflow != 0) {
      first[n] = other_line(first[n], fingerprint_of(flows[n].hash), table.lines);
      prefetch(&state.lines[first[n]]);
      further[further_count++] = static_cast<std::uint8_t>(n);
    }
  }
  for (std::uint32_t f = 0; f < further_count; ++f) {
    const abi::FlowLine& line = state.lines[first[further[f]]];
    const std::uint32_t found = match(line, fingerprint_of(flows[further[f]].hash));
    if (found != 0) sum += meta_target(line.meta[lowest_bit(found)]);
  }
  return sum;
}

void exchange_lines(DesignTable& table, const DesignFlow* gone, const DesignFlow* come, std::uint32_t count) {
  FlowTableState state = Lines::state_of(table);
  for (std::uint32_t n = 0; n < count; ++n) {
    const std::uint64_t first = first_line(come[n].hash, table.lines);
    prefetch_for_write(&state.lines[first_line(gone[n].hash, table.lines)]);
    prefetch_for_write(&state.lines[first]);
    prefetch_for_write(&state.lines[other_line(first, fingerprint_of(come[n].hash), table.lines)]);
  }
  for (std::uint32_t n = 0; n < count; ++n) {
    const FlowSlot slot = lb::find(state, first_line(gone[n].hash, table.lines), fingerprint_of(gone[n].hash));
    if (slot.line != nullptr) erase(state, slot);
    enter_line(table, come[n], n);
  }
}

}  // namespace

extern const DesignOps LB_DESIGNS;
const DesignOps LB_DESIGNS = {
    .name = LB_MARCH,
    .enter = {enter_line, enter<Keys>, enter<Tags>},
    .look_up = {look_up_lines, look_up<Keys>, look_up<Tags>},
    .exchange = {exchange_lines, exchange<Keys>, exchange<Tags>},
};

}  // namespace lb::bench
