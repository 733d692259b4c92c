#include "cp/api/service.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <exception>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cp/api/config_calls.h"
#include "cp/api/flow_calls.h"
#include "cp/api/refusals.h"
#include "cp/api/rows.h"
#include "cp/api/streams.h"
#include "cp/api/trace_calls.h"
#include "cp/api/why_calls.h"
#include "cp/explain/counters.h"
#include "proto/api.grpc.pb.h"
#include "proto/api.pb.h"

namespace lb::cp {

namespace {

using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;
using std::chrono::milliseconds;

constexpr milliseconds kLeastWatchInterval{100};
constexpr milliseconds kMostWatchInterval{86'400'000};
constexpr int kMaxDescribedEvents = 50;
constexpr std::size_t kMaxListedNames = 10;
constexpr std::size_t kMostNoteBytes = 200;

std::int64_t now_unix_ms() {
  return std::chrono::duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// "no target group `bleu`; there are: blue, green"
template <typename Objects, typename NameOf>
Status not_found(const std::string& kind, const std::string& name, const Objects& objects, const NameOf& name_of) {
  std::string text = "no " + kind + " " + quoted(name);
  std::size_t listed = 0;
  for (const auto& object : objects) {
    if (listed == kMaxListedNames) break;
    text += (listed++ == 0 ? "; there are: " : ", ") + name_of(object);
  }
  if (objects.size() > listed) text += " and " + std::to_string(objects.size() - listed) + " more";
  if (objects.empty()) text += "; there are none";
  return {StatusCode::NOT_FOUND, text};
}

const auto kName = [](const auto& object) { return object.name; };

std::string metadata(const ServerContext& context, const std::string& key) {
  const auto found = context.client_metadata().find(key);
  return found == context.client_metadata().end() ? std::string() : std::string(found->second.data(), found->second.size());
}

// A client of another API is told who is too old; one that says nothing is served as it is.
Status check_client(const ServerContext& context) {
  const std::string text = metadata(context, "lb-api");
  if (text.empty()) return Status::OK;
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) return invalid("lb-api", quoted(text) + " is not a number");
  if (number == api::API_CURRENT) return Status::OK;
  const std::string version = to_utf8(metadata(context, "lb-version"));
  const std::string client = "this client, version " + (version.empty() ? "unknown" : version) + " (API " + text + ")";
  const std::string server = "lb-cp, version " LB_VERSION " (API " + std::to_string(api::API_CURRENT) + ")";
  return {StatusCode::FAILED_PRECONDITION, number < api::API_CURRENT
                                               ? client + ", is older than " + server + ": upgrade the client"
                                               : server + ", is older than " + client + ": upgrade lb-cp"};
}

// Fields that a newer client has sent and this lb-cp does not know: to leave one out might do something else than was asked.
Status check_fields(const ServerContext& context, const google::protobuf::Message& message) {
  const auto& unknown = message.GetReflection()->GetUnknownFields(message);
  if (!unknown.empty()) {
    const std::string version = to_utf8(metadata(context, "lb-version"));
    return {StatusCode::FAILED_PRECONDITION,
            message.GetDescriptor()->name() + " has field number " + std::to_string(unknown.field(0).number()) +
                ", which lb-cp, version " LB_VERSION ", does not know: it is older than this client, version " +
                (version.empty() ? "unknown" : version) + ": upgrade lb-cp"};
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const auto* field : fields) {
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated()) continue;
    if (Status status = check_fields(context, message.GetReflection()->GetMessage(message, field)); !status.ok())
      return status;
  }
  return Status::OK;
}

class Service final : public api::LoadBalancer::Service {
 public:
  Service(Operations& operations, Access access) : operations_(operations), access_(access) {}

