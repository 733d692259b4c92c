// The messages of proto/api.proto that lbctl handles, by name: their definitions weigh seconds and stay in .cc files.
#pragma once

namespace lb::api {
class ApplyReply;
class ApplyRequest;
class ApplyTerms;
class DescribeReply;
class DescribeRequest;
class DiffReply;
class DiffRequest;
class DrainReply;
class DrainRequest;
class DropList;
class EditRequest;
class ExportReply;
class ExportRequest;
class HistoryReply;
class ListenerList;
class RollbackRequest;
class TargetGroupList;
class TargetList;
class VersionReply;
class VipList;
class WhyReply;
class WhyRequest;
class WorkerList;
}  // namespace lb::api
