// lb-cp, as seen over its Unix socket. Every call has a deadline; every error is a sentence for the operator.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <tl/expected.hpp>

#include "cli/messages.h"

namespace lb::cli {

class Client {
 public:
  // `timeout`: of a call. what changes the configuration and diff get kWorkTime more, for lb-cp to read and compile the
  // file.
  Client(std::string socket_path, std::chrono::milliseconds timeout);
  ~Client();

  static constexpr std::chrono::seconds kWorkTime{10};

  template <typename Reply>
  using Result = tl::expected<Reply, std::string>;

  Result<api::VersionReply> version();
  Result<api::ApplyReply> apply(const api::ApplyRequest& request);
  Result<api::DiffReply> diff(const api::DiffRequest& request);
  Result<api::ApplyReply> edit(const api::EditRequest& request);
  Result<api::HistoryReply> history();
  Result<api::ApplyReply> rollback(const api::RollbackRequest& request);
  Result<api::ExportReply> export_config(const api::ExportRequest& request);
  Result<api::VipList> vips(const std::string& name);
  Result<api::ListenerList> listeners(const std::string& name);
  Result<api::TargetGroupList> target_groups(const std::string& name);
  Result<api::TargetList> targets(const std::string& target_group);
  Result<api::WorkerList> workers(const std::string& name);
  Result<api::DropList> drops();
  Result<api::DescribeReply> describe(const api::DescribeRequest& request);
  Result<api::DrainReply> drain(const api::DrainRequest& request);
  Result<api::DrainReply> undrain(const api::DrainRequest& request);
  Result<api::FreezeReply> freeze(const api::FreezeRequest& request);
  Result<api::WhyReply> why(const api::WhyRequest& request);
  tl::expected<void, std::string> trace(const api::TraceRequest& request,
                                        const std::function<bool(const api::TraceBatch&)>& take);
  // `next` fills a batch, or says that there is none left; `take` gets its answers. No deadline.
  tl::expected<void, std::string> why_packets(const std::function<bool(api::PacketBatch&)>& next,
                                              const std::function<bool(const api::WhyBatch&)>& take);
  Result<api::PlanReply> plan(const api::PlanRequest& request);
  Result<api::TalkerList> talkers(const api::TalkersRequest& request);
  Result<api::FlowList> flows(const api::FlowsRequest& request);
  Result<api::OffenderList> offenders(const api::OffendersRequest& request);
  // Streams: `take` gets each message as it comes and says whether to go on. Where `take` ended it, or the server had no
  // more to tell, there is no error. No deadline.
  tl::expected<void, std::string> events(const api::EventsRequest& request,
                                         const std::function<bool(const api::EventBatch&)>& take);
  tl::expected<void, std::string> watch(const api::WatchRequest& request,
                                        const std::function<bool(const api::WatchReply&)>& take);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// "lbctl 0.1.0 is older than lb-cp 0.2.0", or empty where the versions are equal.
std::string compare_versions(const std::string& client, const std::string& server);

}  // namespace lb::cli