  Status GetVersion(ServerContext*, const api::VersionRequest*, api::VersionReply* reply) override {
    return safely([&] {  // no check of the client: this is how versions are compared
      const LiveSummary live = operations_.summary();
      reply->set_version(LB_VERSION);
      reply->set_api(api::API_CURRENT);
      reply->set_epoch(live.generation.epoch);
      reply->set_generation(live.generation.n);
      reply->set_data_plane_connected(live.data_plane_connected);
      reply->set_data_plane_note(to_utf8(live.data_plane_note));
      fill_freeze(live, *reply);
      return Status::OK;
    });
  }

  Status Apply(ServerContext* context, const api::ApplyRequest* request, api::ApplyReply* reply) override {
    return changing(*context, *request, [&] { return apply_config(operations_, *context, *request, *reply); });
  }
  Status Diff(ServerContext* context, const api::DiffRequest* request, api::DiffReply* reply) override {
    return guarded(*context, *request, [&] { return diff_config(operations_, *request, *reply); });
  }
  Status Edit(ServerContext* context, const api::EditRequest* request, api::ApplyReply* reply) override {
    return changing(*context, *request, [&] { return edit_config(operations_, *context, *request, *reply); });
  }
  Status History(ServerContext* context, const api::HistoryRequest* request, api::HistoryReply* reply) override {
    return guarded(*context, *request, [&] { return list_history(operations_, *reply); });
  }
  Status Rollback(ServerContext* context, const api::RollbackRequest* request, api::ApplyReply* reply) override {
    return changing(*context, *request, [&] { return roll_back(operations_, *context, *request, *reply); });
  }
  Status Export(ServerContext* context, const api::ExportRequest* request, api::ExportReply* reply) override {
    return guarded(*context, *request, [&] { return export_config(operations_, *request, *reply); });
  }
  Status ListVips(ServerContext* context, const api::ListRequest* request, api::VipList* reply) override {
    return guarded(*context, *request, [&] { return list_vips(*request, *reply); });
  }
  Status ListListeners(ServerContext* context, const api::ListRequest* request, api::ListenerList* reply) override {
    return guarded(*context, *request, [&] { return list_listeners(*request, *reply); });
  }
  Status ListTargetGroups(ServerContext* context, const api::ListRequest* request, api::TargetGroupList* reply) override {
    return guarded(*context, *request, [&] { return list_target_groups(*request, *reply); });
  }
  Status ListTargets(ServerContext* context, const api::ListRequest* request, api::TargetList* reply) override {
    return guarded(*context, *request, [&] { return list_targets(*request, *reply); });
  }
  Status ListWorkers(ServerContext* context, const api::ListRequest* request, api::WorkerList* reply) override {
    return guarded(*context, *request, [&] { return list_workers(*request, *reply); });
  }
  Status ListDrops(ServerContext* context, const api::ListRequest* request, api::DropList* reply) override {
    return guarded(*context, *request, [&] { return list_drops(*reply); });
  }
  Status Describe(ServerContext* context, const api::DescribeRequest* request, api::DescribeReply* reply) override {
    return guarded(*context, *request, [&] { return describe(*request, *reply); });
  }
  Status Drain(ServerContext* context, const api::DrainRequest* request, api::DrainReply* reply) override {
    return changing(*context, *request, [&] {
      DrainTerms terms;
      if (request->has_deadline_s()) terms.deadline = std::chrono::seconds(request->deadline_s());
      if (terms.deadline > kMostDrain)
        return invalid("deadline_s", std::to_string(request->deadline_s()) + " is not within 0-86400");
      if (!request->then().empty() && !(terms.then = parse_then(request->then())))
        return invalid("then", quoted(request->then()) + " is none of leave, reset, rehash");
      return drain(*request, &terms, *reply);
    });
  }
  Status Undrain(ServerContext* context, const api::DrainRequest* request, api::DrainReply* reply) override {
    return changing(*context, *request, [&] { return drain(*request, nullptr, *reply); });
  }
  Status Freeze(ServerContext* context, const api::FreezeRequest* request, api::FreezeReply* reply) override {
    return changing(*context, *request, [&] {
      if (request->note().size() > kMostNoteBytes) return invalid("note", "is longer than 200 bytes");
      reply->set_was_frozen(operations_.freeze_health(request->frozen(), to_utf8(request->note())));
      fill_freeze(operations_.summary(), *reply);
      return Status::OK;
    });
  }
  Status Plan(ServerContext* context, const api::PlanRequest* request, api::PlanReply* reply) override {
    return guarded(*context, *request, [&] { return plan_config(operations_, *request, *reply); });
  }
  Status ListFlows(ServerContext* context, const api::FlowsRequest* request, api::FlowList* reply) override {
    return guarded(*context, *request, [&] { return list_flows(operations_, *request, *reply); });
  }
  Status ListOffenders(ServerContext* context, const api::OffendersRequest* request, api::OffenderList* reply) override {
    return guarded(*context, *request, [&] { return list_offenders(operations_, *request, *reply); });
  }
  Status WatchEvents(ServerContext* context, const api::EventsRequest* request,
                     grpc::ServerWriter<api::EventBatch>* writer) override {
    return guarded(*context, *request, [&] {
      const StreamPlace place(streams_);
      if (Status status = place.status(); !status.ok()) return status;
      return stream_events(operations_, *context, *request,
                           [&](const api::EventBatch& batch) { return writer->Write(batch); });
    });
  }
  Status Watch(ServerContext* context, const api::WatchRequest* request,
               grpc::ServerWriter<api::WatchReply>* writer) override {
    return guarded(*context, *request, [&] { return watch(*context, *request, *writer); });
  }
  Status Why(ServerContext* context, const api::WhyRequest* request, api::WhyReply* reply) override {
    return guarded(*context, *request, [&] { return why_flow(operations_, *request, *reply); });
  }
  Status ListTalkers(ServerContext* context, const api::TalkersRequest* request, api::TalkerList* reply) override {
    if (access_ != Access::admin) return packets_are_private();
    return guarded(*context, *request, [&] {
      const StreamPlace place(streams_);
      if (Status status = place.status(); !status.ok()) return status;
      return list_talkers(operations_, *context, *request, *reply);
    });
  }
  Status Trace(ServerContext* context, const api::TraceRequest* request,
               grpc::ServerWriter<api::TraceBatch>* writer) override {
    if (access_ != Access::admin) return packets_are_private();
    return guarded(*context, *request, [&] {
      const StreamPlace place(streams_);
      if (Status status = place.status(); !status.ok()) return status;
      return stream_trace(operations_, *context, *request,
                          [&](const api::TraceBatch& batch) { return writer->Write(batch); });
    });
  }
  Status WhyPackets(ServerContext* context, grpc::ServerReaderWriter<api::WhyBatch, api::PacketBatch>* stream) override {
    return guarded(*context, api::PacketBatch(), [&] {
      const StreamPlace place(streams_);
      if (Status status = place.status(); !status.ok()) return status;
      return why_packets(
          operations_, [&](api::PacketBatch& batch) { return stream->Read(&batch); },
          [&](const api::WhyBatch& batch) { return stream->Write(batch); });
    });
  }

