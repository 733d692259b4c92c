// Calls that go on for as long as the client listens. Each holds a thread: there are only so many at a time.
#pragma once

#include <atomic>
#include <functional>

#include "cp/api/operations.h"

namespace grpc {
class ServerContext;
class Status;
}  // namespace grpc

namespace lb::api {
class EventBatch;
class EventsRequest;
}  // namespace lb::api

namespace lb::cp {

inline constexpr int kMaxStreams = 32;

// One of at most kMaxStreams while it lives.
class StreamPlace {
 public:
  explicit StreamPlace(std::atomic<int>& taken) : taken_(taken), granted_(++taken <= kMaxStreams) {}
  ~StreamPlace() { --taken_; }
  StreamPlace(const StreamPlace&) = delete;
  StreamPlace& operator=(const StreamPlace&) = delete;
  [[nodiscard]] grpc::Status status() const;  // OK, or that there are too many

 private:
  std::atomic<int>& taken_;
  bool granted_;
};

// Waits for `time`, looking whether the client is still there. False: it has gone, or the server ends.
bool wait_in_stream(const grpc::ServerContext& context, std::chrono::milliseconds time);

// `write` sends one batch; false: the client has gone.
grpc::Status stream_events(Operations& operations, const grpc::ServerContext& context, const api::EventsRequest& request,
                           const std::function<bool(const api::EventBatch&)>& write);

}  // namespace lb::cp
