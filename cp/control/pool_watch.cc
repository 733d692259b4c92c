#include "cp/control/pool_watch.h"

#include <array>
#include <cstddef>
#include <initializer_list>

namespace lb::cp {
namespace {

using abi::Counter;

// What is counted when there is no room, and what that does to packets.
struct FullPool {
  const char* object;
  std::initializer_list<Counter> counters;
  const char* effect;
};

const std::array<FullPool, 5>& full_pools() {
  static const std::array<FullPool, 5> pools = {{
      {"snat", {Counter::snat_refused}, "flows were refused within a second: no SNAT port was free"},
      {"flow-table",
       {Counter::flow_untracked, Counter::flow_refused},
       "packets went by their hash, or flows were refused, within a second: the flow table had no room"},
      {"fragments",
       {Counter::drop_fragment_table_full},
       "fragments were dropped within a second: too many wait for their first one"},
      {"ways-back",
       {Counter::drop_no_way_back},
       "packets were dropped within a second: too many neighbours send flows of nat listeners"},
      {"transmit-ring", {Counter::drop_tx_full}, "packets were dropped within a second: a port did not take them"},
  }};
  return pools;
}

}  // namespace

void PoolWatch::look_at_level(const std::string& object, std::uint64_t used, std::uint64_t capacity,
                              std::vector<Event>& events) {
  if (capacity == 0) return;
  bool& high = high_[object];
  const std::string detail = std::to_string(used) + " of " + std::to_string(capacity) + " are in use";
  if (!high && used * 100 >= capacity * kWarnPercent) {
    high = true;
    events.push_back({.object = object, .old_state = "free", .new_state = "nearly full", .detail = detail});
  } else if (high && used * 100 < capacity * kCalmPercent) {
    high = false;
    events.push_back({.object = object, .old_state = "nearly full", .new_state = "free", .detail = detail});
  }
}

std::vector<Event> PoolWatch::look(std::span<const LiveWorker> workers, const CounterTotals& totals, std::int64_t now_ms) {
  std::vector<Event> events;
  for (const LiveWorker& worker : workers) {
    const std::string owner = " worker " + std::to_string(worker.worker);
    look_at_level("flow-table" + owner, worker.flows, worker.flow_capacity, events);
    look_at_level("snat" + owner, worker.snat_ports, worker.snat_capacity, events);
  }
  for (const FullPool& pool : full_pools()) {
    std::uint64_t count = 0;
    for (const Counter counter : pool.counters) count += totals[static_cast<std::size_t>(counter)];
    Shortage& shortage = shortages_[pool.object];
    const std::uint64_t more = seen_ ? count - shortage.count : 0;
    shortage.count = count;
    if (more != 0) {
      shortage.last_ms = now_ms;
      if (!shortage.lasts) {
        events.push_back({.object = pool.object,
                          .old_state = "free",
                          .new_state = "exhausted",
                          .detail = std::to_string(more) + " " + pool.effect});
      }
      shortage.lasts = true;
    } else if (shortage.lasts && now_ms - shortage.last_ms >= kRestMs) {
      shortage.lasts = false;
      events.push_back({.object = pool.object, .old_state = "exhausted", .new_state = "free", .detail = "not for 10 s"});
    }
  }
  seen_ = true;
  return events;
}

}  // namespace lb::cp