 private:
  template <typename Handler>
  static Status guarded(const ServerContext& context, const google::protobuf::Message& request, const Handler& handler) {
    if (Status status = check_client(context); !status.ok()) return status;
    if (Status status = check_fields(context, request); !status.ok()) return status;
    if (context.IsCancelled()) return {StatusCode::CANCELLED, "the client has gone"};
    return safely(handler);
  }

  static Status packets_are_private() {
    return {StatusCode::PERMISSION_DENIED, "packets of clients are shown on lb-cp's admin socket only (lb-cp --socket)"};
  }

  // What changes something is for the admin socket.
  template <typename Handler>
  Status changing(const ServerContext& context, const google::protobuf::Message& request, const Handler& handler) const {
    if (access_ == Access::admin) return guarded(context, request, handler);
    return {StatusCode::PERMISSION_DENIED, "this socket only shows; changes go to lb-cp's admin socket (lb-cp --socket)"};
  }

  template <typename Handler>
  static Status safely(const Handler& handler) {
    try {
      return handler();
    } catch (const std::exception& error) {
      return {StatusCode::INTERNAL, to_utf8(std::string("lb-cp failed: ") + error.what())};
    }
  }

  Status list_drops(api::DropList& reply) {
    const LiveSummary live = operations_.summary();
    for (const explain::DropTotal& total : explain::drops(live.workers)) {
      api::DropRow& row = *reply.add_drops();
      row.set_reason(std::string(total.reason));
      row.set_packets(total.packets);
      row.set_help(std::string(total.help));
    }
    return Status::OK;
  }

