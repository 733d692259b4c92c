#include "cp/api/why_calls.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "cp/api/flow_question.h"
#include "cp/api/refusals.h"
#include "cp/api/rows.h"
#include "cp/explain/packets.h"
#include "cp/explain/why.h"
#include "proto/api.pb.h"

namespace lb::cp {

namespace {

using grpc::Status;
using grpc::StatusCode;

constexpr int kMostPackets = 10'000;  // of a batch

std::uint64_t now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::nanoseconds(now).count());
}

std::string configuration_text(const ConfigRecord& record) {
  return "number " + std::to_string(record.number) + " (" + record.cause + (record.file.empty() ? "" : ", " + record.file) +
         "), from generation " + std::to_string(record.generation.epoch) + "." + std::to_string(record.generation.n);
}

// What an earlier configuration is asked with; the one in force where `generation` is empty.
Status context_of(Operations& operations, const std::string& generation, explain::Context& context,
                  std::string& configuration) {
  if (generation.empty()) {
    context = operations.explain_context();
    return Status::OK;
  }
  const auto point = read_point(generation);
  if (!point) return invalid(point.error().field, point.error().text);
  auto explained = operations.explain_by(*point);
  if (!explained) return {StatusCode::NOT_FOUND, "generation: " + to_utf8(explained.error())};
  context = std::move(explained->context);
  configuration = to_utf8(configuration_text(explained->record));
  return Status::OK;
}

}  // namespace

Status why_flow(Operations& operations, const api::WhyRequest& request, api::WhyReply& reply) {
  const auto key = read_flow(request);
  if (!key) return invalid(key.error().field, key.error().text);
  const auto connection_id = read_connection_id(request);
  if (!connection_id) return invalid(connection_id.error().field, connection_id.error().text);
  const explain::WhyOptions options{.tcp_flags = std::nullopt, .connection_id = *connection_id};
  explain::Context context;
  std::string configuration;
  if (Status status = context_of(operations, request.generation(), context, configuration); !status.ok()) return status;
  fill_reply(reply, context, *key, explain::why(context, *key, now_ns(), options));
  if (configuration.empty()) return Status::OK;
  reply.set_configuration(configuration);
  const explain::Context in_force = operations.explain_context();
  fill_reply(*reply.mutable_in_force(), in_force, *key, explain::why(in_force, *key, now_ns(), options));
  return Status::OK;
}

Status why_packets(Operations& operations, const std::function<bool(api::PacketBatch&)>& read,
                   const std::function<bool(const api::WhyBatch&)>& write) {
  std::optional<explain::PacketExplainer> explainer;
  explain::Context context;
  std::string configuration;
  std::uint64_t number = 0;
  api::PacketBatch batch;
  while (read(batch)) {
    if (batch.packets_size() > kMostPackets)
      return invalid("packets", std::to_string(batch.packets_size()) + " in one batch are more than 10000");
    if (!explainer) {
      if (Status status = context_of(operations, batch.generation(), context, configuration); !status.ok()) return status;
      if (context.snapshot == nullptr)
        return {StatusCode::FAILED_PRECONDITION, "no configuration has been accepted yet, so there is no snapshot"};
      explainer.emplace(context, now_ns());
    }
    api::WhyBatch answers;
    for (const api::Packet& packet : batch.packets()) {
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(packet.frame().data());
      const explain::PacketAnswer answer = explainer->ask({bytes, packet.frame().size()}, packet.at_ns());
      api::WhyReply& reply = *answers.add_answers();
      fill_reply(reply, context, answer.key, answer.answer);
      reply.set_n(number++);
      if (answer.out_length != 0) reply.set_out_len(answer.out_length);
      if (!configuration.empty()) reply.set_configuration(configuration);
    }
    if (!write(answers)) break;
  }
  return Status::OK;
}

}  // namespace lb::cp
