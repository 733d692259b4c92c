// The most packets a second that a listener has had lately: a rate a second, of which the last kPeakSeconds are kept.
//
// Thread: one, the controller's.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lb::cp {

inline constexpr std::size_t kPeakSeconds = 60;

class PeakRates {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // To be called about once a second with a counter that only grows. One that has shrunk is another listener's: what was
  // known is forgotten.
  void look(std::uint32_t counter_index, std::uint64_t packets, Time now);
  // Packets a second; 0 until there were two looks.
  [[nodiscard]] double peak(std::uint32_t counter_index) const;

 private:
  struct Counter {
    Time looked;
    std::uint64_t packets = 0;
    std::size_t rates = 0;  // so many have been taken; the newest at (rates - 1) % kPeakSeconds
    bool known = false;
    std::array<float, kPeakSeconds> ring{};
  };
  std::vector<Counter> counters_;  // by counter index
};

}  // namespace lb::cp