  Status list(const std::string& kind, const api::ListRequest& request, api::WatchReply& reply) {
    if (kind == "vips") return list_vips(request, *reply.mutable_vips());
    if (kind == "listeners") return list_listeners(request, *reply.mutable_listeners());
    if (kind == "target-groups") return list_target_groups(request, *reply.mutable_target_groups());
    if (kind == "targets") return list_targets(request, *reply.mutable_targets());
    if (kind == "workers") return list_workers(request, *reply.mutable_workers());
    if (kind == "drops") return list_drops(*reply.mutable_drops());
    return invalid("kind", quoted(kind) + " is none of vips, listeners, target-groups, targets, workers, drops");
  }

  Status watch(const ServerContext& context, const api::WatchRequest& request, grpc::ServerWriter<api::WatchReply>& writer) {
    const milliseconds interval(request.interval_ms() == 0 ? 1000 : request.interval_ms());
    if (interval < kLeastWatchInterval || interval > kMostWatchInterval)
      return invalid("interval_ms", std::to_string(interval.count()) + " is not within 100-86400000");
    const StreamPlace place(streams_);
    if (Status status = place.status(); !status.ok()) return status;
    api::ListRequest what;
    what.set_name(request.name());
    do {
      api::WatchReply reply;
      if (Status status = list(request.kind(), what, reply); !status.ok()) return status;
      if (!writer.Write(reply)) break;
    } while (wait_in_stream(context, interval));
    return {StatusCode::CANCELLED, "the watch has ended"};
  }

  Status list_vips(const api::ListRequest& request, api::VipList& reply) {
    const auto live = operations_.live();
    const Index index(*live);
    for (const Vip& vip : index.config().vips) {
      if (request.name().empty() || request.name() == vip.name) fill(*reply.add_vips(), index, vip);
    }
    if (!request.name().empty() && reply.vips().empty()) return not_found("VIP", request.name(), index.config().vips, kName);
    return Status::OK;
  }

  Status list_listeners(const api::ListRequest& request, api::ListenerList& reply) {
    const auto live = operations_.live();
    const Index index(*live);
    for (const LiveListener& listener : live->listeners) {
      if (request.name().empty() || request.name() == listener.name) fill(*reply.add_listeners(), index, listener);
    }
    if (!request.name().empty() && reply.listeners().empty())
      return not_found("listener", request.name(), live->listeners, kName);
    return Status::OK;
  }

  Status list_target_groups(const api::ListRequest& request, api::TargetGroupList& reply) {
    const auto live = operations_.live();
    const Index index(*live);
    for (const LiveGroup& group : live->groups) {
      if (request.name().empty() || request.name() == group.name) fill(*reply.add_target_groups(), index, group);
    }
    if (!request.name().empty() && reply.target_groups().empty())
      return not_found("target group", request.name(), live->groups, kName);
    fill_freeze(*live, reply);
    return Status::OK;
  }

  Status list_targets(const api::ListRequest& request, api::TargetList& reply) {
    const auto live = operations_.live();
    const Index index(*live);
    if (!request.name().empty() && index.group(request.name()) == nullptr) {
      return not_found("target group", request.name(), live->groups, kName);
    }
    const std::int64_t now = now_unix_ms();
    for (const LiveGroup& group : live->groups) {
      if (!request.name().empty() && request.name() != group.name) continue;
      for (const LiveTarget& target : group.targets) fill(*reply.add_targets(), target, now);
    }
    fill_freeze(*live, reply);
    return Status::OK;
  }

