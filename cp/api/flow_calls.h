// The calls that look at flows and at plans.
#pragma once

#include <string>

#include "cp/api/operations.h"

namespace grpc {
class Status;
}

namespace lb::api {
class FlowList;
class FlowsRequest;
class OffenderList;
class OffendersRequest;
class PlanReply;
class PlanRequest;
}  // namespace lb::api

namespace lb::cp {

grpc::Status list_flows(Operations& operations, const api::FlowsRequest& request, api::FlowList& reply);
grpc::Status list_offenders(Operations& operations, const api::OffendersRequest& request, api::OffenderList& reply);
grpc::Status plan_config(Operations& operations, const api::PlanRequest& request, api::PlanReply& reply);

bool is_flow_state(const std::string& text);
std::string flow_states();  // "new | assumed | …"

}  // namespace lb::cp
