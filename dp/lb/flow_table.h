// The flow table of one worker: which target a flow is on, when it was last seen and how far it has come.
//
//   first line = hash.low, ───▶ ┌────────────── 64 bytes ──────────────┐
//            scaled             │ key[5]   fingerprint 48 │ tick 16     │   one load, one compare for all five
//   second = f(fingerprint)     │ meta[5]  target 20 │ state 4 │ …      │
//            - first mod lines, │ sequence 16 │ overflow 16            │
//            if overflow > 0    └──────────────────────────────────────┘
//
// A flow stands in its first or its second line; either gives the other with the fingerprint alone, so that entries can be
// moved without their key. Any number of lines will do, so that the memory given is the memory used. A miss reads the second
// line only where `overflow` says that some flow of this line had to go there. An insert takes a free or expired entry of
// either line, else moves one entry to its other line (breadth-first, at most kMaxMoves), else evicts an unproven flow (one
// packet seen), else fails: the caller forwards by Maglev. No tombstones: an erased entry is free at once, and nothing else
// moves.
//
// Numbers: 12.8 bytes a flow when full; 5 entries × 2 lines × 2^-48 = 4e-14 wrong hits per lookup, also for inputs chosen
// by someone who does not know the node secret (dp/lb/flow_table.md has the argument and the measurements).
// Not for: listing flows by address (no key is kept), counting bytes per flow.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "dp/abi/region.h"
#include "dp/lb/flow_hash.h"
#include "dp/lb/hearsay.h"
#include "dp/lb/ways_back.h"
#include "dp/net/flow_key.h"

namespace lb {

class Snapshot;

// TCP as far as one direction shows it. `fresh` and `udp_fresh` have shown one packet (or only SYNs): they
// are unproven and give way to other flows when a line is full.
enum class FlowState : std::uint8_t {
  empty = 0,
  fresh = 1,        // TCP, first packet seen
  assumed = 2,      // TCP, a later packet came
  closing = 3,      // the client has sent FIN; keeps its target until the idle timeout
  reset = 4,        // lb has reset it: answered with RST again while it stays
  short_lived = 5,  // the client has sent RST
  udp = 6,          // UDP, more than one packet seen
  udp_fresh = 7,    // UDP, one packet seen
};
inline constexpr std::uint8_t kFlowStateCount = 8;
[[nodiscard]] constexpr const char* to_string(FlowState state) {
  constexpr const char* kNames[kFlowStateCount] = {"empty", "new", "assumed", "closing", "reset", "short", "udp", "udp-new"};
  return static_cast<std::uint8_t>(state) < kFlowStateCount ? kNames[static_cast<std::uint8_t>(state)] : "?";
}

inline constexpr std::uint64_t kTickNs = 250'000'000;        // resolution of idle times
inline constexpr std::uint32_t kFreshTimeoutTicks = 30 * 4;  // a SYN alone is swept after 30 s
inline constexpr std::uint32_t kResetTimeoutTicks =
    60 * 4;  // how long lb answers a reset flow with RST after its last packet
inline constexpr std::uint32_t kShortTimeoutTicks = 10 * 4;  // after the client's RST

// What a read-only look at a table tells.
struct FlowView {
  std::uint32_t target = 0;
  FlowState state = FlowState::empty;
  std::uint32_t way = 0;      // nat: the number of its way back (dp/lb/ways_back.h), 0: none
  std::uint64_t idle_ns = 0;  // in steps of 250 ms
};

// What the packet path works on. Owner: the worker.
struct FlowTableState {
  abi::FlowLine* lines = nullptr;
  std::uint64_t line_count = 0;
  std::uint32_t* target_flows = nullptr;
  std::uint64_t target_count = 0;
  std::uint64_t flows = 0;
  std::uint64_t sweep_line = 0;  // where ageing goes on
};

class FlowTable {
 public:
  // `lines`: this worker's, at least 2, zeroed or re-attached. `target_flows`: entries by target id, this worker's
  // block of the stats region (may be empty: not counted). Both outlive the table and are written by this worker alone.
  // Reads every line once: mends what a crash has torn, counts entries, target_flows and overflows afresh.
  // `ways`: of the same run as the lines, and outlives the table; nullptr: new ones, and entries lose theirs.
  FlowTable(std::span<abi::FlowLine> lines, std::span<std::uint32_t> target_flows, const NodeSecret& secret,
            abi::NatWays* ways = nullptr);

  // Lines that hold `flows` at the highest load in use, 7/8.
  static std::uint64_t lines_for(std::uint64_t flows);

  // Looks a flow up in the table of any worker, from any thread or process, without disturbing its writer.
  // now_ns: CLOCK_MONOTONIC, as the worker's.
  static std::optional<FlowView> peek(std::span<const abi::FlowLine> lines, const NodeSecret& secret,
                                      const net::FlowKey& key, std::uint64_t now_ns);
  // This worker's table, from any thread of this process; `hash`: of the flow's key under hash_keys().
  [[nodiscard]] std::optional<FlowView> peek(const Hash128& hash, std::uint64_t now_ns) const;
  // With the keys made once, for many look-ups.
  static std::optional<FlowView> peek(std::span<const abi::FlowLine> lines, const HashKeys& keys, const net::FlowKey& key,
                                      std::uint64_t now_ns);

  // With the flow's hash under those keys.
  static std::optional<FlowView> peek(std::span<const abi::FlowLine> lines, const Hash128& hash, std::uint64_t now_ns);

  [[nodiscard]] std::uint64_t flows() const { return state_.flows; }
  [[nodiscard]] std::uint64_t capacity() const { return state_.line_count * abi::kFlowsPerLine; }
  [[nodiscard]] const HashKeys& hash_keys() const { return hash_keys_; }
  [[nodiscard]] WaysBack& ways() { return ways_; }
  [[nodiscard]] const WaysBack& ways() const { return ways_; }
  // What the other workers tell this one, by worker. Empty until there are any; made before the first packet.
  void expect_news(std::uint32_t workers) { news_ = std::vector<NewsRing>(workers); }
  [[nodiscard]] std::span<NewsRing> news() { return news_; }
  // For the packet path (dp/lb/flow_ops.h).
  [[nodiscard]] FlowTableState& state() { return state_; }

 private:
  FlowTableState state_;
  HashKeys hash_keys_;
  WaysBack ways_;
  std::vector<NewsRing> news_;
};

// After a restart, before a FlowTable is made on the lines: entries written under `old_directory` (identity by target id, 0:
// none) get the id that their target has in `snapshot`, or are dropped. Single-threaded; no worker may run on the lines.
struct Reattached {
  std::uint64_t kept = 0;
  std::uint64_t dropped = 0;
};
Reattached reattach(std::span<abi::FlowLine> lines, std::span<const std::uint64_t> old_directory, const Snapshot& snapshot);

// After a change in the number of workers, before reattach(): enters the flows of all old tables into the new ones, which
// are zeroed and have as many lines each as every old one. Nobody can say which queue a flow will come on, since an entry
// holds no addresses: every flow gets one home, and a copy in each other table while that is less than 3/4 full. A copy that
// is not used ages out like any flow. Single-threaded; torn entries are left out.
struct Rehomed {
  std::uint64_t kept = 0;     // flows
  std::uint64_t copies = 0;   // further entries of the same flows
  std::uint64_t no_room = 0;  // flows that found no place: they go by Maglev
};
Rehomed rehome(std::span<const std::span<const abi::FlowLine>> from, std::span<const std::span<abi::FlowLine>> to);

}  // namespace lb