  Status list_workers(const api::ListRequest& request, api::WorkerList& reply) {
    const LiveSummary live = operations_.summary();
    const auto number = [](const LiveWorker& worker) { return std::to_string(worker.worker); };
    for (const LiveWorker& worker : live.workers) {
      if (request.name().empty() || request.name() == number(worker)) fill(*reply.add_workers(), worker);
    }
    if (!request.name().empty() && reply.workers().empty()) return not_found("worker", request.name(), live.workers, number);
    reply.set_data_plane_connected(live.data_plane_connected);
    reply.set_data_plane_note(to_utf8(live.data_plane_note));
    return Status::OK;
  }

  Status describe(const api::DescribeRequest& request, api::DescribeReply& reply) {
    const auto live = operations_.live();
    const Index index(*live);
    if (request.name().empty()) return invalid("name", "is missing");
    if (request.kind() == "vip") return describe_vip(index, request.name(), reply);
    if (request.kind() == "listener") return describe_listener(index, request.name(), reply);
    if (request.kind() == "target-group") return describe_target_group(index, request.name(), reply);
    if (request.kind() == "target") return describe_target(index, request.name(), reply);
    return invalid("kind", quoted(request.kind()) + " is none of vip, listener, target-group, target");
  }

  Status describe_vip(const Index& index, const std::string& name, api::DescribeReply& reply) {
    const Vip* vip = index.vip(name);
    if (vip == nullptr) return not_found("VIP", name, index.config().vips, kName);
    fill(*reply.mutable_vip(), index, *vip);
    for (const LiveListener* listener : index.listeners_of(name)) fill(*reply.add_listeners(), index, *listener);
    add_events(index, reply, [&](const std::string& object) { return object == "vip " + name; });
    Config shown;
    shown.vips = {*vip};
    set_config(reply, index, std::move(shown));
    return Status::OK;
  }

  Status describe_listener(const Index& index, const std::string& name, api::DescribeReply& reply) {
    const LiveListener* listener = nullptr;
    for (const LiveListener& candidate : index.live().listeners) {  // of that name one may drain beside the one in force
      if (candidate.name == name && (listener == nullptr || listener->draining)) listener = &candidate;
    }
    if (listener == nullptr) return not_found("listener", name, index.live().listeners, kName);
    fill(*reply.mutable_listener(), index, *listener);
    for (const WeightedGroup& part : listener->config.groups) {
      if (const LiveGroup* group = index.group(part.name); group != nullptr) fill(*reply.add_target_groups(), index, *group);
    }
    add_events(index, reply, [&](const std::string& object) { return object == "listener " + name; });
    Config shown;
    shown.listeners = {listener->config};
    set_config(reply, index, std::move(shown));
    return Status::OK;
  }

  Status describe_target_group(const Index& index, const std::string& name, api::DescribeReply& reply) {
    const LiveGroup* group = index.group(name);
    if (group == nullptr) return not_found("target group", name, index.live().groups, kName);
    fill(*reply.mutable_target_group(), index, *group);
    for (const LiveListener& listener : index.live().listeners) {
      const auto& parts = listener.config.groups;
      const bool uses =
          std::any_of(parts.begin(), parts.end(), [&](const WeightedGroup& part) { return part.name == name; });
      if (uses) fill(*reply.add_listeners(), index, listener);
    }
    const std::int64_t now = now_unix_ms();
    for (const LiveTarget& target : group->targets) fill(*reply.add_targets(), target, now);
    const std::string targets = "target " + name + " ";
    add_events(index, reply, [&](const std::string& object) {
      return object == "target-group " + name || object.compare(0, targets.size(), targets) == 0;
    });
    Config shown;
    if (const TargetGroup* config = index.configured_group(name); config != nullptr) shown.groups = {*config};
    set_config(reply, index, std::move(shown));
    return Status::OK;
  }

