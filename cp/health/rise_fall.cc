#include "cp/health/rise_fall.h"

#include <algorithm>
#include <limits>

namespace lb::cp {
namespace {

std::uint32_t next(std::uint32_t n) {
  return n == std::numeric_limits<std::uint32_t>::max() ? n : n + 1;
}

}  // namespace

StateReason reason_of(ProbeVerdict verdict) {
  switch (verdict) {
    case ProbeVerdict::ok: return StateReason::none;
    case ProbeVerdict::failed: return StateReason::failed_health_checks;
    case ProbeVerdict::timeout: return StateReason::timeout;
    case ProbeVerdict::response_code_mismatch: return StateReason::response_code_mismatch;
    case ProbeVerdict::not_asked: return StateReason::internal_error;
  }
  return StateReason::internal_error;
}

Health RiseFall::after(ProbeVerdict verdict, std::uint32_t healthy_threshold, std::uint32_t unhealthy_threshold) const {
  if (verdict == ProbeVerdict::not_asked) return health_;
  if (verdict != ProbeVerdict::ok) return next(failed_) >= unhealthy_threshold ? Health::unhealthy : health_;
  if (health_ == Health::initial) return Health::healthy;
  return health_ == Health::unhealthy && next(ok_) >= healthy_threshold ? Health::healthy : health_;
}

bool RiseFall::observe(ProbeVerdict verdict, std::uint32_t healthy_threshold, std::uint32_t unhealthy_threshold, bool hold) {
  const Health before = health_;
  if (verdict == ProbeVerdict::not_asked) return false;
  if (!hold) health_ = after(verdict, healthy_threshold, unhealthy_threshold);
  ok_ = verdict == ProbeVerdict::ok ? next(ok_) : 0;
  failed_ = verdict == ProbeVerdict::ok ? 0 : next(failed_);
  return health_ != before;
}

}  // namespace lb::cp
