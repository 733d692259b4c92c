#include "dp/lb/flow_table.h"

#include "dp/lb/flow_ops.h"

namespace lb {
namespace {

std::uint16_t read_sequence(const abi::FlowLine& line) {
  return __atomic_load_n(&line.sequence, __ATOMIC_ACQUIRE);
}

// The entry with this fingerprint in a line whose owner may be writing. An entry goes by its meta, then its key becoming 0,
// and comes by its meta, then its key; so a meta between two reads of the same key belongs to it, or is 0.
std::optional<FlowView> view(const abi::FlowLine& line, std::uint64_t fingerprint, std::uint64_t tick) {
  for (std::size_t i = 0; i < abi::kFlowsPerLine; ++i) {
    const std::uint64_t key = __atomic_load_n(&line.key[i], __ATOMIC_ACQUIRE);
    if ((key ^ fingerprint) > kTickMask) continue;
    const std::uint32_t meta = __atomic_load_n(&line.meta[i], __ATOMIC_ACQUIRE);
    if ((__atomic_load_n(&line.key[i], __ATOMIC_ACQUIRE) ^ fingerprint) > kTickMask) continue;
    if (meta_state(meta) == FlowState::empty) continue;
    return FlowView{meta_target(meta), meta_state(meta), meta_way(meta), idle_ticks(key, tick) * kTickNs};
  }
  return std::nullopt;
}

bool is_valid(std::uint64_t key, std::uint32_t meta) {
  const FlowState state = meta_state(meta);
  return (key & ~kTickMask) != 0 && state != FlowState::empty && static_cast<std::uint8_t>(state) < kFlowStateCount;
}

}  // namespace

FlowTable::FlowTable(std::span<abi::FlowLine> lines, std::span<std::uint32_t> target_flows, const NodeSecret& secret,
                     abi::NatWays* ways)
    : state_{lines.data(), lines.size(), target_flows.data(), target_flows.size()},
      hash_keys_(make_hash_keys(secret)),
      ways_(ways) {
  for (std::uint32_t& flows : target_flows) put(flows, 0);
  for (abi::FlowLine& line : lines) {
    put(line.overflow, 0);
    if ((line.sequence & 1) != 0) put(line.sequence, line.sequence + 1U);  // a crash came in the middle of a write
  }
  for (std::uint64_t n = 0; n < lines.size(); ++n) {
    abi::FlowLine& line = lines[n];
    for (std::uint32_t i = 0; i < abi::kFlowsPerLine; ++i) {
      if (line.key[i] == 0 && line.meta[i] == 0) continue;
      if (!is_valid(line.key[i], line.meta[i])) {
        set_entry(line, i, 0, 0);
        continue;
      }
      if (ways == nullptr && meta_way(line.meta[i]) != 0) set_way({&line, i}, 0);  // of a process that is gone
      if ((line.meta[i] & kSecondLine) != 0) add_overflow(state_, other_line(n, line.key[i], lines.size()), 1);
      count_target(state_, meta_target(line.meta[i]), 1);
      ++state_.flows;
    }
  }
}

std::uint64_t FlowTable::lines_for(std::uint64_t flows) {
  const std::uint64_t lines = (flows * 8 + 7 * abi::kFlowsPerLine - 1) / (7 * abi::kFlowsPerLine);
  return lines < 2 ? 2 : lines;
}

std::optional<FlowView> FlowTable::peek(std::span<const abi::FlowLine> lines, const NodeSecret& secret,
                                        const net::FlowKey& key, std::uint64_t now_ns) {
  return peek(lines, make_hash_keys(secret), key, now_ns);
}

std::optional<FlowView> FlowTable::peek(std::span<const abi::FlowLine> lines, const HashKeys& keys, const net::FlowKey& key,
                                        std::uint64_t now_ns) {
  return peek(lines, flow_hash(keys, key), now_ns);
}

std::optional<FlowView> FlowTable::peek(std::span<const abi::FlowLine> lines, const Hash128& hash, std::uint64_t now_ns) {
  constexpr int kTries = 16;
  if (lines.empty()) return std::nullopt;
  const std::uint64_t fingerprint = fingerprint_of(hash);
  const std::uint64_t tick = now_ns / kTickNs & kTickMask;
  const abi::FlowLine& first = lines[first_line(hash, lines.size())];
  const abi::FlowLine& second = lines[other_line(first_line(hash, lines.size()), fingerprint, lines.size())];
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const std::uint16_t before = read_sequence(first);
    const std::uint16_t before_second = read_sequence(second);
    if (const auto found = view(first, fingerprint, tick)) return found;
    if (const auto found = view(second, fingerprint, tick)) return found;
    // Found in neither; but it may have gone from one to the other meanwhile. A move writes the new place before the old.
    if (__atomic_load_n(&first.sequence, __ATOMIC_RELAXED) == before &&
        __atomic_load_n(&second.sequence, __ATOMIC_RELAXED) == before_second) {
      return std::nullopt;
    }
  }
  return std::nullopt;  // its owner keeps writing to just these lines: as good as no entry
}

std::optional<FlowView> FlowTable::peek(const Hash128& hash, std::uint64_t now_ns) const {
  return peek({state_.lines, state_.line_count}, hash, now_ns);
}

}  // namespace lb
