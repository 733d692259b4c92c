// ListTalkers: who sends most, by the packets that workers write down for a moment.
#include "cp/explain/talkers.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "cp/api/flow_calls.h"
#include "cp/api/refusals.h"
#include "cp/api/rows.h"
#include "cp/api/streams.h"
#include "cp/api/trace_calls.h"
#include "proto/api.pb.h"

namespace lb::cp {
namespace {

using grpc::Status;
using grpc::StatusCode;
using std::chrono::milliseconds;

constexpr milliseconds kLookEvery{20};  // a ring holds 50 ms of the highest rate
constexpr std::uint32_t kMostRows = 10'000;
constexpr std::uint32_t kUsualRows = 20;

bool wanted(const api::TalkersRequest& request, const explain::Talker& talker) {
  return (request.listener().empty() || request.listener() == talker.listener) &&
         (request.target_group().empty() || request.target_group() == talker.target_group) &&
         (request.target().empty() || request.target() == talker.target) &&
         (request.state().empty() || request.state() == to_string(talker.state));
}

// One row for each client, with what all of its flows have in common.
std::vector<api::TalkerRow> by_client(const std::vector<api::TalkerRow>& flows) {
  std::map<std::string, api::TalkerRow> clients;
  for (const api::TalkerRow& flow : flows) {
    api::TalkerRow& row = clients[flow.client()];
    if (row.flows() == 0) {
      row = flow;
      row.clear_destination();
      row.clear_state();
      row.set_flows(1);
      continue;
    }
    row.set_packets(row.packets() + flow.packets());
    row.set_bytes(row.bytes() + flow.bytes());
    row.set_flows(row.flows() + 1);
    if (row.protocol() != flow.protocol()) row.clear_protocol();
    if (row.listener() != flow.listener()) row.clear_listener();
    if (row.target_group() != flow.target_group()) row.clear_target_group();
    if (row.target() != flow.target()) row.clear_target();
  }
  std::vector<api::TalkerRow> rows;
  for (auto& [client, row] : clients) rows.push_back(std::move(row));
  std::ranges::stable_sort(rows, [](const auto& a, const auto& b) { return a.bytes() > b.bytes(); });
  return rows;
}

}  // namespace

Status list_talkers(Operations& operations, const grpc::ServerContext& context, const api::TalkersRequest& request,
                    api::TalkerList& reply) {
  const milliseconds time(request.sample_ms() == 0 ? 1000 : request.sample_ms());
  if (time < milliseconds(100) || time > milliseconds(10'000))
    return invalid("sample_ms", std::to_string(time.count()) + " is not within 100-10000");
  if (request.max_rows() > kMostRows) return invalid("max_rows", std::to_string(request.max_rows()) + " is above 10000");
  if (!request.state().empty() && !is_flow_state(request.state()))
    return invalid("state", quoted(request.state()) + " is none of " + flow_states());
  api::TraceRequest filter;
  filter.set_protocol(request.protocol());
  filter.set_client(request.client());
  filter.set_vip(request.vip());
  filter.set_port(request.port());
  filter.set_packets_per_second(abi::kTracePacketsPerSecond);
  abi::TraceOrder order;
  if (Status status = read_order(filter, order); !status.ok()) return status;

  const auto tracing = operations.start_trace(order);
  if (!tracing) return {StatusCode::FAILED_PRECONDITION, to_utf8(tracing.error())};
  const auto begin = std::chrono::steady_clock::now();
  explain::TalkerBook book;
  std::uint64_t left_out = 0;
  std::uint64_t limited = 0;
  do {
    auto batch = (*tracing)->read();
    if (!batch) return {StatusCode::ABORTED, to_utf8(batch.error())};
    left_out += batch->lost;
    limited = batch->limited;
    reply.set_packets_read(reply.packets_read() + batch->packets.size());
    if (batch->packets.empty()) continue;
    const auto snapshot = operations.explain_context().snapshot;
    for (const explain::TracedPacket& packet : batch->packets) book.add(snapshot.get(), packet);
  } while (std::chrono::steady_clock::now() < begin + time && wait_in_stream(context, kLookEvery));
  const auto end = std::chrono::steady_clock::now();
  reply.set_packets(reply.packets_read() + left_out + limited);
  reply.set_sample_ms(static_cast<std::uint32_t>(std::chrono::duration_cast<milliseconds>(end - begin).count()));

  const double scale =
      reply.packets_read() == 0 ? 1 : static_cast<double>(reply.packets()) / static_cast<double>(reply.packets_read());
  const auto estimate = [&](std::uint64_t counted) {
    return static_cast<std::uint64_t>(std::llround(static_cast<double>(counted) * scale));
  };
  const auto now = std::chrono::nanoseconds(end.time_since_epoch()).count();
  std::vector<api::TalkerRow> rows;
  for (const explain::Talker& talker : book.flows(operations.explain_context(), static_cast<std::uint64_t>(now))) {
    if (!wanted(request, talker)) continue;
    api::TalkerRow& row = rows.emplace_back();
    row.set_protocol(explain::protocol_text(talker.key.protocol));
    row.set_client(request.by_client() ? format_address(talker.key.source)
                                       : format_address_port(talker.key.source, talker.key.source_port));
    row.set_destination(format_address_port(talker.key.destination, talker.key.destination_port));
    row.set_listener(to_utf8(talker.listener));
    row.set_target_group(to_utf8(talker.target_group));
    row.set_target(talker.target);
    if (talker.state != FlowState::empty) row.set_state(to_string(talker.state));
    row.set_packets(estimate(talker.packets));
    row.set_bytes(estimate(talker.bytes));
  }
  if (request.by_client()) rows = by_client(rows);
  reply.set_rows(rows.size());
  const std::size_t most = request.max_rows() == 0 ? kUsualRows : request.max_rows();
  for (std::size_t i = 0; i < std::min(most, rows.size()); ++i) *reply.add_talkers() = std::move(rows[i]);
  return Status::OK;
}

}  // namespace lb::cp
