// The last events, for everybody who asks: the control thread adds, readers of any thread wait for more.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "cp/model/live.h"

namespace lb::cp {

inline constexpr std::size_t kMaxEvents = 1000;

class EventLog {
 public:
  EventLog();

  // The oldest one goes when there are more than kMaxEvents.
  void add(Event event);
  [[nodiscard]] std::deque<Event> newest_first() const;
  // What came after event `sequence` of the log `instance` (another instance: all there is), oldest first. Where there is
  // nothing, waits up to `wait` for it.
  [[nodiscard]] EventsSince since(std::uint64_t instance, std::uint64_t sequence, std::chrono::milliseconds wait) const;

 private:
  const std::uint64_t instance_;  // of this lb-cp: sequences begin anew with each
  mutable std::mutex mutex_;
  mutable std::condition_variable more_;
  std::deque<Event> events_;  // newest first
  std::uint64_t last_ = 0;    // sequence of the newest
};

}  // namespace lb::cp
