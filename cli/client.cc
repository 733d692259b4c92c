#include "cli/client.h"

#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "proto/api.grpc.pb.h"
#include "proto/api.pb.h"

namespace lb::cli {

namespace {

// errno of a bare connect to the socket: gRPC tells only that it failed.
int connect_error(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return ENAMETOOLONG;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return errno;
  const int error = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ? 0 : errno;
  ::close(fd);
  return error;
}

std::string unreachable(const std::string& path) {
  switch (const int error = connect_error(path)) {
    case 0: return "lb-cp at " + path + " went away during the request: try again";
    case ENOENT:
    case ECONNREFUSED: return "cannot reach lb-cp at " + path + ": is it running?";
    case EACCES:
    case EPERM: return "cannot reach lb-cp at " + path + ": permission denied; is this user in the socket's group?";
    case ENAMETOOLONG: return "cannot reach lb-cp at " + path + ": the path of a socket has at most 107 bytes";
    default: return "cannot reach lb-cp at " + path + ": " + std::strerror(error);
  }
}

// Digits of a dotted version compare as numbers; what follows them ("-rc1") does not count.
int order(const std::string& left, const std::string& right) {
  std::size_t a = 0;
  std::size_t b = 0;
  const auto next = [](const std::string& text, std::size_t& at) {
    unsigned long value = 0;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9')
      value = value * 10 + static_cast<unsigned long>(text[at++] - '0');
    at = at < text.size() && text[at] == '.' ? at + 1 : text.size();
    return value;
  };
  while (a < left.size() || b < right.size()) {
    const unsigned long x = next(left, a);
    const unsigned long y = next(right, b);
    if (x != y) return x < y ? -1 : 1;
  }
  return 0;
}

}  // namespace

std::string compare_versions(const std::string& client, const std::string& server) {
  const int which = order(client, server);
  if (which == 0) return {};
  return "lbctl " + client + (which < 0 ? " is older than lb-cp " : " is newer than lb-cp ") + server;
}

struct Client::Impl {
  std::string path;
  std::chrono::milliseconds timeout;
  std::unique_ptr<api::LoadBalancer::Stub> stub;

  void prepare(grpc::ClientContext& context, std::chrono::milliseconds time) const {
    context.set_deadline(std::chrono::system_clock::now() + time);
    identify(context);
  }

  static void identify(grpc::ClientContext& context) {
    context.AddMetadata("lb-api", std::to_string(static_cast<int>(api::API_CURRENT)));
    context.AddMetadata("lb-version", LB_VERSION);
  }

  [[nodiscard]] std::string explain(const grpc::Status& status, std::chrono::milliseconds time) const {
    switch (status.error_code()) {
      case grpc::StatusCode::UNAVAILABLE: return unreachable(path);
      case grpc::StatusCode::DEADLINE_EXCEEDED:
        return "lb-cp at " + path + " did not answer within " + std::to_string(time.count()) + " ms (--timeout)";
      case grpc::StatusCode::UNIMPLEMENTED: {
        grpc::ClientContext context;
        prepare(context, timeout);
        api::VersionReply reply;
        if (!stub->GetVersion(&context, {}, &reply).ok()) break;
        const std::string difference = compare_versions(LB_VERSION, reply.version());
        return "lb-cp does not know this request" + (difference.empty() ? "" : ": " + difference);
      }
      default: break;
    }
    return status.error_message();
  }

