// The time that drains, thresholds and slow starts go by: that of the wall clock, but it passes evenly whatever somebody
// does to the wall clock. Deadlines are kept on disk as wall clock time, so that they survive a reboot.
//
//   now() = wall clock at the start + CLOCK_BOOTTIME since then
//   the wall clock jumps ──▶ take_jump() says by how much: whoever keeps times moves them along, and now() is the new time
#pragma once

#include <cstdint>
#include <functional>

namespace lb::cp {

class Clock {
 public:
  using Reading = std::function<std::int64_t()>;  // milliseconds

  Clock();                              // of this machine
  Clock(Reading wall, Reading steady);  // steady: never jumps

  [[nodiscard]] std::int64_t now_unix_ms() const { return anchor_ms_ + steady_(); }

  // How far the wall clock has gone from now_unix_ms(), if that is more than kLeastJumpMs: now_unix_ms() is the wall clock's
  // then. Less is taken over silently: clocks are slewed. 0: no jump.
  std::int64_t take_jump();

  static constexpr std::int64_t kLeastJumpMs = 2000;

 private:
  Reading wall_;
  Reading steady_;
  std::int64_t anchor_ms_;
};

}  // namespace lb::cp
