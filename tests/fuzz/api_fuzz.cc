// Any bytes as a message of the API: each call answers, with what was asked for or with a reason, whatever the message says.
// A change of the configuration gives one that loads, or a violation; `why` goes through snapshot and tables like a worker.
//
// Input: one byte that says which call, then the message as it stands on the wire.
#include <grpcpp/grpcpp.h>

#include <utility>

#include "cp/api/config_calls.h"
#include "cp/api/flow_calls.h"
#include "cp/api/why_calls.h"
#include "cp/config/diff.h"
#include "cp/config/edit.h"
#include "cp/config/load.h"
#include "cp/config/render.h"
#include "proto/api.pb.h"
#include "tests/fuzz/fleet.h"
#include "tests/unit/api/fake_operations.h"

namespace {

using namespace lb::cp;
namespace api = lb::api;
using lb::fuzz::require;

// Changes are judged as lb-cp does it; nothing is published.
class Judge final : public api_test::FakeOperations {
 public:
  Judge() {
    context.snapshot = lb::fuzz::snapshots().front();
    earlier_context.snapshot = lb::fuzz::snapshots()[1];
    for (auto* one : {&context, &earlier_context}) {
      one->worker_tables = {lines_};
      one->translations = {translations_};
    }
  }
  ApplyOutcome apply(const std::string& text, const std::string& file, const ApplyOptions&) override {
    return judge(text, file);
  }
  ApplyOutcome diff(const std::string& text, const std::string& file) override { return judge(text, file); }
  ApplyOutcome edit(const Edit& change, const ApplyOptions&) override {
    require(!describe(change).empty(), "a change can be told");
    const auto changed = lb::cp::edit(*state.config, change);
    if (!changed) return {.violations = {changed.error()}};
    return judge(lb::cp::render(*changed), "edit");
  }

 private:
  ApplyOutcome judge(const std::string& text, const std::string& file) {
    LoadResult loaded = load(text, file);
    require(loaded.config.has_value() == loaded.violations.empty(), "a Config exactly when there is no violation");
    ApplyOutcome judged{.violations = std::move(loaded.violations), .warnings = std::move(loaded.warnings)};
    if (loaded.config) judged.changes = lb::cp::diff(*state.config, *loaded.config);
    return judged;
  }

  std::vector<lb::abi::FlowLine> lines_{4};
  std::vector<lb::abi::Translation> translations_{4};
};

template <typename Message>
bool parsed(Message& message, const std::uint8_t* data, std::size_t size) {
  return message.ParseFromArray(data, static_cast<int>(size));
}

// `call` takes the request and a reply. A refusal says why; a reply stands on the wire.
template <typename Request, typename Reply, typename Call>
void ask(const std::uint8_t* data, std::size_t size, const Call& call) {
  Request request;
  Reply reply;
  if (!parsed(request, data, size)) return;
  const grpc::Status status = call(request, reply);
  require(status.ok() || !status.error_message().empty(), "a refusal says why");
  std::string wire;
  require(reply.SerializeToString(&wire), "the reply can be sent");
}

void ask_about_packets(Judge& judge, const std::uint8_t* data, std::size_t size) {
  bool asked = false;
  int answers = 0;
  int packets = 0;
  const grpc::Status status = why_packets(
      judge,
      [&](api::PacketBatch& batch) {
        if (std::exchange(asked, true) || !parsed(batch, data, size)) return false;
        packets = batch.packets_size();
        return true;
      },
      [&](const api::WhyBatch& batch) {
        answers += batch.answers_size();
        return true;
      });
  require(status.ok() ? answers == packets || answers == 0 : !status.error_message().empty(), "an answer for each packet");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::uint8_t call = data[0] % 9;
  const std::uint8_t* rest = data + 1;
  const std::size_t length = size - 1;
  Judge judge;
  const grpc::ServerContext context;
  switch (call) {
    case 0:
      ask<api::ApplyRequest, api::ApplyReply>(
          rest, length, [&](const auto& request, auto& reply) { return apply_config(judge, context, request, reply); });
      break;
    case 1:
      ask<api::DiffRequest, api::DiffReply>(
          rest, length, [&](const auto& request, auto& reply) { return diff_config(judge, request, reply); });
      break;
    case 2:
      ask<api::EditRequest, api::ApplyReply>(
          rest, length, [&](const auto& request, auto& reply) { return edit_config(judge, context, request, reply); });
      break;
    case 3:
      ask<api::RollbackRequest, api::ApplyReply>(
          rest, length, [&](const auto& request, auto& reply) { return roll_back(judge, context, request, reply); });
      break;
    case 4:
      ask<api::ExportRequest, api::ExportReply>(
          rest, length, [&](const auto& request, auto& reply) { return export_config(judge, request, reply); });
      break;
    case 5:
      ask<api::WhyRequest, api::WhyReply>(rest, length,
                                          [&](const auto& request, auto& reply) { return why_flow(judge, request, reply); });
      break;
    case 6:
      ask<api::FlowsRequest, api::FlowList>(
          rest, length, [&](const auto& request, auto& reply) { return list_flows(judge, request, reply); });
      break;
    case 7:
      ask<api::PlanRequest, api::PlanReply>(
          rest, length, [&](const auto& request, auto& reply) { return plan_config(judge, request, reply); });
      break;
    default: ask_about_packets(judge, rest, length);
  }
  return 0;
}
