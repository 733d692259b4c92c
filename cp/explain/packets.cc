#include "cp/explain/packets.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cp/model/model.h"
#include "dp/lb/decide.h"
#include "dp/lb/flow_copy.h"
#include "dp/lb/nat.h"
#include "dp/lb/pipeline.h"
#include "dp/lb/quic_route.h"
#include "dp/lb/vip_table.h"
#include "dp/lb/work.h"
#include "dp/net/parse.h"
#include "dp/net/translate.h"

namespace lb::cp::explain {
namespace {

constexpr std::uint16_t kHeadroomBytes = 128;
constexpr std::uint16_t kTailroomBytes = 256;
constexpr WayBack kSomeWay{.neighbour = {2, 0, 0, 0, 0, 1}, .own = {2, 0, 0, 0, 0, 2}, .used = 1};

std::string_view word(FlowResult flow) {
  return flow == FlowResult::hit ? "hit" : flow == FlowResult::fresh ? "new" : "none";
}

std::string_view word(Verdict verdict) {
  switch (verdict) {
    case Verdict::tx: return "tx";
    case Verdict::punt: return "punt";
    case Verdict::held: return "held";
    case Verdict::drop:
    case Verdict::answer: break;
  }
  return "drop";
}

std::optional<std::uint32_t> some(std::uint32_t index) {
  return index == abi::kNoIndex ? std::nullopt : std::optional(index);
}

std::uint32_t counters_of(const lb::Snapshot& snapshot) {
  std::uint32_t count = 0;
  for (const abi::Listener& listener : snapshot.listeners()) count = std::max(count, listener.counter_index + 2);
  return count;
}

}  // namespace

class PacketExplainer::Impl final : public ExtraPackets {
 public:
  Impl(Context context, std::uint64_t now_ns, std::uint64_t flows)
      : context_(std::move(context)),
        start_ns_(now_ns),
        now_ns_(now_ns),
        lines_(FlowTable::lines_for(flows)),
        target_flows_(context_.snapshot->targets().size()),
        listener_stats_(counters_of(*context_.snapshot)),
        flows_(lines_, target_flows_, context_.secret),
        own_(context_) {
    own_.worker_tables = {lines_};
    tables_.emplace_back(lines_);
    tables_.insert(tables_.end(), context_.worker_tables.begin(), context_.worker_tables.end());
  }

  PacketAnswer ask(std::span<const std::uint8_t> frame, std::uint64_t at_ns) {
    if (!first_at_) first_at_ = at_ns;
    now_ns_ = std::max(now_ns_, start_ns_ + (at_ns > *first_at_ ? at_ns - *first_at_ : 0));
    pipeline_.tend(*context_.snapshot, now_ns_);
    PacketAnswer answer;
    net::ParsedPacket packet;
    const net::ParseStatus status = net::parse(frame.data(), static_cast<std::uint32_t>(frame.size()), true, packet);
    const bool is_ip = status.result == net::ParseResult::ok || status.result == net::ParseResult::other_ip;
    if (is_ip) answer.key = packet.key;
    std::optional<std::uint32_t> holder;
    if (status.result == net::ParseResult::ok) {
      holder = meet_flow_of(packet.key);
      if (!holder) holder = meet(packet.key);
      const std::uint8_t flags = packet.protocol == static_cast<std::uint8_t>(abi::Protocol::tcp) ? packet.tcp_flags : 0;
      const WhyOptions options{.tcp_flags = flags, .candidates = false, .connection_id = connection_id(frame, packet)};
      answer.answer = why(own_, packet.key, now_ns_, options);
      if (is_translated(answer.answer)) {
        answer.answer = why(context_, packet.key, now_ns_, options);
        return answer;
      }
      if (answer.answer.slot && answer.answer.group) answer.answer.candidates = candidates(*answer.answer.group);
    }
    if (const auto reply = quoted_reply(frame, status, packet)) meet_flow_of(*reply);
    run(frame, !is_ip || status.result == net::ParseResult::other_ip, answer);
    answer.answer.worker = answer.answer.entry ? holder : std::nullopt;
    return answer;
  }

  bool send(std::uint8_t, const std::uint8_t*, std::uint32_t) override { return true; }

 private:
  // Of mode fullnat: its SNAT ports are given out by the workers, so the flow is asked about, not run.
  [[nodiscard]] bool is_translated(const Answer& answer) const {
    return answer.target && context_.snapshot->targets()[*answer.target].mode == abi::ForwardingMode::fullnat;
  }

  static std::span<const std::uint8_t> connection_id(std::span<const std::uint8_t> frame, const net::ParsedPacket& packet) {
    if (packet.protocol != static_cast<std::uint8_t>(abi::Protocol::udp)) return {};
    return destination_cid(udp_payload(frame.data(), packet));
  }

  // Copies the flow's live entry when it is first met; which worker holds it.
  std::optional<std::uint32_t> meet(const net::FlowKey& key) {
    const Hash128 hash = flow_hash(flows_.hash_keys(), key);
    const auto [known, fresh] = met_.try_emplace({hash.high, hash.low});
    if (!fresh) return known->second;
    std::optional<FlowView> newest;
    for (std::uint32_t worker = 0; worker < context_.worker_tables.size(); ++worker) {
      const auto view = FlowTable::peek(context_.worker_tables[worker], hash, now_ns_);
      if (!view || (newest && newest->idle_ns <= view->idle_ns)) continue;
      newest = view;
      known->second = worker;
    }
    if (!newest) return known->second;
    // Over which neighbour a nat flow's replies leave is in lb-dp's own memory: one like it stands in.
    if (newest->way != 0) newest->way = flows_.ways().learn(key.source, kSomeWay, 0, 0);
    copy_flow(flows_, hash, *newest, now_ns_);
    return known->second;
  }

