// Sums lb-dp's counters and makes them monotonic: when lb-dp is restarted and begins at zero, what its former instance had
// counted is added. The memory is lb-dp's (dp/abi/counters.h) and goes on changing; single words are read, relaxed.
//
//   instance 1: ───── 1,000 ┐                  reader: 1,000 … 1,000 + 7
//   instance 2:             └─ 0 ── 7
//
// Thread: one, the controller's.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "cp/model/live.h"
#include "dp/abi/counters.h"

namespace lb::cp {

// One worker's part of the stats region, checked by who mapped it.
struct WorkerView {
  const abi::WorkerStats* stats = nullptr;
  std::span<const abi::ListenerStats> listeners;   // by counter index
  std::span<const std::uint32_t> target_flows;     // by target id
  std::span<const std::uint32_t> target_troubles;  // by target id
};

struct StatsView {
  std::vector<WorkerView> workers;
  std::shared_ptr<const void> owner;  // keeps the memory mapped, after lb-dp's death too
};

using CounterTotals = std::array<std::uint64_t, abi::kCounterCount>;

class StatsReader {
 public:
  // lb-dp is there; `instance` is new at each of its starts. The same instance again (a reconnect) counts on.
  void attach(StatsView view, std::uint64_t instance);
  // lb-dp is away: its last numbers stay, its flows are unknown.
  void detach() { attached_ = false; }

  [[nodiscard]] CounterTotals totals() const;
  // Per worker; generation, flows and busy are those of the present instance.
  [[nodiscard]] std::vector<LiveWorker> workers() const;
  // Both counter indexes of a listener, from start_listener() on.
  [[nodiscard]] ListenerCounters listener(std::uint32_t counter_index) const;
  // A counter index has got a new owner: its count begins at zero.
  void start_listener(std::uint32_t counter_index);
  // What start_listener() has remembered of the present lb-dp, by counter index: kept across a restart of lb-cp.
  [[nodiscard]] std::vector<ListenerCounters> listener_starts() const;
  [[nodiscard]] std::uint64_t instance() const { return instance_; }
  // Before attach(). They hold if that lb-dp, `instance`, still runs: another one has begun to count anew.
  void restore_listener_starts(std::uint64_t instance, std::vector<ListenerCounters> starts);
  // Entries that name a target, all workers. nullopt: lb-dp is away, or does not know the id.
  [[nodiscard]] std::optional<std::uint64_t> target_flows(std::uint32_t target_id) const;
  // Troubles that workers have seen of a target (dp/abi/counters.h); to be compared for equality alone. 0 while lb-dp is
  // away.
  [[nodiscard]] std::uint32_t target_troubles(std::uint32_t target_id) const;

 private:
  [[nodiscard]] ListenerCounters raw_listener(std::uint32_t counter_index) const;

  StatsView view_;
  std::uint64_t instance_ = 0;
  bool attached_ = false;
  std::vector<CounterTotals> base_;               // by worker: former instances
  std::vector<ListenerCounters> listener_base_;   // by counter index: former instances
  std::vector<ListenerCounters> listener_start_;  // by counter index: what former owners had counted
};

}  // namespace lb::cp