  template <typename Reply, typename Request>
  Result<Reply> call(grpc::Status (api::LoadBalancer::Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
                     const Request& request, std::chrono::milliseconds extra = {}) {
    const std::chrono::milliseconds time = timeout + extra;
    grpc::ClientContext context;
    prepare(context, time);
    Reply reply;
    const grpc::Status status = (stub.get()->*method)(&context, request, &reply);
    if (!status.ok()) return tl::unexpected(explain(status, time));
    return reply;
  }

  template <typename Reply, typename Request>
  tl::expected<void, std::string> stream(
      std::unique_ptr<grpc::ClientReader<Reply>> (api::LoadBalancer::Stub::*method)(grpc::ClientContext*, const Request&),
      const Request& request, const std::function<bool(const Reply&)>& take) {
    grpc::ClientContext context;
    identify(context);
    const auto reader = (stub.get()->*method)(&context, request);
    Reply reply;
    while (reader->Read(&reply)) {
      if (take(reply)) continue;
      context.TryCancel();
      return {};
    }
    const grpc::Status status = reader->Finish();
    if (status.ok()) return {};
    if (status.error_code() == grpc::StatusCode::CANCELLED) return tl::unexpected(unreachable(path));  // lb-cp ends
    return tl::unexpected(explain(status, timeout));
  }
};

namespace {
api::ListRequest list_of(const std::string& name) {
  api::ListRequest request;
  request.set_name(name);
  return request;
}
}  // namespace

Client::Client(std::string socket_path, std::chrono::milliseconds timeout) : impl_(std::make_unique<Impl>()) {
  impl_->path = std::move(socket_path);
  impl_->timeout = timeout;
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Without an authority the path would become the HTTP/2 host, and some paths are not a valid one.
  arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "lb-cp");
  impl_->stub = api::LoadBalancer::NewStub(
      grpc::CreateCustomChannel("unix:" + impl_->path, grpc::InsecureChannelCredentials(), arguments));
}

Client::~Client() = default;

using Stub = api::LoadBalancer::Stub;

Client::Result<api::VersionReply> Client::version() {
  api::VersionRequest request;
  request.set_client_version(LB_VERSION);
  return impl_->call(&Stub::GetVersion, request);
}
Client::Result<api::ApplyReply> Client::apply(const api::ApplyRequest& request) {
  return impl_->call(&Stub::Apply, request, kWorkTime);
}
Client::Result<api::DiffReply> Client::diff(const api::DiffRequest& request) {
  return impl_->call(&Stub::Diff, request, kWorkTime);
}
Client::Result<api::ApplyReply> Client::edit(const api::EditRequest& request) {
  return impl_->call(&Stub::Edit, request, kWorkTime);
}
Client::Result<api::HistoryReply> Client::history() {
  return impl_->call(&Stub::History, api::HistoryRequest());
}
Client::Result<api::ApplyReply> Client::rollback(const api::RollbackRequest& request) {
  return impl_->call(&Stub::Rollback, request, kWorkTime);
}
Client::Result<api::ExportReply> Client::export_config(const api::ExportRequest& request) {
  return impl_->call(&Stub::Export, request);
}
Client::Result<api::VipList> Client::vips(const std::string& name) {
  return impl_->call(&Stub::ListVips, list_of(name));
}
Client::Result<api::ListenerList> Client::listeners(const std::string& name) {
  return impl_->call(&Stub::ListListeners, list_of(name));
}
Client::Result<api::TargetGroupList> Client::target_groups(const std::string& name) {
  return impl_->call(&Stub::ListTargetGroups, list_of(name));
}
Client::Result<api::TargetList> Client::targets(const std::string& target_group) {
  return impl_->call(&Stub::ListTargets, list_of(target_group));
}
Client::Result<api::WorkerList> Client::workers(const std::string& name) {
  return impl_->call(&Stub::ListWorkers, list_of(name));
}
Client::Result<api::DropList> Client::drops() {
  return impl_->call(&Stub::ListDrops, api::ListRequest());
}
Client::Result<api::DescribeReply> Client::describe(const api::DescribeRequest& request) {
  return impl_->call(&Stub::Describe, request);
}
Client::Result<api::DrainReply> Client::drain(const api::DrainRequest& request) {
  return impl_->call(&Stub::Drain, request);
}
Client::Result<api::FreezeReply> Client::freeze(const api::FreezeRequest& request) {
  return impl_->call(&Stub::Freeze, request);
}
Client::Result<api::DrainReply> Client::undrain(const api::DrainRequest& request) {
  return impl_->call(&Stub::Undrain, request);
}
Client::Result<api::PlanReply> Client::plan(const api::PlanRequest& request) {
  return impl_->call(&Stub::Plan, request, kWorkTime);
}
Client::Result<api::FlowList> Client::flows(const api::FlowsRequest& request) {
  return impl_->call(&Stub::ListFlows, request);
}
Client::Result<api::TalkerList> Client::talkers(const api::TalkersRequest& request) {
  return impl_->call(&Stub::ListTalkers, request, kWorkTime);
}
Client::Result<api::OffenderList> Client::offenders(const api::OffendersRequest& request) {
  return impl_->call(&Stub::ListOffenders, request);
}
tl::expected<void, std::string> Client::events(const api::EventsRequest& request,
                                               const std::function<bool(const api::EventBatch&)>& take) {
  return impl_->stream(&Stub::WatchEvents, request, take);
}
tl::expected<void, std::string> Client::watch(const api::WatchRequest& request,
                                              const std::function<bool(const api::WatchReply&)>& take) {
  return impl_->stream(&Stub::Watch, request, take);
}
tl::expected<void, std::string> Client::trace(const api::TraceRequest& request,
                                              const std::function<bool(const api::TraceBatch&)>& take) {
  return impl_->stream(&Stub::Trace, request, take);
}
tl::expected<void, std::string> Client::why_packets(const std::function<bool(api::PacketBatch&)>& next,
                                                    const std::function<bool(const api::WhyBatch&)>& take) {
  grpc::ClientContext context;
  Impl::identify(context);
  const auto stream = impl_->stub->WhyPackets(&context);
  api::PacketBatch batch;
  api::WhyBatch answers;
  bool goes_on = true;
  while (goes_on && next(batch)) {
    goes_on = stream->Write(batch) && stream->Read(&answers) && take(answers);
    batch.Clear();
  }
  stream->WritesDone();
  while (stream->Read(&answers)) continue;
  const grpc::Status status = stream->Finish();
  if (!status.ok()) return tl::unexpected(impl_->explain(status, impl_->timeout));
  return {};
}
Client::Result<api::WhyReply> Client::why(const api::WhyRequest& request) {
  return impl_->call(&Stub::Why, request);
}

}  // namespace lb::cli