  Status describe_target(const Index& index, const std::string& name, api::DescribeReply& reply) {
    const auto address = parse_address_port(name);
    if (!address) return invalid("name", quoted(name) + " is not ADDRESS:PORT (IPv6: [ADDRESS]:PORT)");
    Config shown;
    const std::int64_t now = now_unix_ms();
    for (const LiveGroup& group : index.live().groups) {
      for (const LiveTarget& target : group.targets) {
        if (target.key.address != address->address || target.key.port != address->port) continue;
        fill(*reply.add_targets(), target, now);
        fill(*reply.add_target_groups(), index, group);
        const TargetGroup* config = index.configured_group(group.name);
        if (config == nullptr) continue;
        shown.groups.push_back(*config);
        std::erase_if(shown.groups.back().targets, [&](const Target& other) {
          return other.address != address->address || (other.port != 0 && other.port != address->port);
        });
      }
    }
    if (reply.targets().empty()) return no_target(index.live(), name);
    const std::string suffix = " " + format_address_port(address->address, address->port);
    add_events(index, reply,
               [&](const std::string& object) { return object.starts_with("target ") && object.ends_with(suffix); });
    set_config(reply, index, std::move(shown));
    return Status::OK;
  }

  static bool has_target(const LiveState& live, const AddressPort& wanted) {
    for (const LiveGroup& group : live.groups) {
      for (const LiveTarget& target : group.targets) {
        if (target.key.address == wanted.address && target.key.port == wanted.port) return true;
      }
    }
    return false;
  }

  static Status no_target(const LiveState& live, const std::string& name) {
    std::set<std::string> known;
    for (const LiveGroup& group : live.groups) {
      for (const LiveTarget& target : group.targets) known.insert(format_address_port(target.key.address, target.key.port));
    }
    return not_found("target", name, known, [](const std::string& text) { return text; });
  }

  template <typename Matches>
  static void add_events(const Index& index, api::DescribeReply& reply, const Matches& matches) {
    for (const Event& event : index.live().events) {
      if (reply.events_size() == kMaxDescribedEvents) return;
      if (matches(event.object)) fill(*reply.add_events(), event);
    }
  }

  void set_config(api::DescribeReply& reply, const Index& index, Config&& shown) {
    if (shown.vips.empty() && shown.listeners.empty() && shown.groups.empty()) return;
    shown.seed = index.config().seed;
    reply.set_config(to_utf8(operations_.render(shown)));
  }

  template <typename Reply>
  static void fill_freeze(const LiveSummary& live, Reply& reply) {
    if (!live.freeze.frozen()) return;
    reply.mutable_freeze()->set_since_unix_ms(static_cast<std::uint64_t>(live.freeze.since_unix_ms));
    reply.mutable_freeze()->set_note(live.freeze.note);
  }

  // Without terms: undrains.
  Status drain(const api::DrainRequest& request, const DrainTerms* terms, api::DrainReply& reply) {
    const auto address = parse_address_port(request.target());
    if (!address) return invalid("target", quoted(request.target()) + " is not ADDRESS:PORT (IPv6: [ADDRESS]:PORT)");
    const std::string& group = request.target_group();
    const auto in_group = group.empty() ? std::nullopt : std::optional<std::string>(group);
    const auto drained =
        terms != nullptr ? operations_.drain(*address, in_group, *terms) : operations_.undrain(*address, in_group);
    if (!drained) {
      const auto live = operations_.live();
      const Index index(*live);
      if (!group.empty() && index.group(group) == nullptr) return not_found("target group", group, live->groups, kName);
      if (!has_target(*live, *address)) return no_target(*live, request.target());
      return {StatusCode::NOT_FOUND, to_utf8(drained.error())};
    }
    const std::int64_t now = now_unix_ms();
    for (const LiveTarget& target : operations_.targets(*drained)) fill(*reply.add_targets(), target, now);
    return Status::OK;
  }

  Operations& operations_;
  const Access access_;
  std::atomic<int> streams_{0};
};

}  // namespace

std::unique_ptr<grpc::Service> make_service(Operations& operations, Access access) {
  return std::make_unique<Service>(operations, access);
}

}  // namespace lb::cp
