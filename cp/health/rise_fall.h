// When does a run of probe results change a target's health? A pure state machine: no clocks, no I/O.
//
//              first ok                    `unhealthy` failures in a row
//   initial ───────────────▶ healthy ─────────────────────────────────▶ unhealthy
//      │                        ▲                                          │ ▲
//      │                        └──────────── `healthy` oks in a row ──────┘ │
//      └───────────────────── `unhealthy` failures in a row ─────────────────┘
//
// A success resets the failures and a failure the successes.
#pragma once

#include <cstdint>

#include "cp/model/model.h"

namespace lb::cp {

// not_asked: this host could not ask (no descriptor, no permission, …), which says nothing of the target; it is not counted.
enum class ProbeVerdict : std::uint8_t { ok, failed, timeout, response_code_mismatch, not_asked };

// The reason a failing verdict gives a target; none for ok.
StateReason reason_of(ProbeVerdict verdict);

class RiseFall {
 public:
  RiseFall() = default;
  // `health` as it was before a restart: it holds until thresholds say otherwise.
  explicit RiseFall(Health health) : health_(health) {}

  // Would one more such verdict change health? Lets the caller hold a change back (removal limit) without losing count.
  [[nodiscard]] Health after(ProbeVerdict verdict, std::uint32_t healthy_threshold, std::uint32_t unhealthy_threshold) const;
  // Counts the verdict and moves to `after(verdict)`, or, with `hold`, counts only. Returns whether health changed.
  bool observe(ProbeVerdict verdict, std::uint32_t healthy_threshold, std::uint32_t unhealthy_threshold, bool hold = false);

  [[nodiscard]] Health health() const { return health_; }

 private:
  Health health_ = Health::initial;
  std::uint32_t ok_ = 0;      // in a row, saturating
  std::uint32_t failed_ = 0;  // in a row, saturating
};

}  // namespace lb::cp
