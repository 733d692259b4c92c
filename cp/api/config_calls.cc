#include "cp/api/config_calls.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <span>
#include <utility>

#include "cp/api/refusals.h"
#include "cp/api/rows.h"
#include "proto/api.pb.h"

namespace lb::cp {

namespace {

using grpc::Status;
using grpc::StatusCode;
using std::chrono::milliseconds;

constexpr std::uint32_t kDefaultTimeoutMs = 5'000;
constexpr std::uint32_t kMaxTimeoutMs = 3'600'000;
constexpr milliseconds kReplyTime{200};  // before the client's deadline: an outcome told late is an outcome lost

template <typename Reply>
void fill_outcome(Reply& reply, const ApplyOutcome& outcome, std::size_t listed) {
  for (const Violation& violation : outcome.violations) fill(*reply.add_violations(), violation);
  for (const Violation& warning : outcome.warnings) fill(*reply.add_warnings(), warning);
  for (const Change& change : std::span(outcome.changes).first(listed)) fill(*reply.add_changes(), change);
}

void fill_apply(api::ApplyReply& reply, const ApplyOutcome& outcome, const api::ApplyTerms& terms) {
  const std::size_t all = outcome.changes.size();
  const std::size_t listed = terms.max_changes() == 0 ? all : std::min<std::size_t>(all, terms.max_changes());
  fill_outcome(reply, outcome, listed);
  reply.set_unlisted_changes(static_cast<std::uint32_t>(all - listed));
  reply.set_epoch(outcome.generation.epoch);
  reply.set_generation(outcome.generation.n);
  reply.set_active(outcome.active);
  reply.set_note(to_utf8(outcome.note));
  reply.set_refused(to_utf8(outcome.refused));
}

Status read_terms(const grpc::ServerContext& context, const api::ApplyTerms& terms, ApplyOptions& options) {
  if (terms.timeout_ms() > kMaxTimeoutMs) {
    return invalid("terms.timeout_ms", std::to_string(terms.timeout_ms()) + " is above " + std::to_string(kMaxTimeoutMs));
  }
  const milliseconds timeout(terms.timeout_ms() == 0 ? kDefaultTimeoutMs : terms.timeout_ms());
  const auto left =
      std::chrono::duration_cast<milliseconds>(context.deadline() - std::chrono::system_clock::now()) - kReplyTime;
  options.timeout = std::max(std::min(timeout, left), milliseconds(0));
  options.force = terms.force();
  if (terms.has_if_generation())
    options.if_generation = abi::Generation{terms.if_generation().epoch(), terms.if_generation().generation()};
  return Status::OK;
}

TargetEdit target_edit(EditAction action, const api::TargetEdit& from) {
  TargetEdit edit{.action = action, .group = from.target_group(), .target = from.target()};
  if (from.has_weight()) edit.weight = from.weight();
  return edit;
}

// Nothing where the request asks for none or for several changes.
std::optional<Edit> read_edit(const api::EditRequest& request) {
  std::vector<Edit> edits;
  if (request.has_add_target()) edits.emplace_back(target_edit(EditAction::add, request.add_target()));
  if (request.has_set_target()) edits.emplace_back(target_edit(EditAction::set, request.set_target()));
  if (request.has_remove_target()) edits.emplace_back(target_edit(EditAction::remove, request.remove_target()));
  if (request.has_add_listener()) {
    const api::ListenerEdit& from = request.add_listener();
    edits.emplace_back(ListenerEdit{.action = EditAction::add,
                                    .name = from.name(),
                                    .vip = from.vip(),
                                    .protocol = from.protocol(),
                                    .port = from.port(),
                                    .target_groups = from.target_groups()});
  }
  if (!request.remove_listener().empty())
    edits.emplace_back(ListenerEdit{.action = EditAction::remove, .name = request.remove_listener()});
  return edits.size() == 1 ? std::optional(std::move(edits.front())) : std::nullopt;
}

void fill_record(api::HistoryRow& row, const ConfigRecord& record, bool in_force) {
  row.set_number(record.number);
  row.set_unix_ms(static_cast<std::uint64_t>(std::max<std::int64_t>(record.unix_ms, 0)));
  row.set_epoch(record.generation.epoch);
  row.set_generation(record.generation.n);
  row.set_cause(to_utf8(record.cause));
  row.set_file(to_utf8(record.file));
  row.set_changes(static_cast<std::uint32_t>(record.changes));
  row.set_in_force(in_force);
}

}  // namespace

Status invalid(const std::string& field, const std::string& text) {
  return {StatusCode::INVALID_ARGUMENT, field + ": " + text};
}

std::string quoted(const std::string& text) {
  return "`" + to_utf8(text) + "`";
}

Status apply_config(Operations& operations, const grpc::ServerContext& context, const api::ApplyRequest& request,
                    api::ApplyReply& reply) {
  ApplyOptions options;
  if (Status status = read_terms(context, request.terms(), options); !status.ok()) return status;
  fill_apply(reply, operations.apply(request.text(), request.file(), options), request.terms());
  return Status::OK;
}

Status diff_config(Operations& operations, const api::DiffRequest& request, api::DiffReply& reply) {
  const ApplyOutcome outcome = operations.diff(request.text(), request.file());
  fill_outcome(reply, outcome, outcome.changes.size());
  return Status::OK;
}

Status edit_config(Operations& operations, const grpc::ServerContext& context, const api::EditRequest& request,
                   api::ApplyReply& reply) {
  ApplyOptions options;
  if (Status status = read_terms(context, request.terms(), options); !status.ok()) return status;
  const auto edit = read_edit(request);
  if (!edit) {
    return {StatusCode::INVALID_ARGUMENT,
            "exactly one of add_target, set_target, remove_target, add_listener, remove_listener is to be given"};
  }
  fill_apply(reply, operations.edit(*edit, options), request.terms());
  return Status::OK;
}

Status list_history(Operations& operations, api::HistoryReply& reply) {
  for (const ConfigRecord& record : operations.history()) {
    const bool first = reply.configurations().empty();
    fill_record(*reply.add_configurations(), record, first);
  }
  return Status::OK;
}

Status roll_back(Operations& operations, const grpc::ServerContext& context, const api::RollbackRequest& request,
                 api::ApplyReply& reply) {
  ApplyOptions options;
  if (Status status = read_terms(context, request.terms(), options); !status.ok()) return status;
  if (request.number() == 0) return invalid("number", "is missing; lbctl history lists them");
  const auto outcome = operations.rollback(request.number(), options);
  if (!outcome) return {StatusCode::NOT_FOUND, to_utf8(outcome.error())};
  fill_apply(reply, *outcome, request.terms());
  return Status::OK;
}

Status export_config(Operations& operations, const api::ExportRequest& request, api::ExportReply& reply) {
  const auto history = operations.history();
  auto found = operations.config_text(request.number());
  if (!found) return {StatusCode::NOT_FOUND, to_utf8(found.error())};
  fill_record(*reply.mutable_configuration(), found->record,
              !history.empty() && history.front().number == found->record.number);
  reply.set_text(std::move(found->text));
  return Status::OK;
}

}  // namespace lb::cp
