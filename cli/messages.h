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
class Event;
class EventBatch;
class EventsRequest;
class ExportReply;
class ExportRequest;
class FlowList;
class FlowsRequest;
class FreezeReply;
class FreezeRequest;
class HistoryReply;
class ListenerList;
class OffenderList;
class OffendersRequest;
class PacketBatch;
class PlanReply;
class PlanRequest;
class RollbackRequest;
class TalkerList;
class TalkersRequest;
class TargetGroupList;
class TargetList;
class TraceBatch;
class TraceRecord;
class TraceRequest;
class VersionReply;
class VipList;
class WatchReply;
class WatchRequest;
class WhyBatch;
class WhyReply;
class WhyRequest;
class WorkerList;
}  // namespace lb::api
