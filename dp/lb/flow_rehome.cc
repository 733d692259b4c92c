// Flows of n workers to m workers. Start-up only.
#include <algorithm>
#include <vector>

#include "dp/lb/flow_ops.h"
#include "dp/lb/flow_table.h"

namespace lb {
namespace {

enum class Entered : std::uint8_t { added, known, no_room };

bool later(std::uint64_t key, std::uint64_t other) {
  return static_cast<std::int16_t>(static_cast<std::uint16_t>(key - other)) > 0;
}

// `line`: where the entry stands in a table of as many lines.
Entered enter(FlowTableState& table, std::uint64_t line, std::uint64_t key, std::uint32_t meta) {
  const std::uint64_t fingerprint = key & ~kTickMask;
  const std::uint64_t first = (meta & kSecondLine) != 0 ? other_line(line, fingerprint, table.line_count) : line;
  const std::uint64_t second = other_line(first, fingerprint, table.line_count);
  const std::uint32_t bare = meta & ~kSecondLine;
  if (const FlowSlot slot = find(table, first, fingerprint); slot.line != nullptr) {
    if (later(key, slot.line->key[slot.index])) {
      repoint(table, slot, meta_target(bare), meta_state(bare), key & kTickMask);
    }
    return Entered::known;
  }
  const NewFlow flow{.first = first, .fingerprint = fingerprint, .meta = bare, .tick = key & kTickMask};
  for (const std::uint64_t candidate : {first, second}) {
    const std::uint32_t free = match(table.lines[candidate], 0);
    if (free == 0) continue;
    place(table, flow, candidate, lowest_bit(free));
    return Entered::added;
  }
  FlowChanges changes;
  const FlowSlot slot = make_room(table, {first, second}, changes);
  if (slot.line == nullptr) return Entered::no_room;
  place(table, flow, static_cast<std::uint64_t>(slot.line - table.lines), slot.index);
  return Entered::added;
}

// fn(line number, key, meta) for every whole entry that is proven, or for every one that is not.
template <typename Fn>
void for_each(std::span<const abi::FlowLine> lines, bool proven, const Fn& fn) {
  for (std::uint64_t n = 0; n < lines.size(); ++n) {
    for (std::uint32_t i = 0; i < abi::kFlowsPerLine; ++i) {
      const std::uint64_t key = lines[n].key[i];
      const FlowState state = meta_state(lines[n].meta[i]);
      const bool whole = key > kTickMask && state != FlowState::empty && static_cast<std::uint8_t>(state) < kFlowStateCount;
      if (whole && is_unproven(state) != proven) fn(n, key, lines[n].meta[i]);
    }
  }
}

}  // namespace

Rehomed rehome(std::span<const std::span<const abi::FlowLine>> from, std::span<const std::span<abi::FlowLine>> to) {
  std::vector<FlowTableState> tables;
  for (const std::span<abi::FlowLine> lines : to) tables.push_back({.lines = lines.data(), .line_count = lines.size()});
  Rehomed result;
  for (const bool proven : {true, false}) {
    for (std::size_t w = 0; w < from.size(); ++w) {
      for_each(from[w], proven, [&](std::uint64_t line, std::uint64_t key, std::uint32_t meta) {
        Entered entered = Entered::no_room;
        for (std::size_t k = 0; k < tables.size() && entered == Entered::no_room; ++k) {
          entered = enter(tables[(w + k) % tables.size()], line, key, meta);
        }
        result.kept += entered == Entered::added ? 1 : 0;
        result.no_room += entered == Entered::no_room ? 1 : 0;
      });
    }
  }
  for (const std::span<const abi::FlowLine> lines : from) {
    for_each(lines, true, [&](std::uint64_t line, std::uint64_t key, std::uint32_t meta) {
      for (FlowTableState& table : tables) {
        if (table.flows * 4 >= table.line_count * abi::kFlowsPerLine * 3) continue;
        result.copies += enter(table, line, key, meta) == Entered::added ? 1 : 0;
      }
    });
  }
  return result;
}

}  // namespace lb
