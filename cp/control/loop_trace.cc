// Traces of single packets: lb-dp is told which ones, and told again, as long as somebody reads.
#include "cp/control/loop.h"

namespace lb::cp {
namespace {

using namespace std::chrono_literals;

constexpr auto kTraceTime = 5s;  // without being renewed

std::uint64_t until_ns() {
  const auto end = std::chrono::steady_clock::now().time_since_epoch() + kTraceTime;
  return static_cast<std::uint64_t>(std::chrono::nanoseconds(end).count());
}

}  // namespace

tl::expected<explain::TraceFeed, std::string> Controller::Loop::start_trace(const abi::TraceOrder& order) {
  if (!data_plane_) return tl::unexpected("lb-dp is away: " + data_plane_note_);
  if (trace_order_.packets_per_second != 0)
    return tl::unexpected<std::string>("another trace is going on; there is one at a time");
  const std::uint64_t session = trace_order_.session + 1;
  trace_order_ = order;
  trace_order_.session = session;
  traced_instance_ = data_plane_->instance;
  explain::TraceFeed feed(data_plane_->trace, data_plane_->trace->rings(), session);
  renew_trace(session);
  return feed;
}

bool Controller::Loop::renew_trace(std::uint64_t session) {
  if (session != trace_order_.session || !data_plane_ || data_plane_->instance != traced_instance_) return false;
  trace_order_.until_ns = until_ns();
  publisher_->trace(trace_order_);
  return true;
}

void Controller::Loop::end_trace(std::uint64_t session) {
  if (session != trace_order_.session) return;
  trace_order_ = {.session = session};
  if (data_plane_ && publisher_) publisher_->trace(trace_order_);
}

}  // namespace lb::cp
