// The calls that change the configuration, and those that show what it was.
#pragma once

#include <string>

#include "cp/api/operations.h"

namespace grpc {
class ServerContext;
class Status;
}  // namespace grpc

namespace lb::api {
class ApplyReply;
class ApplyRequest;
class DiffReply;
class DiffRequest;
class EditRequest;
class ExportReply;
class ExportRequest;
class HistoryReply;
class RollbackRequest;
}  // namespace lb::api

namespace lb::cp {

grpc::Status apply_config(Operations& operations, const grpc::ServerContext& context, const api::ApplyRequest& request,
                          api::ApplyReply& reply);
grpc::Status diff_config(Operations& operations, const api::DiffRequest& request, api::DiffReply& reply);
grpc::Status edit_config(Operations& operations, const grpc::ServerContext& context, const api::EditRequest& request,
                         api::ApplyReply& reply);
grpc::Status list_history(Operations& operations, api::HistoryReply& reply);
grpc::Status roll_back(Operations& operations, const grpc::ServerContext& context, const api::RollbackRequest& request,
                       api::ApplyReply& reply);
grpc::Status export_config(Operations& operations, const api::ExportRequest& request, api::ExportReply& reply);

}  // namespace lb::cp
