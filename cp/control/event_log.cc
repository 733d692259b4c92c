#include "cp/control/event_log.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace lb::cp {

EventLog::EventLog()
    : instance_(static_cast<std::uint64_t>(
          std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
              .count())) {}

void EventLog::add(Event event) {
  {
    const std::lock_guard lock(mutex_);
    event.sequence = ++last_;
    events_.push_front(std::move(event));
    if (events_.size() > kMaxEvents) events_.pop_back();
  }
  more_.notify_all();
}

std::deque<Event> EventLog::newest_first() const {
  const std::lock_guard lock(mutex_);
  return events_;
}

EventsSince EventLog::since(std::uint64_t instance, std::uint64_t sequence, std::chrono::milliseconds wait) const {
  if (instance != instance_) sequence = 0;
  std::unique_lock lock(mutex_);
  more_.wait_for(lock, wait, [&] { return last_ > sequence; });
  EventsSince result{.instance = instance_, .lost = 0, .events = {}};
  if (last_ <= sequence) return result;
  const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(last_ - sequence, events_.size()));
  // Who asks for the first time has missed nothing.
  if (instance == instance_ && sequence != 0) result.lost = last_ - sequence - wanted;
  const auto oldest = events_.begin() + static_cast<std::ptrdiff_t>(wanted);
  result.events.assign(std::make_reverse_iterator(oldest), events_.rend());
  return result;
}

}  // namespace lb::cp
