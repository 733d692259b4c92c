// The calls that have workers write packets down: Trace shows them, ListTalkers counts them by flow.
#pragma once

#include <functional>

#include "cp/api/operations.h"

namespace grpc {
class ServerContext;
class Status;
}  // namespace grpc

namespace lb::api {
class TalkerList;
class TalkersRequest;
class TraceBatch;
class TraceRequest;
}  // namespace lb::api

namespace lb::cp {

// Until the client has gone. `write` sends one batch; false: it has.
grpc::Status stream_trace(Operations& operations, const grpc::ServerContext& context, const api::TraceRequest& request,
                          const std::function<bool(const api::TraceBatch&)>& write);

// Which packets are asked for. Errors name the field.
grpc::Status read_order(const api::TraceRequest& request, abi::TraceOrder& order);

grpc::Status list_talkers(Operations& operations, const grpc::ServerContext& context, const api::TalkersRequest& request,
                          api::TalkerList& reply);

}  // namespace lb::cp
