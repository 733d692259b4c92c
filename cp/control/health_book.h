// From probe results to target health: which targets a probe speaks for, their thresholds, and the removal limit.
//
//   ProbeResult ─▶ targets that share the probe ─▶ RiseFall each ─▶ RemovalLimit of the group ─▶ Roster::set_health
//
// No clock, no I/O. Thread: one.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cp/health/prober.h"
#include "cp/health/rise_fall.h"
#include "cp/snapshot/decide.h"
#include "cp/snapshot/roster.h"

namespace lb::cp {

// Flap damping: who fails again within this time has to pass twice as many probes as before, at most kMostFlaps times over.
inline constexpr std::int64_t kFlapWindowMs = 600'000;
inline constexpr std::uint32_t kMostFlaps = 3;

class HealthBook {
 public:
  // Who is to be probed: targets of groups in use that check health, removed and invalid ones left out. Counts of targets
  // that stay are kept.
  std::vector<ProbeSpec> plan(const Roster& roster);
  // Takes a result over into the roster. True: a target's health or reason changed.
  bool take(const ProbeSpec& spec, const ProbeResult& result, Roster& roster, std::int64_t now_unix_ms);
  // Passive signals: probes of targets that workers have seen in trouble (dp/abi/counters.h) since this was asked last.
  std::vector<ProbeSpec> troubled(const std::function<std::uint32_t(std::uint32_t target_id)>& troubles_of);
  // Only what the probe said, for people: no health changes and nothing is counted towards a threshold, so that a thaw
  // begins where the freeze did.
  void show(const ProbeSpec& spec, const ProbeResult& result, Roster& roster);
  // As Roster::shift_times().
  void shift_times(std::int64_t ms);
  // Probes by verdict since start.
  [[nodiscard]] std::map<std::string, std::uint64_t> counts() const;

 private:
  struct Success {
    std::string group;
    std::int64_t unix_ms = 0;
  };

  void note_success(const std::string& group, std::int64_t now_unix_ms);
  [[nodiscard]] std::int64_t last_success_outside(const std::string& group) const;

  std::map<ProbeSpec, std::vector<TargetKey>> users_;
  struct Counting {
    RiseFall health;
    std::uint32_t flaps = 0;  // falls, each within kFlapWindowMs of the one before, after the first
    std::int64_t fell_unix_ms = 0;
  };
  // Consecutive successes that make an unhealthy target healthy: the threshold, doubled with each flap.
  static std::uint32_t successes_wanted(const HealthCheck& check, const Counting& counting);

  std::map<TargetKey, Counting> counting_;
  struct Watched {  // a target whose replies come through lb
    std::uint32_t target_id = 0;
    const ProbeSpec* probe = nullptr;  // in users_
    std::optional<std::uint32_t> troubles;
  };
  std::map<TargetKey, Watched> watched_;
  std::map<std::string, RemovalLimit> limits_;
  Success last_;        // of any group
  Success last_other_;  // of any group but last_.group
  std::array<std::uint64_t, 5> verdicts_{};
};

}  // namespace lb::cp
