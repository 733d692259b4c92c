#include "cp/api/flow_question.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>

#include "cp/api/rows.h"
#include "cp/model/model.h"
#include "proto/api.pb.h"

namespace lb::cp {

namespace {

constexpr int kMostCandidates = 20;
constexpr std::size_t kMostConnectionIdBytes = 20;

tl::expected<std::uint8_t, BadField> read_protocol(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  if (text == "TCP") return static_cast<std::uint8_t>(abi::Protocol::tcp);
  if (text == "UDP") return static_cast<std::uint8_t>(abi::Protocol::udp);
  return tl::unexpected(BadField{"protocol", "`" + to_utf8(text) + "` is neither TCP nor UDP"});
}

tl::expected<abi::IpAddress, BadField> read_address(const std::string& field, const std::string& text) {
  const bool bracketed = text.size() > 2 && text.front() == '[' && text.back() == ']';
  const auto address = parse_address(bracketed ? text.substr(1, text.size() - 2) : text);
  if (!address) return tl::unexpected(BadField{field, "`" + to_utf8(text) + "` is not an IPv4 or IPv6 address"});
  return *address;
}

tl::expected<std::uint16_t, BadField> read_port(const std::string& field, std::uint32_t port) {
  if (port > 65535) return tl::unexpected(BadField{field, std::to_string(port) + " is above 65535"});
  return static_cast<std::uint16_t>(port);
}

}  // namespace

tl::expected<net::FlowKey, BadField> read_flow(const api::WhyRequest& request) {
  const auto protocol = read_protocol(request.protocol());
  if (!protocol) return tl::unexpected(protocol.error());
  const auto source = read_address("source", request.source());
  if (!source) return tl::unexpected(source.error());
  const auto source_port = read_port("source_port", request.source_port());
  if (!source_port) return tl::unexpected(source_port.error());
  const auto destination = read_address("destination", request.destination());
  if (!destination) return tl::unexpected(destination.error());
  const auto destination_port = read_port("destination_port", request.destination_port());
  if (!destination_port) return tl::unexpected(destination_port.error());
  if (source->is_v4() != destination->is_v4()) {
    return tl::unexpected(BadField{"destination", "source and destination are of different IP versions"});
  }
  net::FlowKey key;
  key.source = *source;
  key.destination = *destination;
  key.source_port = *source_port;
  key.destination_port = *destination_port;
  key.protocol = *protocol;
  key.is_v6 = source->is_v4() ? 0 : 1;
  return key;
}

tl::expected<std::vector<std::uint8_t>, BadField> read_connection_id(const api::WhyRequest& request) {
  auto bytes = parse_hex(request.connection_id());
  if (!bytes || bytes->size() > kMostConnectionIdBytes) {
    return tl::unexpected(BadField{"connection_id", "`" + to_utf8(request.connection_id()) + "` is not 2-40 hex digits"});
  }
  return std::move(*bytes);
}

tl::expected<HistoryPoint, BadField> read_point(const std::string& text) {
  const char* const end = text.data() + text.size();
  HistoryPoint point;
  const auto first = std::from_chars(text.data(), end, point.number);
  bool good = first.ec == std::errc{};
  if (good && first.ptr != end) {
    abi::Generation generation{point.number, 0};
    const auto second = *first.ptr == '.' ? std::from_chars(first.ptr + 1, end, generation.n) : first;
    good = *first.ptr == '.' && second.ec == std::errc{} && second.ptr == end;
    point.generation = generation;
  }
  if (good) return point;
  return tl::unexpected(
      BadField{"generation", "`" + to_utf8(text) + "` is neither a generation such as 1.9 nor a number of the history"});
}

void fill_reply(api::WhyReply& reply, const explain::Context& context, const net::FlowKey& key,
                const explain::Answer& answer) {
  reply.set_verdict(answer.verdict);
  reply.set_flow(answer.flow);
  reply.set_pinned_elsewhere(answer.pinned_elsewhere);
  reply.set_explanation(to_utf8(answer.explanation));
  for (const std::string& step : answer.steps) reply.add_steps(to_utf8(step));
  if (!answer.reason.empty()) reply.set_reason(answer.reason);
  if (!answer.pinned_because.empty()) reply.set_pinned_because(answer.pinned_because);
  if (!answer.next_hop.empty()) reply.set_next_hop(to_utf8(answer.next_hop));
  if (answer.outer_source) reply.set_outer_source(format_address(*answer.outer_source));
  if (!answer.outer_header.empty()) reply.set_outer_header(answer.outer_header);
  if (!answer.connection_id.empty()) reply.set_quic(to_utf8(answer.connection_id));
  if (!answer.guard.empty()) reply.set_guard(to_utf8(answer.guard));
  if (key.protocol == static_cast<std::uint8_t>(abi::Protocol::tcp)) reply.set_protocol("TCP");
  if (key.protocol == static_cast<std::uint8_t>(abi::Protocol::udp)) reply.set_protocol("UDP");
  if (key.protocol != 0) {
    reply.set_source(format_address_port(key.source, key.source_port));
    reply.set_destination(format_address_port(key.destination, key.destination_port));
  }
  if (answer.worker) reply.set_worker(*answer.worker);
  if (answer.entry) {
    reply.set_flow_state(to_string(answer.entry->state));
    reply.set_flow_idle_ms(answer.entry->idle_ns / 1'000'000);
  }
  if (answer.slot) reply.set_slot(*answer.slot);
  if (context.snapshot == nullptr) return;
  const Snapshot& snapshot = *context.snapshot;
  const auto address_of = [&](std::uint32_t id) { return explain::target_text(snapshot.targets()[id], key); };
  reply.set_epoch(snapshot.generation().epoch);
  reply.set_generation(snapshot.generation().n);
  if (answer.listener) reply.set_listener(std::string(snapshot.name(snapshot.listeners()[*answer.listener].name)));
  if (answer.group) reply.set_target_group(std::string(snapshot.name(snapshot.groups()[*answer.group].name)));
  if (answer.target) reply.set_target(address_of(*answer.target));
  if (answer.slot_target) reply.set_slot_target(address_of(*answer.slot_target));
  reply.set_candidate_count(static_cast<std::uint32_t>(answer.candidates.size()));
  for (const explain::Candidate& candidate : answer.candidates) {
    if (reply.candidates_size() == kMostCandidates) break;
    api::Candidate& row = *reply.add_candidates();
    row.set_target(address_of(candidate.target));
    row.set_share(candidate.share);
    row.set_state(std::string(abi::to_string(snapshot.targets()[candidate.target].state)));
    row.set_weight(snapshot.targets()[candidate.target].weight);
  }
}

}  // namespace lb::cp
