#include "dp/lb/flow_table.h"

#include "dp/lb/flow_ops.h"

namespace lb {
namespace {

// One line as another thread sees it while its owner may be writing.
struct LineCopy {
  abi::FlowLine line;
  bool whole = false;  // no write came between
};

std::uint16_t read_sequence(const abi::FlowLine& line) {
  return __atomic_load_n(&line.sequence, __ATOMIC_ACQUIRE);
}

LineCopy copy_line(const abi::FlowLine& line) {
  LineCopy copy;
  copy.line.sequence = read_sequence(line);
  for (std::size_t i = 0; i < abi::kFlowsPerLine; ++i) {
    copy.line.key[i] = __atomic_load_n(&line.key[i], __ATOMIC_RELAXED);
    copy.line.meta[i] = __atomic_load_n(&line.meta[i], __ATOMIC_RELAXED);
  }
  copy.line.overflow = __atomic_load_n(&line.overflow, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_ACQUIRE);
  copy.whole = (copy.line.sequence & 1) == 0 && __atomic_load_n(&line.sequence, __ATOMIC_RELAXED) == copy.line.sequence;
  return copy;
}

std::optional<FlowView> view(const abi::FlowLine& line, std::uint64_t fingerprint, std::uint64_t tick) {
  for (std::size_t i = 0; i < abi::kFlowsPerLine; ++i) {
    if ((line.key[i] ^ fingerprint) > kTickMask) continue;
    return FlowView{meta_target(line.meta[i]), meta_state(line.meta[i]), idle_ticks(line.key[i], tick) * kTickNs};
  }
  return std::nullopt;
}

bool is_valid(std::uint64_t key, std::uint32_t meta) {
  const FlowState state = meta_state(meta);
  return (key & ~kTickMask) != 0 && state != FlowState::empty && static_cast<std::uint8_t>(state) < kFlowStateCount;
}

}  // namespace

FlowTable::FlowTable(std::span<abi::FlowLine> lines, std::span<std::uint32_t> target_flows, const NodeSecret& secret)
    : state_{lines.data(), lines.size(), target_flows.data(), target_flows.size()}, hash_keys_(make_hash_keys(secret)) {
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
  constexpr int kTries = 64;
  if (lines.empty()) return std::nullopt;
  const Hash128 hash = flow_hash(keys, key);
  const std::uint64_t fingerprint = fingerprint_of(hash);
  const std::uint64_t tick = now_ns / kTickNs & kTickMask;
  const std::uint64_t first = first_line(hash, lines.size());
  const std::uint64_t second = other_line(first, fingerprint, lines.size());
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const LineCopy one = copy_line(lines[first]);
    if (!one.whole) continue;
    if (const auto found = view(one.line, fingerprint, tick)) return found;
    if (one.line.overflow == 0) return std::nullopt;
    const LineCopy other = copy_line(lines[second]);
    if (!other.whole) continue;
    if (const auto found = view(other.line, fingerprint, tick)) return found;
    // An entry on its way from the second line to the first was missed only if the first line has changed since.
    if (read_sequence(lines[first]) == one.line.sequence) return std::nullopt;
  }
  return std::nullopt;  // its owner keeps writing: as good as no entry
}

}  // namespace lb