  // The flow that a nat target's reply belongs to.
  std::optional<std::uint32_t> meet_flow_of(const net::FlowKey& reply) {
    const lb::Snapshot& snapshot = *context_.snapshot;
    std::optional<std::uint32_t> holder;
    if (is_vip(vip_table_of(snapshot), reply.destination)) return holder;
    for (const std::uint32_t listener : return_listeners(snapshot, reply.source, reply.source_port, reply.protocol)) {
      const auto found = meet(forward_key(snapshot, snapshot.listeners()[listener], reply));
      if (found) holder = found;
    }
    return holder;
  }

  // What a nat target's reply would be to the packet that an ICMP error on its way to the client quotes.
  std::optional<net::FlowKey> quoted_reply(std::span<const std::uint8_t> frame, const net::ParseStatus& status,
                                           const net::ParsedPacket& packet) const {
    const auto icmp = static_cast<std::uint8_t>(packet.key.is_v6 != 0 ? abi::Protocol::icmpv6 : abi::Protocol::icmp);
    if (status.result != net::ParseResult::other_ip || status.reason != abi::DropReason::none || packet.protocol != icmp ||
        is_vip(vip_table_of(*context_.snapshot), packet.key.destination))
      return std::nullopt;
    const auto quoted = net::quoted_flow(frame.data(), packet);
    if (!quoted || quoted->source != packet.key.destination) return std::nullopt;
    net::FlowKey reply = *quoted;
    std::swap(reply.source, reply.destination);
    std::swap(reply.source_port, reply.destination_port);
    return reply;
  }

  const std::vector<Candidate>& candidates(std::uint32_t group) {
    const auto [at, fresh] = candidates_.try_emplace(group);
    if (fresh) at->second = candidates_of(*context_.snapshot, group);
    return at->second;
  }

  // The packet's way through the workers' code; what it found counts, and words of our own where why() was not asked.
  void run(std::span<const std::uint8_t> frame, bool unusual, PacketAnswer& answer) {
    buffer_.assign(kHeadroomBytes + frame.size() + kTailroomBytes, 0);
    std::ranges::copy(frame, buffer_.begin() + kHeadroomBytes);
    // Any destination MAC is lb's; a group address would keep lb from answering.
    if (!frame.empty() && (frame[0] & 1) != 0) buffer_[kHeadroomBytes] = 2;
    Burst& burst = burst_;
    burst.count = 1;
    burst.data[0] = buffer_.data() + kHeadroomBytes;
    burst.length[0] = static_cast<std::uint32_t>(frame.size());
    burst.headroom[0] = kHeadroomBytes;
    burst.tailroom[0] = kTailroomBytes;
    // ICMP errors are about flows that this capture may not have shown.
    pipeline_.work().options.tables = unusual ? std::span<const std::span<const abi::FlowLine>>(tables_)
                                              : std::span<const std::span<const abi::FlowLine>>();
    pipeline_.process(*context_.snapshot, burst, now_ns_);
    Answer& said = answer.answer;
    const std::string reason(abi::to_string(burst.reason[0]));
    const bool as_expected = said.verdict == word(burst.verdict[0]) && said.reason == reason;
    said.verdict = word(burst.verdict[0]);
    said.reason = reason;
    said.flow = word(burst.flow[0]);
    said.listener = some(burst.listener[0]);
    said.group = some(burst.group[0]);
    said.target = some(burst.target[0]);
    if (burst.flow[0] == FlowResult::fresh) said.slot = some(burst.slot[0]);
    if (burst.verdict[0] == Verdict::tx || burst.verdict[0] == Verdict::answer) answer.out_length = burst.length[0];
    if (!as_expected) explain(burst, said);
  }

  static void explain(const Burst& burst, Answer& said) {
    switch (burst.verdict[0]) {
      case Verdict::punt: said.explanation = "It is no packet for a VIP: the kernel's."; break;
      case Verdict::held: said.explanation = "A fragment that came before its first one: it waits for that one."; break;
      case Verdict::tx: said.explanation = "It goes where its flow goes."; break;
      case Verdict::drop:
      case Verdict::answer:
        said.explanation = "It is dropped as " + said.reason + ": " + std::string(help(burst.reason[0])) + ".";
        break;
    }
    said.steps.push_back("verdict: " + said.verdict + (said.reason.empty() ? "" : ", " + said.reason));
  }

  const Context context_;
  const std::uint64_t start_ns_;
  std::uint64_t now_ns_;
  std::optional<std::uint64_t> first_at_;
  std::vector<abi::FlowLine> lines_;
  std::vector<std::uint32_t> target_flows_;
  std::vector<abi::ListenerStats> listener_stats_;
  abi::WorkerStats stats_;
  FlowTable flows_;
  Context own_;  // why() on flows_
  std::vector<std::span<const abi::FlowLine>> tables_;
  Pipeline pipeline_{{.flows = &flows_, .stats = &stats_, .listener_stats = listener_stats_.data(), .extra = this}};
  Burst burst_;
  std::vector<std::uint8_t> buffer_;
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::optional<std::uint32_t>> met_;  // by flow hash: who held it
  std::map<std::uint32_t, std::vector<Candidate>> candidates_;                           // by group
};

PacketExplainer::PacketExplainer(Context context, std::uint64_t now_ns, std::uint64_t flows)
    : impl_(std::make_unique<Impl>(std::move(context), now_ns, flows)) {}
PacketExplainer::~PacketExplainer() = default;

PacketAnswer PacketExplainer::ask(std::span<const std::uint8_t> frame, std::uint64_t at_ns) {
  return impl_->ask(frame, at_ns);
}

}  // namespace lb::cp::explain
