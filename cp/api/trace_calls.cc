#include "cp/api/trace_calls.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "cp/api/refusals.h"
#include "cp/api/rows.h"
#include "cp/api/streams.h"
#include "dp/abi/counters.h"
#include "proto/api.pb.h"

namespace lb::cp {

namespace {

using grpc::Status;
using grpc::StatusCode;

constexpr std::chrono::milliseconds kLookEvery{20};
constexpr std::uint32_t kUsualRate = 100;
constexpr std::uint32_t kHeaderBytes = 128;  // what is read of a packet whose bytes nobody wants to see

std::uint64_t count_ns(auto time) {
  return static_cast<std::uint64_t>(std::chrono::nanoseconds(time).count());
}

// The bytes of a prefix, if the text is one; a field left out is any.
bool read_prefix(const std::string& text, abi::IpAddress& address, std::uint32_t& length) {
  if (text.empty()) return true;
  const auto prefix = parse_prefix(text);
  if (!prefix) return false;
  address = abi::masked(prefix->address, prefix->length);
  length = prefix->length;
  return true;
}

}  // namespace

Status read_order(const api::TraceRequest& request, abi::TraceOrder& order) {
  const std::string& protocol = request.protocol();
  if (protocol == "TCP" || protocol == "tcp") order.protocol = static_cast<std::uint8_t>(abi::Protocol::tcp);
  if (protocol == "UDP" || protocol == "udp") order.protocol = static_cast<std::uint8_t>(abi::Protocol::udp);
  if (!protocol.empty() && order.protocol == 0) return invalid("protocol", quoted(protocol) + " is neither TCP nor UDP");
  if (!read_prefix(request.client(), order.client, order.client_length))
    return invalid("client", quoted(request.client()) + " is not an address or prefix");
  if (!read_prefix(request.vip(), order.vip, order.vip_length))
    return invalid("vip", quoted(request.vip()) + " is not an address or prefix");
  if (request.port() > 65535) return invalid("port", std::to_string(request.port()) + " is above 65535");
  order.port = static_cast<std::uint16_t>(request.port());
  const std::string& verdict = request.verdict();
  order.verdict = verdict == "tx" ? 1 : verdict == "punt" ? 2 : verdict == "drop" ? 3 : 0;
  if (!verdict.empty() && order.verdict == 0) return invalid("verdict", quoted(verdict) + " is none of tx, punt, drop");
  for (std::size_t i = 1; i <= abi::kCounterCount - abi::kFirstDropCounter && !request.reason().empty(); ++i) {
    if (request.reason() == abi::to_string(static_cast<abi::DropReason>(i))) order.reason = static_cast<std::uint16_t>(i);
  }
  if (!request.reason().empty() && order.reason == 0)
    return invalid("reason", quoted(request.reason()) + " is no drop's name; lbctl drops -o wide lists them");
  order.packets_per_second = request.packets_per_second() == 0 ? kUsualRate : request.packets_per_second();
  if (order.packets_per_second > abi::kTracePacketsPerSecond)
    return invalid("packets_per_second", std::to_string(order.packets_per_second) + " is above 10000");
  if (request.snap_bytes() > abi::kTraceSnapBytes)
    return invalid("snap_bytes", std::to_string(request.snap_bytes()) + " is above 1984");
  order.snap_bytes = std::max(request.snap_bytes(), kHeaderBytes);
  return Status::OK;
}

namespace {

void fill(api::TraceRecord& row, const explain::TracedPacket& packet, const explain::TraceWords& words,
          std::uint32_t snap_bytes, std::uint64_t unix_minus_steady_ns) {
  const abi::TraceRecord& record = packet.record;
  row.set_unix_ns(record.at_ns + unix_minus_steady_ns);
  row.set_worker(packet.worker);
  row.set_number(packet.number);
  row.set_epoch(record.generation.epoch);
  row.set_generation(record.generation.n);
  row.set_in_length(record.in_length);
  row.set_out_length(record.out_length);
  row.set_in_frame(record.bytes.data(), std::min<std::uint32_t>(record.in_bytes, snap_bytes));
  row.set_out_frame(record.bytes.data() + record.in_bytes, std::min<std::uint32_t>(record.out_bytes, snap_bytes));
  if (record.slot != abi::kNoIndex) row.set_slot(record.slot);
  row.set_protocol(words.protocol);
  row.set_source(words.source);
  row.set_destination(words.destination);
  row.set_verdict(words.verdict);
  row.set_reason(words.reason);
  row.set_listener(to_utf8(words.listener));
  row.set_target_group(to_utf8(words.target_group));
  row.set_target(words.target);
  row.set_flow(words.flow);
  row.set_in_port(to_utf8(words.in_port));
  row.set_out_port(to_utf8(words.out_port));
  row.set_path(to_utf8(words.path));
}

}  // namespace

Status stream_trace(Operations& operations, const grpc::ServerContext& context, const api::TraceRequest& request,
                    const std::function<bool(const api::TraceBatch&)>& write) {
  abi::TraceOrder order;
  if (Status status = read_order(request, order); !status.ok()) return status;
  const auto tracing = operations.start_trace(order);
  if (!tracing) return {StatusCode::FAILED_PRECONDITION, to_utf8(tracing.error())};
  std::uint64_t limited = 0;
  bool first = true;  // an empty batch tells the client that its trace is armed
  do {
    auto batch = (*tracing)->read();
    if (!batch) return {StatusCode::ABORTED, to_utf8(batch.error())};
    if (batch->packets.empty() && batch->lost == 0 && batch->limited == limited && !first) continue;
    first = false;
    limited = batch->limited;
    api::TraceBatch reply;
    reply.set_lost(batch->lost);
    reply.set_limited(batch->limited);
    const std::uint64_t offset = count_ns(std::chrono::system_clock::now().time_since_epoch()) -
                                 count_ns(std::chrono::steady_clock::now().time_since_epoch());
    const auto snapshot = batch->packets.empty() ? nullptr : operations.explain_context().snapshot;
    for (const explain::TracedPacket& packet : batch->packets)
      fill(*reply.add_records(), packet, explain::words_of(snapshot.get(), packet.record), request.snap_bytes(), offset);
    if (!write(reply)) break;
  } while (wait_in_stream(context, kLookEvery));
  return {StatusCode::CANCELLED, "the trace has ended"};
}

}  // namespace lb::cp
