#include "cp/api/flow_calls.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "cp/api/refusals.h"
#include "cp/api/rows.h"
#include "cp/explain/rates.h"
#include "dp/lb/flow_census.h"
#include "proto/api.pb.h"

namespace lb::cp {

namespace {

using grpc::Status;

constexpr std::uint32_t kUsualLines = 1U << 19;  // 32 MiB of a flow table are read in some 10 ms; 10 million flows have 2^21

// Which groups a listener sends to, and the listeners of each group.
std::string listeners_of(const LiveState& live, const std::string& group) {
  std::string text;
  for (const LiveListener& listener : live.listeners) {
    const auto& parts = listener.config.groups;
    if (std::ranges::find(parts, group, &WeightedGroup::name) != parts.end())
      text += (text.empty() ? "" : ",") + listener.name;
  }
  return text;
}

bool sends_to(const LiveState& live, const std::string& listener, const std::string& group) {
  return std::ranges::any_of(live.listeners, [&](const LiveListener& candidate) {
    const auto& parts = candidate.config.groups;
    return candidate.name == listener && std::ranges::find(parts, group, &WeightedGroup::name) != parts.end();
  });
}

std::optional<FlowState> state_of(const std::string& text) {
  for (std::uint8_t i = 1; i < kFlowStateCount; ++i) {
    if (text == to_string(static_cast<FlowState>(i))) return static_cast<FlowState>(i);
  }
  return std::nullopt;
}

void fill_fates(api::PlannedGroup& row, const explain::FlowFates& flows) {
  row.set_flows_stay(flows.stay);
  row.set_flows_move(flows.move);
  row.set_flows_drain(flows.drain);
  row.set_flows_reset(flows.reset);
}

void fill_target(api::PlannedTarget& row, const explain::PlannedTarget& target) {
  row.set_address(format_address_port(target.key.address, target.key.port));
  row.set_change(target.change);
  row.set_share_before(target.share_before);
  row.set_share_after(target.share_after);
  row.set_slots_gained(target.slots_gained);
  row.set_slots_lost(target.slots_lost);
  row.set_flows(target.flows);
  row.set_fate(std::string(explain::to_string(target.fate)));
  row.set_drain_ms(static_cast<std::uint64_t>(std::max<std::int64_t>(target.drain_ms, 0)));
  row.set_then(target.then);
}

}  // namespace

std::string flow_states() {
  std::string text;
  for (std::uint8_t i = 1; i < kFlowStateCount; ++i)
    text += (text.empty() ? "" : " | ") + std::string(to_string(static_cast<FlowState>(i)));
  return text;
}

bool is_flow_state(const std::string& text) {
  return state_of(text).has_value();
}

Status list_flows(Operations& operations, const api::FlowsRequest& request, api::FlowList& reply) {
  const auto state = state_of(request.state());
  if (!request.state().empty() && !state) return invalid("state", quoted(request.state()) + " is none of " + flow_states());
  const auto live = operations.live();
  if (!request.listener().empty() &&
      std::ranges::find(live->listeners, request.listener(), &LiveListener::name) == live->listeners.end())
    return {grpc::StatusCode::NOT_FOUND, "no listener " + quoted(request.listener())};
  const explain::Context context = operations.explain_context();
  std::uint64_t lines = 0;
  for (const auto& table : context.worker_tables) lines += table.size();
  const std::uint64_t most = request.max_lines() == 0 ? kUsualLines : request.max_lines();
  const std::uint64_t stride = std::max<std::uint64_t>(1, (lines + most - 1) / most);
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  FlowCensus census;
  for (const auto& table : context.worker_tables)
    take_census(census, table, stride, static_cast<std::uint64_t>(std::chrono::nanoseconds(now).count()));

  std::map<std::uint32_t, const LiveTarget*> targets;
  for (const LiveGroup& group : live->groups) {
    for (const LiveTarget& target : group.targets) {
      targets[target.status.id] = &target;
      reply.set_total(reply.total() + target.status.flows);
    }
  }
  const double scale =
      census.lines_read == 0 ? 1 : static_cast<double>(census.lines) / static_cast<double>(census.lines_read);
  const auto estimate = [&](std::uint64_t counted) {
    return static_cast<std::uint64_t>(std::llround(static_cast<double>(counted) * scale));
  };
  std::vector<api::FlowRow> rows;
  for (const auto& [key, count] : census.counts) {
    const auto found = targets.find(key.first);
    if (state && *state != key.second) continue;
    const bool known = found != targets.end();
    const std::string group = known ? found->second->key.group : "";
    const std::string target =
        known ? format_address_port(found->second->key.address, found->second->key.port) : "a target that is gone";
    if (!request.target_group().empty() && request.target_group() != group) continue;
    if (!request.target().empty() && request.target() != target) continue;
    if (!request.listener().empty() && !sends_to(*live, request.listener(), group)) continue;
    api::FlowRow& row = rows.emplace_back();
    row.set_target_group(group);
    row.set_target(target);
    row.set_state(to_string(key.second));
    row.set_flows(estimate(count.flows));
    row.set_idle_1s(estimate(count.idle[0]));
    row.set_idle_10s(estimate(count.idle[1]));
    row.set_idle_60s(estimate(count.idle[2]));
    row.set_idle_longer(estimate(count.idle[3]));
    row.set_listeners(listeners_of(*live, group));
  }
  std::ranges::stable_sort(rows, [](const auto& a, const auto& b) { return a.flows() > b.flows(); });
  for (api::FlowRow& row : rows) *reply.add_flows() = std::move(row);
  reply.set_lines(census.lines);
  reply.set_lines_read(census.lines_read);
  return Status::OK;
}

Status list_offenders(Operations& operations, const api::OffendersRequest& request, api::OffenderList& reply) {
  constexpr std::uint32_t kUsualRows = 20;
  const auto live = operations.live();
  if (!request.listener().empty() &&
      std::ranges::find(live->listeners, request.listener(), &LiveListener::name) == live->listeners.end())
    return {grpc::StatusCode::NOT_FOUND, "no listener " + quoted(request.listener())};
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const explain::Offenders found = explain::offenders(operations.explain_context(), request.listener(),
                                                      static_cast<std::uint64_t>(std::chrono::nanoseconds(now).count()));
  const std::uint32_t most = request.max_rows() == 0 ? kUsualRows : request.max_rows();
  for (const explain::Offender& offender : found.rows) {
    if (static_cast<std::uint32_t>(reply.offenders_size()) == most) break;
    api::OffenderRow& row = *reply.add_offenders();
    row.set_listener(offender.listener);
    row.set_source(offender.source);
    row.set_refused(offender.refused);
    row.set_concurrent_flows(offender.flows);
    for (const std::string& limit : offender.over) row.add_over(limit);
    row.set_seen_ms_ago(offender.idle_ns / 1'000'000);
    row.set_known(offender.known);
  }
  reply.set_sources(static_cast<std::uint32_t>(found.sources));
  reply.set_offenders_total(static_cast<std::uint32_t>(found.rows.size()));
  return Status::OK;
}

Status plan_config(Operations& operations, const api::PlanRequest& request, api::PlanReply& reply) {
  const auto plan = operations.plan(request.text(), request.file());
  if (!plan) {
    for (const Violation& violation : plan.error().violations) fill(*reply.add_violations(), violation);
    for (const Violation& warning : plan.error().warnings) fill(*reply.add_warnings(), warning);
    return Status::OK;
  }
  for (const Violation& warning : plan->warnings) fill(*reply.add_warnings(), warning);
  for (const Change& change : plan->changes) fill(*reply.add_changes(), change);
  for (const explain::PlannedGroup& group : plan->groups) {
    api::PlannedGroup& row = *reply.add_target_groups();
    row.set_name(group.name);
    row.set_change(group.change);
    row.set_slots_before(group.slots_before);
    row.set_slots_after(group.slots_after);
    row.set_slots_moved(group.slots_moved);
    fill_fates(row, group.flows);
    for (const explain::PlannedTarget& target : group.targets) fill_target(*row.add_targets(), target);
  }
  reply.set_snapshot_bytes_before(plan->snapshot_bytes_before);
  reply.set_snapshot_bytes_after(plan->snapshot_bytes_after);
  reply.set_sent_bytes(plan->sent_bytes);
  reply.set_flows_stay(plan->flows.stay);
  reply.set_flows_move(plan->flows.move);
  reply.set_flows_drain(plan->flows.drain);
  reply.set_flows_reset(plan->flows.reset);
  reply.set_flows_known(plan->flows_known);
  for (const std::string& note : plan->notes) reply.add_notes(note);
  return Status::OK;
}

}  // namespace lb::cp
