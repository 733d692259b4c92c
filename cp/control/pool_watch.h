// Says by events how full lb-dp's bounded tables are, before they are full and when they are.
//
//   flow table, SNAT ports   of each worker     free ──80 %──▶ nearly full ──below 70 %──▶ free
//   what a full one does     counters go up     free ────────▶ exhausted ──10 s of rest──▶ free
//
// Thread: one, the controller's.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "cp/model/live.h"
#include "cp/stats/stats_reader.h"

namespace lb::cp {

class PoolWatch {
 public:
  static constexpr std::uint64_t kWarnPercent = 80;
  static constexpr std::uint64_t kCalmPercent = 70;
  static constexpr std::int64_t kRestMs = 10'000;

  // Once a second while lb-dp is there. `now_ms`: of a clock that never goes back. Events without their time.
  std::vector<Event> look(std::span<const LiveWorker> workers, const CounterTotals& totals, std::int64_t now_ms);
  // lb-dp is away: what it counts when it is back is compared with nothing.
  void forget_counts() { seen_ = false; }

 private:
  void look_at_level(const std::string& object, std::uint64_t used, std::uint64_t capacity, std::vector<Event>& events);

  struct Shortage {
    std::uint64_t count = 0;  // a second ago
    bool lasts = false;
    std::int64_t last_ms = 0;  // when it was felt last
  };
  std::map<std::string, bool> high_;           // by object
  std::map<std::string, Shortage> shortages_;  // by object
  bool seen_ = false;
};

}  // namespace lb::cp
