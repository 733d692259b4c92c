#include "cp/control/clock.h"

#include <ctime>
#include <utility>

namespace lb::cp {
namespace {

std::int64_t read_ms(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return std::int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000;
}

}  // namespace

Clock::Clock() : Clock([] { return read_ms(CLOCK_REALTIME); }, [] { return read_ms(CLOCK_BOOTTIME); }) {}

Clock::Clock(Reading wall, Reading steady)
    : wall_(std::move(wall)), steady_(std::move(steady)), anchor_ms_(wall_() - steady_()) {}

std::int64_t Clock::take_jump() {
  const std::int64_t apart = wall_() - now_unix_ms();
  anchor_ms_ += apart;
  return apart > kLeastJumpMs || apart < -kLeastJumpMs ? apart : 0;
}

}  // namespace lb::cp
