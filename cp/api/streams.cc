#include "cp/api/streams.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <thread>

#include "cp/api/rows.h"
#include "proto/api.pb.h"

namespace lb::cp {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLook{100};  // how soon a client that has gone, or the server's end, is noticed

}  // namespace

grpc::Status StreamPlace::status() const {
  if (granted_) return grpc::Status::OK;
  return {grpc::StatusCode::RESOURCE_EXHAUSTED,
          "there are " + std::to_string(kMaxStreams) + " watchers already: lb-cp takes no more"};
}

bool wait_in_stream(const grpc::ServerContext& context, milliseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  while (!context.IsCancelled()) {
    const auto left = until - std::chrono::steady_clock::now();
    if (left <= milliseconds(0)) return true;
    std::this_thread::sleep_for(std::min<std::chrono::steady_clock::duration>(left, kLook));
  }
  return false;
}

grpc::Status stream_events(Operations& operations, const grpc::ServerContext& context, const api::EventsRequest& request,
                           const std::function<bool(const api::EventBatch&)>& write) {
  std::uint64_t instance = request.instance();
  std::uint64_t sequence = request.sequence();
  bool first = true;
  while (!context.IsCancelled()) {
    const EventsSince found = operations.events_since(instance, sequence, first ? milliseconds(0) : kLook);
    if (first || !found.events.empty()) {
      api::EventBatch batch;
      for (const Event& event : found.events) fill(*batch.add_events(), event);
      batch.set_instance(found.instance);
      batch.set_lost(found.lost);
      if (!write(batch)) break;
    }
    instance = found.instance;
    if (!found.events.empty()) sequence = found.events.back().sequence;
    if (!request.follow()) return grpc::Status::OK;
    first = false;
  }
  return {grpc::StatusCode::CANCELLED, "the watch has ended"};
}

}  // namespace lb::cp
