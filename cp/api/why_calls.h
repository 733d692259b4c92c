// The calls that ask where a flow, or the packets of a capture, would go.
#pragma once

#include <functional>

#include "cp/api/operations.h"

namespace grpc {
class Status;
}

namespace lb::api {
class PacketBatch;
class WhyBatch;
class WhyReply;
class WhyRequest;
}  // namespace lb::api

namespace lb::cp {

grpc::Status why_flow(Operations& operations, const api::WhyRequest& request, api::WhyReply& reply);

// `read` and `write`: the stream's; false: the client has gone, or has no more to ask.
grpc::Status why_packets(Operations& operations, const std::function<bool(api::PacketBatch&)>& read,
                         const std::function<bool(const api::WhyBatch&)>& write);

}  // namespace lb::cp
